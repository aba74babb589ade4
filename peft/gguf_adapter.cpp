// GGUF LoRA adapters: names, order of rows, scale.
#include "peft/gguf_adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "autograd/ops.h"
#include "nn/models/gguf_names.h"
#include "nn/models/loading.h"
#include "peft/file_keys.h"
#include "peft/tensor_edit.h"
#include "tensor/gguf_writer.h"
#include "tensor/json.h"

namespace cambium {

namespace {

constexpr std::string_view kWeight = ".weight";

struct Target {
  const GgufArchitecture* architecture = nullptr;
  std::int64_t head_dim = 0;
  bool tied = false;
};

Target target_of(const Json& config, const std::string& where) {
  const std::string model_type = config.value("model_type", std::string());
  Target out;
  out.architecture = gguf_architecture_of_model(model_type);
  check<ConfigError>(out.architecture != nullptr, where, ": no GGUF architecture is known for base models of type '", model_type, "': ", known_gguf_architectures(), " are");
  out.tied = config.value("tie_word_embeddings", model_type == "gpt2");
  if (!out.architecture->permuted_queries) return out;
  const auto given = config.find("head_dim");
  if (given != config.end() && given->is_number_integer()) out.head_dim = given->get<std::int64_t>();
  else {
    const std::int64_t hidden = config.value("hidden_size", std::int64_t{0}), heads = config.value("num_attention_heads", std::int64_t{0});
    check<ConfigError>(hidden > 0 && heads > 0 && hidden % heads == 0, where, ": the base model's configuration does not say how large a head is: expected head_dim, or hidden_size and num_attention_heads");
    out.head_dim = hidden / heads;
  }
  check<ConfigError>(out.head_dim > 0 && out.head_dim % 2 == 0, where, ": expected heads of an even size, found ", out.head_dim);
  return out;
}

bool is_permuted(const Target& target, std::string_view gguf_name) {
  return target.architecture->permuted_queries && (gguf_name.find(".attn_q.") != std::string_view::npos || gguf_name.find(".attn_k.") != std::string_view::npos);
}

bool is_table(std::string_view gguf_name) { return gguf_name == "token_embd.weight"; }

/// The rank that most modules have.
std::int64_t common_rank(const std::vector<LoraAdapter::Part>& parts) {
  std::map<std::int64_t, int> counts;
  for (const LoraAdapter::Part& part : parts) ++counts[part.a.size(0)];
  return std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) { return x.second < y.second; })->first;
}

}  // namespace

std::string read_base_config(const std::string& model) {
  namespace fs = std::filesystem;
  if (model.ends_with(".gguf")) return config_from_gguf(GgufFile(model)).dump();
  const std::string path = fs::is_directory(model) ? model + "/config.json" : model;
  check<FileError>(fs::exists(path), model, ": there is no config.json: expected a model folder, a config.json or a .gguf file");
  return read_json_file(path).dump();
}

LoraAdapter read_gguf_adapter(const std::string& path, const std::string& base_config) {
  NoGrad no_grad;
  const GgufFile file(path);
  const auto text = [&](const char* key) { return file.has(key) ? std::string(file.value(key).string()) : std::string(); };
  check<ConfigError>(text("general.type") == "adapter", path, ": general.type: expected adapter, found '", text("general.type"), "': this is no adapter");
  check<ConfigError>(text("adapter.type") == "lora", path, ": adapter.type: expected lora, found '", text("adapter.type"), "'");
  const Target target = target_of(parse_json(base_config, "configuration of the base model"), path);
  check<ConfigError>(text("general.architecture") == target.architecture->name, path, ": it is made for the architecture '", text("general.architecture"), "', the base model is '",
                     target.architecture->name, "'");
  const double alpha = file.has("adapter.lora.alpha") ? file.value("adapter.lora.alpha").number() : 0.0;
  check<ConfigError>(alpha != 0.0 && std::isfinite(alpha), path, ": adapter.lora.alpha: expected a number that is not 0, found ", alpha, ": readers disagree on what its absence means");

  std::map<std::string, LoraAdapter::Part> parts;
  std::vector<std::string> order;
  for (const GgufTensorInfo& info : file.tensors()) {
    const std::string name(info.name);
    const bool is_a = name.ends_with(".lora_a"), is_b = name.ends_with(".lora_b");
    check<NameError>(is_a || is_b, path, ": '", name, "': expected names that end in .lora_a or .lora_b");
    const std::string base = name.substr(0, name.size() - 7);
    const std::optional<std::string> known = huggingface_name(*target.architecture, base);
    check<NameError>(known && known->ends_with(kWeight), path, ": '", name, "': the architecture ", target.architecture->name, " has no tensor '", base, "'");
    const std::string module_path = known->substr(0, known->size() - kWeight.size());
    if (!parts.contains(base)) order.push_back(base);
    LoraAdapter::Part& part = parts[base];
    part.path = module_path;
    part.embedding = is_table(base);
    check<ShapeError>(info.shape.rank() == 2, path, ": '", name, "': expected a matrix, found ", info.shape);
    (is_a ? part.a : part.b) = file.tensor(info.name);
  }
  LoraAdapter out;
  out.where = path;
  for (const std::string& base : order) {
    LoraAdapter::Part& part = parts.at(base);
    check<NameError>(part.a.defined() && part.b.defined(), path, ": '", base, "': ", part.a.defined() ? "lora_b" : "lora_a", " is missing");
    if (part.embedding) part.a = contiguous(transpose(part.a));  // tables of tokens are stored flipped
    check<ShapeError>(part.a.size(0) == part.b.size(1), path, ": '", base, "': factors ", part.b.shape(), " and ", part.a.shape(), " cannot be multiplied");
    if (is_permuted(target, base)) part.b = halves_from_pairs(part.b, target.head_dim);
    part.scaling = alpha / static_cast<double>(part.a.size(0));
    out.parts.push_back(part);
  }
  check<NameError>(!out.parts.empty(), path, ": there are no factors in it");
  out.config.r = common_rank(out.parts);
  out.config.lora_alpha = alpha;
  std::vector<std::string> targets;
  for (const LoraAdapter::Part& part : out.parts) {
    targets.push_back(part.path);
    if (part.a.size(0) != out.config.r) out.config.rank_pattern.emplace_back(pattern_of(part.path), part.a.size(0));
  }
  out.config.target_modules = targets;
  out.config.task_type = TaskType::CAUSAL_LM;
  out.config.fan_in_fan_out = target.architecture->transposed;
  out.config.inference_mode = true;
  return out;
}

