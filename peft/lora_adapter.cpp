// Sorting the tensors of an adapter file into modules and back.
#include "peft/lora_adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "peft/file_keys.h"
#include "peft/lora_model.h"
#include "peft/save_load.h"
#include "peft/targets.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {


enum class Factor { none, a, b, bias, magnitude };

struct FactorKey {
  Factor factor = Factor::none;
  bool embedding = false;
  std::string path;
};

/// "model.layers.0.self_attn.q_proj.lora_A.weight" -> A of that module. Behind the factor's name may stand an adapter's name and "weight" or "bias".
FactorKey parse_key(const std::string& key) {
  struct Marker { std::string_view name; Factor factor; bool embedding; };
  static constexpr Marker kMarkers[] = {{"lora_A", Factor::a, false}, {"lora_B", Factor::b, false}, {"lora_embedding_A", Factor::a, true}, {"lora_embedding_B", Factor::b, true},
                                        {"lora_magnitude_vector", Factor::magnitude, false}};
  // The last three components: FACTOR, FACTOR.weight, FACTOR.NAME.weight, FACTOR.NAME.
  std::size_t end = key.size();
  for (int depth = 0; depth < 3 && end != std::string::npos && end > 0; ++depth) {
    const std::size_t dot = key.rfind('.', end - 1);
    if (dot == std::string::npos) break;
    const std::string_view component = std::string_view(key).substr(dot + 1, end - dot - 1);
    for (const Marker& marker : kMarkers) {
      if (component != marker.name) continue;
      const bool bias = marker.factor == Factor::b && key.ends_with(".bias");
      return {bias ? Factor::bias : marker.factor, marker.embedding, key.substr(0, dot)};
    }
    end = dot;
  }
  return {};
}

/// Numbers inside paths count as numbers: layer 2 comes before layer 10.
bool natural_less(const std::string& x, const std::string& y) {
  std::size_t i = 0, j = 0;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  while (i < x.size() && j < y.size()) {
    if (digit(x[i]) && digit(y[j])) {
      const std::size_t from_i = i, from_j = j;
      while (i < x.size() && digit(x[i])) ++i;
      while (j < y.size() && digit(y[j])) ++j;
      if (i - from_i != j - from_j) return i - from_i < j - from_j;
      if (const int order = x.compare(from_i, i - from_i, y, from_j, j - from_j); order != 0) return order < 0;
    } else {
      if (x[i] != y[j]) return x[i] < y[j];
      ++i;
      ++j;
    }
  }
  return x.size() - i < y.size() - j;
}

/// The name that a tensor besides the factors counts under, or nothing if it says nothing new. Copies of modules were once stored as "X.modules_to_save.weight"; with bias = "all" PEFT
/// still stores their biases so, a second time, and those of their originals, which the base keeps.
std::optional<std::string> own_name(const std::string& key, const std::set<std::string>& keys) {
  constexpr std::string_view kCopy = ".modules_to_save";
  if (key.find(".original_module.") != std::string::npos) return std::nullopt;
  const std::size_t copy = key.rfind(std::string(kCopy) + ".");
  if (copy == std::string::npos) return key;
  std::string plain = key.substr(0, copy) + key.substr(copy + kCopy.size());
  if (keys.contains(plain)) return std::nullopt;
  return plain;
}

}  // namespace

