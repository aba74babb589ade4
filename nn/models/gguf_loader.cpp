// GGUF files: their metadata as a config.json, their tensors under Hugging Face's names.
#include "autograd/ops.h"
#include "nn/models/gguf_names.h"
#include "nn/models/loading.h"
#include "tensor/gguf.h"

namespace cambium {

namespace {

/// Metadata under "<architecture>." as members of a config.json.
class ConfigFromMetadata {
 public:
  ConfigFromMetadata(const GgufFile& file, const GgufArchitecture& architecture) : file_(file), prefix_(std::string(architecture.name) + ".") {}

  std::optional<GgufValue> find(const std::string& key) const { return file_.find(prefix_ + key); }
  void integer(const char* to, const std::string& key, bool required = true) {
    if (const auto value = find(key)) config[to] = value->integer();
    else check<ConfigError>(!required, file_.path(), ": the metadata '", prefix_ + key, "' is missing");
  }
  void number(const char* to, const std::string& key) {
    if (const auto value = find(key)) config[to] = value->number();
  }
  /// Settings that this library does not have: absent or this value.
  void refuse_unless(const std::string& key, double value) const {
    const auto found = find(key);
    if (found && found->number() != value) fail<ConfigError>(file_.path(), ": '", prefix_ + key, "': only ", value, " is supported, found ", found->number());
  }

  Json config = Json::object();

