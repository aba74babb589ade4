// LoRA layers: bookkeeping, scaling, deltas, merging; what depends on the kind of layer is in lora_forward.cpp.
#include "peft/lora.h"

#include <cmath>

#include "peft/lora_init.h"

namespace cambium {

const LoraLayer::State& LoraLayer::state(const std::string& adapter) const {
  const auto found = states_.find(adapter);
  check<NameError>(found != states_.end(), path(), ": no adapter '", adapter, "' here");
  return found->second;
}

void LoraLayer::add_adapter(const std::string& name, const LoraLayerOptions& options, RandomKey key) {
  check<ConfigError>(options.r > 0, path(), ": r: expected a positive integer, found ", options.r);
  check<ConfigError>(!(options.lora_bias && is_embedding()), path(), ": lora_bias does not go with an embedding");
  check<ConfigError>(!(options.lora_bias && options.use_dora), path(), ": lora_bias does not go with use_dora");
  const double divisor = options.use_rslora ? std::sqrt(static_cast<double>(options.r)) : static_cast<double>(options.r);
  const double scale = options.alpha / divisor;
  const LoraInit init = parse_lora_init(options.init);
  const DType dtype = adapter_dtype(options.keep_dtype);
  LoraFactors values;
  const bool without_memory = weight().get().is_meta();  // a model for counting gets adapters for counting
  if (without_memory) {
    values = {meta({options.r, in_features()}, dtype), meta({out_features(), options.r}, dtype), options.lora_bias ? meta({out_features()}, dtype) : Tensor(), {}};
  } else if (init.changes_base() && !is_embedding()) {
    check<StateError>(AdapterLayer::merged_adapters().empty(), path(), ": an adapter that changes the base weight cannot be added while others are merged: unmerge first");
    values = principal_factors(weight().get(), weight_is_transposed(), init, options.r, scale, key);
  } else {
    values = initial_factors(init, options.r, in_features(), out_features(), is_embedding(), options.lora_bias, dtype, weight().get().device(), key);
  }
  register_adapter(name);
  states_[name] = {options, scale, scale};
  if (values.base.defined()) weight().set(values.base);
  if (is_embedding()) {
    lora_embedding_A->add(name, values.a);
    lora_embedding_B->add(name, values.b);
  } else {
    lora_A->add(name, without_memory ? values.a : to_dtype(values.a, dtype));
    lora_B->add(name, without_memory ? values.b : to_dtype(values.b, dtype), values.bias);
  }
  if (options.use_dora) {
    NoGrad no_grad;
    lora_magnitude_vector->add(name, without_memory ? meta({out_features()}, dtype) : to_dtype(row_lengths(name), dtype));
  }
}

void LoraLayer::delete_adapter(const std::string& name) {
  AdapterLayer::delete_adapter(name);
  lora_A->remove(name);
  lora_B->remove(name);
  lora_embedding_A->remove(name);
  lora_embedding_B->remove(name);
  lora_magnitude_vector->remove(name);
  states_.erase(name);
}

Tensor LoraLayer::get_delta_weight(const std::string& adapter) const {
  NoGrad no_grad;
  const double scale = state(adapter).scaling;
  const Tensor delta = mul(matmul(to_dtype(b(adapter), wide_dtype()), to_dtype(a(adapter), wide_dtype())), scale);  // (out, in)
  return weight_is_transposed() ? contiguous(transpose(delta)) : delta;
}

void LoraLayer::merge_into(const std::string& adapter, Tensor& weight_now, Tensor& bias_now) const {
  const State& s = state(adapter);
  weight_now = add(weight_now, get_delta_weight(adapter));
  if (s.options.use_dora) {
    const Tensor factor = to_dtype(dora_factor(adapter), weight_now.dtype());
    weight_now = mul(weight_now, weight_is_transposed() ? factor : unsqueeze(factor, 1));
  }
  if (s.options.lora_bias) {
    check<StateError>(bias_now.defined(), path(), ": adapter '", adapter, "' has a lora_bias, the base layer has no bias to merge it into");
    bias_now = add(bias_now, mul(to_dtype(lora_B->bias(adapter), bias_now.dtype()), s.scaling));
  }
}

Tensor LoraLayer::base_row_squares() const {
  const Tensor& w = unmerged_weight();
  const std::lock_guard<std::mutex> lock(row_squares_mutex_);
  if (!row_squares_.weight.defined() || !row_squares_.weight.same_body(w) || row_squares_.version != w.storage()->version()) {
    const Tensor rows = weight_is_transposed() ? transpose(detach(w)) : detach(w);
    row_squares_ = {w, sum(square(to_dtype(rows, wide_dtype())), {1}), w.storage()->version()};
  }
  return row_squares_.squares;
}

Tensor LoraLayer::row_lengths(const std::string& adapter) const {
  NoGrad no_grad;
  const double s = scaling(adapter);
  const Tensor& w = unmerged_weight();
  const Tensor rows = to_dtype(weight_is_transposed() ? transpose(detach(w)) : detach(w), wide_dtype());
  const Tensor wide_a = to_dtype(detach(a(adapter)), wide_dtype()), wide_b = to_dtype(detach(b(adapter)), wide_dtype());
  // |W + s B A|^2 = |W|^2 + 2 s B . (W Aᵀ) + s^2 B . (B A Aᵀ), row by row.
  const Tensor cross = add(mul(matmul(rows, transpose(wide_a)), 2.0 * s), mul(matmul(wide_b, matmul(wide_a, transpose(wide_a))), s * s));
  return sqrt(maximum(add(base_row_squares(), sum(mul(wide_b, cross), {1})), zeros({1}, wide_dtype(), w.device())));
}

Tensor LoraLayer::dora_factor(const std::string& adapter) const {
  const Tensor lengths = row_lengths(adapter);
  return div(to_dtype(lora_magnitude_vector->at(adapter), lengths.dtype()), lengths);
}

std::vector<NamedParameter> LoraLayer::adapter_parameters(const std::string& adapter) const {
  const State& s = state(adapter);
  std::vector<NamedParameter> out;
  if (is_embedding()) out = {{"lora_embedding_A", lora_embedding_A->at(adapter).slot()}, {"lora_embedding_B", lora_embedding_B->at(adapter).slot()}};
  else out = {{"lora_A.weight", lora_A->at(adapter).slot()}, {"lora_B.weight", lora_B->at(adapter).slot()}};
  if (s.options.lora_bias) out.emplace_back("lora_B.bias", lora_B->bias(adapter).slot());
  if (s.options.use_dora) out.emplace_back("lora_magnitude_vector", lora_magnitude_vector->at(adapter).slot());
  return out;
}

void LoraLayer::set_scale(const std::string& adapter, double factor) {
  const auto found = states_.find(adapter);
  if (found != states_.end()) found->second.scaling = factor * found->second.initial_scaling;
}

void LoraLayer::set_scaling(const std::string& adapter, double scaling) {
  state(adapter);
  states_[adapter].scaling = scaling;
}

void LoraLayer::scale_layer(double factor) {
  for (const std::string& name : active())
    if (const auto found = states_.find(name); found != states_.end()) found->second.scaling *= factor;
}

void LoraLayer::unscale_layer(std::optional<double> factor) {
  check<ConfigError>(!factor || *factor != 0.0, path(), ": unscale_layer: the factor must not be zero");
  for (const std::string& name : active())
    if (const auto found = states_.find(name); found != states_.end())
      found->second.scaling = factor ? found->second.scaling / *factor : found->second.initial_scaling;
}

}  // namespace cambium
