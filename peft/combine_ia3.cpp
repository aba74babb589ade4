// Vectors, targets and copies of several IA3 adapters into one.
#include "peft/combine_ia3.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "autograd/ops.h"
#include "peft/file_keys.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {


/// Lists together, or patterns joined; nothing where no source says anything.
ModuleSelection united(const std::vector<Ia3Adapter>& sources, ModuleSelection IA3Config::*field, const char* name) {
  const auto all_of = [&](auto&& holds) { return std::all_of(sources.begin(), sources.end(), [&](const Ia3Adapter& s) { return holds(s.config.*field); }); };
  if (all_of([](const ModuleSelection& s) { return s.is_list(); })) {
    std::set<std::string> names;
    for (const Ia3Adapter& s : sources) names.insert((s.config.*field).names().begin(), (s.config.*field).names().end());
    return std::vector<std::string>(names.begin(), names.end());
  }
  if (all_of([](const ModuleSelection& s) { return !s.given(); })) return {};
  check<ConfigError>(all_of([](const ModuleSelection& s) { return s.is_pattern(); }), "add_weighted_adapter: some adapters name ", name, " by a list, others by a pattern: they cannot be united");
  std::vector<std::string> seen;
  std::string all;
  for (const Ia3Adapter& s : sources) {
    const std::string& pattern = (s.config.*field).pattern();
    if (std::find(seen.begin(), seen.end(), pattern) != seen.end()) continue;
    seen.push_back(pattern);
    all += (all.empty() ? "(" : "|(") + pattern + ")";
  }
  return seen.size() == 1 ? ModuleSelection(seen.front()) : ModuleSelection(all);
}

}  // namespace

Ia3Adapter make_ia3_adapter(const IA3Config& config, const std::vector<NamedTensor>& tensors, const std::string& where) {
  Ia3Adapter out;
  out.where = where;
  out.config = config;
  for (const auto& [name, tensor] : tensors) {
    const std::string key = without_prefix(name);
    const std::size_t marker = key.rfind(".ia3_l");
    const bool is_vector = marker != std::string::npos && (marker + 6 == key.size() || (key[marker + 6] == '.' && key.find('.', marker + 7) == std::string::npos));
    if (!is_vector) {
      out.others.emplace_back(key, tensor);
      continue;
    }
    check<ShapeError>(is_float(tensor.dtype()) && tensor.rank() == 2 && (tensor.size(0) == 1 || tensor.size(1) == 1), where, ": '", name, "': expected floats (out, 1) or (1, in), found ", tensor.dtype(), " ",
                      tensor.shape());
    out.vectors.emplace_back(key.substr(0, marker), tensor);
  }
  check<NameError>(!out.vectors.empty(), where, ": there is no IA3 vector among its ", tensors.size(), " tensors");
  return out;
}

Ia3Adapter read_ia3_adapter(const std::string& folder, std::vector<std::string>* warnings) {
  const PeftConfig config = read_peft_config(folder, warnings);
  const auto* ia3 = std::get_if<IA3Config>(&config);
  check<ConfigError>(ia3 != nullptr, folder, ": this adapter is ", peft_type_of(config), ", not IA3");
  const SafetensorsFile file((std::filesystem::path(folder) / "adapter_model.safetensors").string());
  std::vector<NamedTensor> tensors;
  for (const std::string& key : file.names()) tensors.emplace_back(key, file.tensor(key));
  return make_ia3_adapter(*ia3, tensors, folder);
}

std::vector<NamedTensor> file_tensors(const Ia3Adapter& adapter) {
  std::vector<NamedTensor> out;
  for (const auto& [path, l] : adapter.vectors) out.emplace_back(std::string(kKeyPrefix) + path + ".ia3_l", contiguous(l));
  for (const auto& [key, tensor] : adapter.others) out.emplace_back(std::string(kKeyPrefix) + key, contiguous(tensor));
  return out;
}

Ia3Adapter combine_ia3_adapters(const std::vector<Ia3Adapter>& sources, const std::vector<double>& weights) {
  NoGrad no_grad;
  check<ConfigError>(!sources.empty(), "add_weighted_adapter: name at least one adapter");
  check<ConfigError>(sources.size() == weights.size(), "add_weighted_adapter: ", sources.size(), " adapters but ", weights.size(), " weights: give one for each");
  for (const double weight : weights) check<ConfigError>(std::isfinite(weight), "add_weighted_adapter: weight ", weight, ": expected a finite number");
  Ia3Adapter out;
  out.where = "combined adapter";
  out.config = sources.front().config;
  out.config.target_modules = united(sources, &IA3Config::target_modules, "target_modules");
  out.config.feedforward_modules = united(sources, &IA3Config::feedforward_modules, "feedforward_modules");
  out.config.inference_mode = true;
  std::map<std::string, std::size_t> places;
  std::map<std::string, std::string> holders;
  std::vector<std::string> copies;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const Ia3Adapter& s = sources[i];
    for (const auto& [path, l] : s.vectors) {
      check<StateError>(all_finite(l), s.where, ": '", path, "': NaN or infinity: it is broken");
      const Tensor share = mul(to_dtype(l, DType::f32), weights[i]);
      const auto [at, is_new] = places.emplace(path, out.vectors.size());
      if (is_new) {
        out.vectors.emplace_back(path, share);
        continue;
      }
      Tensor& sum = out.vectors[at->second].second;
      check<ConfigError>(sum.shape() == share.shape(), "add_weighted_adapter: '", path, "' is ", sum.shape(), " in one adapter and ", share.shape(), " in ", s.where,
                         ": feed-forward in one of them only, or of another base model");
      sum = add(sum, share);
    }
    for (const auto& [key, tensor] : s.others) {
      const auto [at, is_new] = holders.emplace(key, s.where);
      check<ConfigError>(is_new, "add_weighted_adapter: ", at->second, " and ", s.where, " both have their own copy of '", key.substr(0, key.rfind('.')), "' (modules_to_save): trained copies cannot be combined");
      out.others.emplace_back(key, tensor);
    }
    for (const std::string& name : s.config.modules_to_save.value_or(std::vector<std::string>{}))
      if (std::find(copies.begin(), copies.end(), name) == copies.end()) copies.push_back(name);
  }
  if (!copies.empty()) out.config.modules_to_save = copies;
  return out;
}

}  // namespace cambium