 private:
  const GgufFile& file_;
  std::string prefix_;
};

void add_rope(ConfigFromMetadata& from, const GgufFile& file, std::int64_t head_dim) {
  Json rope = Json::object();
  rope["rope_theta"] = 10000.0;
  if (const auto base = from.find("rope.freq_base")) rope["rope_theta"] = base->number();
  rope["rope_type"] = "default";
  std::string scaling = "none";
  if (const auto type = from.find("rope.scaling.type")) scaling = std::string(type->string());
  const auto factor = from.find("rope.scaling.factor"), older = from.find("rope.scale_linear");
  if (scaling == "linear" || (scaling == "none" && older && older->number() != 1.0)) {
    rope["rope_type"] = "linear";
    check<ConfigError>(factor || older, file.path(), ": linear rope scaling without a factor");
    rope["factor"] = factor ? factor->number() : older->number();
  } else {
    check<ConfigError>(scaling == "none", file.path(), ": rope scaling '", scaling, "' is not supported: none and linear are");
  }
  // Llama 3's scaling stands in the file as divisors of the frequencies.
  if (file.contains("rope_freqs.weight")) {
    check<ConfigError>(rope["rope_type"] == "default", file.path(), ": rope_freqs.weight beside linear rope scaling");
    const Tensor factors = file.tensor("rope_freqs.weight", DType::f32);
    check<ConfigError>(factors.shape() == Shape{head_dim / 2}, file.path(), ": rope_freqs.weight: expected ", Shape{head_dim / 2}, ", found ", factors.shape());
    rope["rope_type"] = "factors";
    rope["frequency_factors"] = factors.to_vector<double>();
  }
  if (const auto rotated = from.find("rope.dimension_count"))
    check<ConfigError>(rotated->integer() == head_dim, file.path(), ": rope.dimension_count: only whole heads of ", head_dim, " can be rotated, found ", rotated->integer());
  from.config["rope_parameters"] = rope;
}

Json config_of(const GgufFile& file, const GgufArchitecture& architecture) {
  ConfigFromMetadata from(file, architecture);
  Json& config = from.config;
  const bool gpt2 = architecture.model_type == "gpt2";
  std::string model_type(architecture.model_type);
  if (model_type == "llama" && from.find("attention.sliding_window")) model_type = "mistral";
  for (const ModelFamily& family : model_families())
    if (family.model_type == model_type) config["architectures"] = {std::string(family.classes.front().architecture)};
  config["model_type"] = model_type;
  from.refuse_unless("expert_count", 0.0);
  config["vocab_size"] = file.info("token_embd.weight").shape[0];
  config["tie_word_embeddings"] = !file.contains("output.weight");
  from.integer(gpt2 ? "n_embd" : "hidden_size", "embedding_length");
  from.integer(gpt2 ? "n_layer" : "num_hidden_layers", "block_count");
  from.integer(gpt2 ? "n_head" : "num_attention_heads", "attention.head_count");
  from.integer(gpt2 ? "n_positions" : "max_position_embeddings", "context_length");
  from.integer(gpt2 ? "n_inner" : "intermediate_size", "feed_forward_length");
  if (gpt2) {
    from.number("layer_norm_epsilon", "attention.layer_norm_epsilon");
    config["activation_function"] = "gelu_new";
    for (const char* dropout : {"embd_pdrop", "attn_pdrop", "resid_pdrop"}) config[dropout] = 0.0;
  } else {
    from.integer("num_key_value_heads", "attention.head_count_kv", false);
    from.integer("head_dim", "attention.key_length", false);
    from.number("rms_norm_eps", "attention.layer_norm_rms_epsilon");
    if (model_type == "mistral") from.integer("sliding_window", "attention.sliding_window");
    config["hidden_act"] = "silu";
    config["attention_bias"] = file.contains("blk.0.attn_q.bias");
    config["mlp_bias"] = file.contains("blk.0.ffn_gate.bias");
    const std::int64_t heads = config["num_attention_heads"].get<std::int64_t>(), hidden = config["hidden_size"].get<std::int64_t>();
    check<ConfigError>(heads > 0 && hidden > 0 && hidden <= INT32_MAX, file.path(), ": expected positive sizes, found ", heads, " heads and an embedding_length of ", hidden);
    const std::int64_t head_dim = config.contains("head_dim") ? config["head_dim"].get<std::int64_t>() : hidden / heads;
    config["head_dim"] = head_dim;
    add_rope(from, file, head_dim);
  }
  for (const auto& [to, key] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"}, {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                {"pad_token_id", "tokenizer.ggml.padding_token_id"}})
    if (const auto id = file.find(key)) config[to] = id->integer();
  const auto eot = file.find("tokenizer.ggml.eot_token_id");
  if (eot && config.contains("eos_token_id") && config["eos_token_id"] != eot->integer())
    config["eos_token_id"] = std::vector<std::int64_t>{config["eos_token_id"].get<std::int64_t>(), eot->integer()};
  if (const auto name = file.find("general.name")) config["_name_or_path"] = std::string(name->string());
  return config;
}

const GgufArchitecture& architecture_of(const GgufFile& file) {
  const std::string name(file.value("general.architecture").string());
  const GgufArchitecture* architecture = gguf_architecture(name);
  check<ConfigError>(architecture != nullptr, file.path(), ": architecture '", name, "' is not supported: ", known_gguf_architectures(), " are");
  return *architecture;
}

/// Rows of q and k lie as (heads, D/2, 2) for interleaved rotation; the model rotates halves: (heads, 2, D/2).
Tensor halves_first(const Tensor& x, std::int64_t head_dim, std::string_view name, const std::string& path) {
  check<ConfigError>(x.rank() <= 2 && head_dim % 2 == 0 && x.size(0) % head_dim == 0, path, ": '", name, "': ", x.shape(), " does not hold heads of ", head_dim);
  const std::int64_t columns = x.rank() == 2 ? x.size(1) : 1;
  const Tensor pairs = reshape(x, {x.size(0) / head_dim, head_dim / 2, 2, columns});
  const Tensor swapped = contiguous(transpose(pairs, 1, 2));
  return x.rank() == 2 ? reshape(swapped, {x.size(0), columns}) : reshape(swapped, {x.size(0)});
}

}  // namespace

Json config_from_gguf(const GgufFile& file) { return config_of(file, architecture_of(file)); }

std::shared_ptr<PretrainedModel> load_gguf(const std::string& path, std::optional<Task> task, const LoadOptions& options) {
  NoGrad no_grad;
  auto file = std::make_shared<GgufFile>(path);
  const GgufArchitecture* architecture = &architecture_of(*file);
  const Json config = config_of(*file, *architecture);

  TensorSource source;
  source.where = path;
  // Block formats become float32, and a file that has any becomes float32 altogether.
  LoadOptions chosen = options;
  for (const GgufTensorInfo& info : file->tensors()) {
    const bool plain = info.type == GgmlType::f32 || info.type == GgmlType::f16 || info.type == GgmlType::bf16 || info.type == GgmlType::f64;
    if (!plain && !chosen.dtype) chosen.dtype = DType::f32;
  }
  const bool permuted = architecture->permuted_queries, transposed = architecture->transposed;
  const std::int64_t head_dim = config.value("head_dim", std::int64_t{0});
  for (const GgufTensorInfo& info : file->tensors()) {
    if (info.name == "rope_freqs.weight") continue;
    const std::string stored(info.name);
    const std::optional<std::string> known = huggingface_name(*architecture, stored);
    const bool query = permuted && (stored.find(".attn_q.") != std::string::npos || stored.find(".attn_k.") != std::string::npos);
    const bool turned = transposed && stored.starts_with("blk.") && info.shape.rank() == 2;
    source.tensors.emplace(known.value_or(stored), [file, stored, dtype = chosen.dtype, device = chosen.device, query, turned, head_dim] {
      Tensor tensor = dtype && *dtype != DType::f64 ? file->tensor(stored, *dtype, device) : file->tensor(stored);
      if (query) tensor = halves_first(tensor, head_dim, stored, file->path());
      return turned ? contiguous(transpose(tensor)) : tensor;
    });
  }
  return load_model(config, config.dump(2), path, std::move(source), task, chosen);
}

}  // namespace cambium
