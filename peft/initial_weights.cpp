// Conversion of adapters whose base was changed.
#include "peft/initial_weights.h"

#include <algorithm>
#include <cmath>

namespace cambium::detail {

std::vector<NamedTensor> as_plain_lora(const std::vector<NamedTensor>& tensors, const std::vector<NamedTensor>& initial, LoraConfig& config) {
  constexpr std::string_view where = "path_initial_model_for_weight_conversion";
  check<ConfigError>(parse_lora_init(config.init_lora_weights).changes_base(), where, ": only adapters of init_lora_weights pissa, pissa_niter_N and olora can be converted");
  check<ConfigError>(!config.use_rslora || (config.rank_pattern.empty() && config.alpha_pattern.empty()), where, ": use_rslora with rank_pattern or alpha_pattern cannot be converted");
  check<ConfigError>(!config.use_dora, where, ": use_dora cannot be converted");
  NoGrad no_grad;
  std::vector<NamedTensor> out;
  for (const auto& [key, tensor] : tensors) {
    const bool is_a = key.ends_with(".lora_A.weight"), is_b = key.ends_with(".lora_B.weight");
    if (!is_a && !is_b) {
      check<ConfigError>(key.find(".lora_embedding_") == std::string::npos, where, ": '", key, "': an embedding's adapter changed no base and has no doubled form");
      out.emplace_back(key, tensor);
      continue;
    }
    const auto found = std::find_if(initial.begin(), initial.end(), [&, name = &key](const NamedTensor& t) { return t.first == *name; });
    check<NameError>(found != initial.end(), where, ": the initial adapter has no '", key, "'");
    check<ShapeError>(found->second.shape() == tensor.shape(), where, ": '", key, "': expected ", tensor.shape(), ", found ", found->second.shape());
    const Tensor before = to_dtype(found->second, tensor.dtype());
    out.emplace_back(key, is_a ? cat({tensor, before}, 0) : cat({tensor, neg(before)}, 1));
  }
  config.init_lora_weights = true;
  config.r *= 2;
  config.lora_alpha *= config.use_rslora ? std::sqrt(2.0) : 2.0;
  for (auto& [name, rank] : config.rank_pattern) rank *= 2;
  for (auto& [name, alpha] : config.alpha_pattern) alpha *= 2;
  return out;
}

}  // namespace cambium::detail