void write_gguf_adapter(const LoraAdapter& adapter, const std::string& base_config, const std::string& path, GgmlType type) {
  NoGrad no_grad;
  const Target target = target_of(parse_json(base_config, "configuration of the base model"), adapter.where);
  const auto refuse = [&](bool ok, const std::string& what, const char* why) { check<ConfigError>(ok, adapter.where, ": '", what, "': a GGUF adapter cannot hold ", why, ": merge it into the model instead"); };
  for (const auto& [key, tensor] : adapter.others) {
    if (key.ends_with(".base_layer.weight")) continue;  // the base's own, which PEFT stores beside adapted embeddings
    refuse(false, key, key.find("trainable_tokens") != std::string::npos ? "replaced rows of an embedding" : key.ends_with(".bias") ? "trained biases" : "copies of modules");
  }
  check<ConfigError>(!adapter.parts.empty(), adapter.where, ": there are no factors in it");
  const std::int64_t rank = common_rank(adapter.parts);
  // One alpha for the file: that of the first module of the common rank.
  double alpha = 0.0;
  for (const LoraAdapter::Part& part : adapter.parts)
    if (alpha == 0.0 && part.a.size(0) == rank) alpha = part.scaling * static_cast<double>(rank);
  check<ConfigError>(alpha != 0.0 && std::isfinite(alpha), adapter.where, ": its scaling is ", alpha, ": readers of GGUF take alpha 0 for 'no scaling', so it cannot be written");

  std::vector<GgufTensor> tensors;
  for (const LoraAdapter::Part& part : adapter.parts) {
    refuse(!part.magnitude.defined(), part.path, "DoRA");
    refuse(!part.bias.defined(), part.path, "biases (lora_bias)");
    const std::optional<std::string> name = gguf_name(*target.architecture, part.path + std::string(kWeight));
    check<ConfigError>(name.has_value(), adapter.where, ": '", part.path, "': the architecture ", target.architecture->name, " has no tensor for it");
    check<ConfigError>(*name != "output.weight" || !target.tied, adapter.where, ": '", part.path, "' is tied to the embeddings: readers of GGUF have no tensor of its own to adapt: merge it into the model instead");
    check<ConfigError>(part.embedding == is_table(*name), adapter.where, ": '", part.path, "': only the table of tokens can be adapted as an embedding");
    const auto r = static_cast<double>(part.a.size(0));
    check<ConfigError>(type != GgmlType::q8_0 || part.a.size(0) % 32 == 0, adapter.where, ": '", part.path, "': Q8_0 needs a rank that is a multiple of 32, found ", part.a.size(0));
    Tensor a = to_dtype(part.a, DType::f32), b = to_dtype(part.b, DType::f32);
    if (std::fabs(part.scaling * r - alpha) > 1e-9 * std::fabs(alpha)) b = mul(b, part.scaling * r / alpha);
    if (is_permuted(target, *name)) b = pairs_from_halves(b, target.head_dim);
    if (part.embedding) a = contiguous(transpose(a));
    check<ConfigError>(type != GgmlType::q8_0 || a.size(1) % 32 == 0, adapter.where, ": '", part.path, "': Q8_0 needs rows of a multiple of 32, found ", a.size(1));
    tensors.push_back({*name + ".lora_a", a, type});
    tensors.push_back({*name + ".lora_b", b, type});
  }
  GgufMetadata metadata;
  metadata.set("general.type", "adapter").set("general.architecture", std::string(target.architecture->name)).set("adapter.type", "lora");
  metadata.set("adapter.lora.alpha", static_cast<float>(alpha));
  if (adapter.config.base_model_name_or_path) metadata.set("general.base_model.0.name", std::filesystem::path(*adapter.config.base_model_name_or_path).filename().string());
  save_gguf(path, metadata, tensors);
}

}  // namespace cambium
