// The LoRA layer: initialisation, forward, delta.
#include "peft/lora.h"

#include <cmath>

namespace cambium {

const LoraLinear::State& LoraLinear::state(const std::string& adapter) const {
  const auto found = states_.find(adapter);
  check<NameError>(found != states_.end(), path(), ": no adapter '", adapter, "' here");
  return found->second;
}

void LoraLinear::add_adapter(const std::string& name, const LoraLayerOptions& options, RandomKey key) {
  check<ConfigError>(options.r > 0, path(), ": r: expected a positive integer, found ", options.r);
  const Tensor base = weight().get();
  const std::int64_t in = in_features(), out = out_features(), r = options.r;
  DType dtype = base.dtype();
  if (!options.keep_dtype && item_size(dtype) == 2) dtype = DType::f32;
  const auto uniform = [&](const Shape& shape, double bound, std::string_view which) { return random_uniform(shape, key.fold(which), -bound, bound, dtype, base.device()); };
  // Kaiming uniform with a = sqrt(5) is exactly +-1/sqrt(fan_in).
  const double bound_a = 1.0 / std::sqrt(static_cast<double>(in)), bound_b = 1.0 / std::sqrt(static_cast<double>(r));
  Tensor a, b;
  if (const bool* plain = std::get_if<bool>(&options.init)) {
    a = uniform({r, in}, bound_a, "lora_A");
    b = *plain ? zeros({out, r}, dtype, base.device()) : uniform({out, r}, bound_b, "lora_B");
  } else {
    a = random_normal({r, in}, key.fold("lora_A"), 0.0, 1.0 / static_cast<double>(r), dtype, base.device());
    b = zeros({out, r}, dtype, base.device());
  }
  register_adapter(name);
  lora_A->add(name, a);
  lora_B->add(name, b);
  const double divisor = options.use_rslora ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r);
  states_[name] = {options, options.alpha / divisor, options.alpha / divisor};
}

void LoraLinear::delete_adapter(const std::string& name) {
  AdapterLayer::delete_adapter(name);
  lora_A->remove(name);
  lora_B->remove(name);
  states_.erase(name);
}

Tensor LoraLinear::forward(const Tensor& x, const ForwardContext& context) const {
  const std::vector<std::string> names = selected(context);
  if (merged() && enabled() && !context.override_adapters) return base_layer->forward(x, context);  // whatever is active, what is merged counts
  if (names.empty()) return forward_unmerged(x, context);
  check<StateError>(!merged(), path(), ": adapters cannot be chosen for a call while some are merged: unmerge first");
  std::vector<LoraTerm> terms;
  terms.reserve(names.size());
  for (const std::string& name : names) {
    const State& s = state(name);
    LoraTerm term{lora_A->at(name), lora_B->at(name), s.scaling};
    if (context.training && s.options.dropout > 0.0) {
      const RandomKey key = context.key.fold(path()).fold(name);
      term.dropout_p = s.options.dropout;
      term.seed = key.seed;
      term.offset = key.offset;
    }
    terms.push_back(std::move(term));
  }
  return base_layer->forward_with_lora(x, terms, context);
}

Tensor LoraLinear::get_delta_weight(const std::string& adapter) const {
  NoGrad no_grad;
  const double scale = state(adapter).scaling;
  const DType wide = weight().get().dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor a = to_dtype(lora_A->at(adapter), wide), b = to_dtype(lora_B->at(adapter), wide);
  const Tensor delta = mul(matmul(b, a), scale);  // (out, in)
  return weight_is_transposed() ? contiguous(transpose(delta)) : delta;
}

std::vector<NamedParameter> LoraLinear::adapter_parameters(const std::string& adapter) const {
  return {{"lora_A.weight", lora_A->at(adapter).slot()}, {"lora_B.weight", lora_B->at(adapter).slot()}};
}

void LoraLinear::set_scale(const std::string& adapter, double factor) {
  const auto found = states_.find(adapter);
  if (found != states_.end()) found->second.scaling = factor * found->second.initial_scaling;
}

void LoraLinear::set_scaling(const std::string& adapter, double scaling) {
  state(adapter);
  states_[adapter].scaling = scaling;
}

void LoraLinear::scale_layer(double factor) {
  for (const std::string& name : active())
    if (const auto found = states_.find(name); found != states_.end()) found->second.scaling *= factor;
}

void LoraLinear::unscale_layer(std::optional<double> factor) {
  check<ConfigError>(!factor || *factor != 0.0, path(), ": unscale_layer: the factor must not be zero");
  for (const std::string& name : active())
    if (const auto found = states_.find(name); found != states_.end())
      found->second.scaling = factor ? found->second.scaling / *factor : found->second.initial_scaling;
}

}  // namespace cambium