LoraAdapter make_lora_adapter(const LoraConfig& config, const std::vector<NamedTensor>& tensors, const std::string& where) {
  LoraAdapter out;
  out.where = where;
  out.config = config;
  std::map<std::string, LoraAdapter::Part, decltype(&natural_less)> parts(&natural_less);
  std::set<std::string> keys;
  for (const auto& [name, tensor] : tensors) keys.insert(without_prefix(name));
  for (const auto& [name, tensor] : tensors) {
    const std::string key = without_prefix(name);
    const FactorKey found = parse_key(key);
    if (found.factor == Factor::none) {
      if (auto own = own_name(key, keys)) out.others.emplace_back(std::move(*own), tensor);
      continue;
    }
    check<DTypeError>(is_float(tensor.dtype()), where, ": '", name, "': expected a float tensor, found ", tensor.dtype());
    LoraAdapter::Part& part = parts[found.path];
    part.path = found.path;
    part.embedding = part.embedding || found.embedding;
    Tensor& slot = found.factor == Factor::a ? part.a : found.factor == Factor::b ? part.b : found.factor == Factor::bias ? part.bias : part.magnitude;
    check<NameError>(!slot.defined(), where, ": '", name, "' comes twice under different spellings");
    slot = tensor;
  }
  check<NameError>(!parts.empty(), where, ": there is no LoRA factor among its ", tensors.size(), " tensors: is it an adapter?");
  for (auto& [path, part] : parts) {
    check<NameError>(part.a.defined() && part.b.defined(), where, ": '", path, "': factor ", part.a.defined() ? "B" : "A", " is missing: the file is incomplete");
    check<ShapeError>(part.a.rank() == 2 && part.b.rank() == 2 && part.a.size(0) == part.b.size(1) && part.a.count() > 0 && part.b.count() > 0, where, ": '", path, "': factors ", part.b.shape(),
                      " and ", part.a.shape(), " do not belong together: expected (out, r) and (r, in)");
    const auto* alpha = find_pattern(config.alpha_pattern, path);
    const double rank = static_cast<double>(part.a.size(0));
    part.scaling = (alpha ? alpha->second : config.lora_alpha) / (config.use_rslora ? std::sqrt(rank) : rank);
    out.parts.push_back(std::move(part));
  }
  return out;
}

LoraAdapter read_lora_adapter(const std::string& folder, std::vector<std::string>* warnings) {
  const PeftConfig config = read_peft_config(folder, warnings);
  const auto* lora = std::get_if<LoraConfig>(&config);
  check<ConfigError>(lora != nullptr, folder, ": this adapter is not LoRA");
  const std::filesystem::path file = std::filesystem::path(folder) / "adapter_model.safetensors";
  check<FileError>(std::filesystem::exists(file), folder, ": there is no adapter_model.safetensors", std::filesystem::exists(file.parent_path() / "adapter_model.bin") ? ": adapter_model.bin is a pickle, which is never read" : "");
  const SafetensorsFile tensors_file(file.string());
  std::vector<NamedTensor> tensors;
  for (const std::string& key : tensors_file.names()) tensors.emplace_back(key, tensors_file.tensor(key));
  return make_lora_adapter(*lora, tensors, folder);
}

LoraAdapter lora_adapter_of(const Tuner& tuner, const std::string& name) {
  const auto* model = dynamic_cast<const LoraModel*>(&tuner);
  check<ConfigError>(model != nullptr, "adapter '", name, "' is not LoRA but of a ", tuner.type_name());
  std::vector<NamedTensor> tensors;
  for (const auto& [key, slot] : tuner.adapter_state(name)) tensors.emplace_back(key, detach(slot->tensor));
  LoraAdapter out = make_lora_adapter(std::get<LoraConfig>(tuner.config(name)), tensors, "adapter '" + name + "'");
  std::map<std::string, double> scalings;
  for (const auto& [path, layer] : model->lora_layers())
    if (layer->has_adapter(name)) scalings[path] = layer->scaling(name);
  for (LoraAdapter::Part& part : out.parts) part.scaling = scalings.at(part.path);
  return out;
}

std::vector<NamedTensor> file_tensors(const LoraAdapter& adapter) {
  std::vector<NamedTensor> out;
  for (const LoraAdapter::Part& part : adapter.parts) {
    const std::string base = std::string(kKeyPrefix) + part.path + (part.embedding ? ".lora_embedding_" : ".lora_"), weight = part.embedding ? "" : ".weight";
    out.emplace_back(base + "A" + weight, contiguous(part.a));
    out.emplace_back(base + "B" + weight, contiguous(part.b));
    if (part.bias.defined()) out.emplace_back(base + "B.bias", contiguous(part.bias));
    if (part.magnitude.defined()) out.emplace_back(std::string(kKeyPrefix) + part.path + ".lora_magnitude_vector", contiguous(part.magnitude));
  }
  for (const auto& [key, tensor] : adapter.others) out.emplace_back(std::string(kKeyPrefix) + key, contiguous(tensor));
  return out;
}

void write_lora_adapter(const LoraAdapter& adapter, const std::string& folder) { write_adapter_folder(adapter.config, file_tensors(adapter), folder); }

void add_to_model(Tuner& tuner, const std::string& name, const LoraAdapter& adapter, const AdapterOptions& options) {
  PeftConfig config = adapter.config;
  std::get<LoraConfig>(config).inference_mode = true;
  add_adapter_with_state(tuner, name, std::move(config), file_tensors(adapter), {.adapter = options});
}

}  // namespace cambium
