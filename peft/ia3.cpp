// The IA3 layer: initial values, forward, merging.
#include "peft/ia3.h"

#include "autograd/ops/scale.h"

namespace cambium {

void IA3Layer::add_adapter(const std::string& name, bool ones, bool keep_dtype, RandomKey key) {
  const Shape shape = is_feedforward_ ? Shape{1, in_features()} : Shape{out_features(), 1};
  const DType dtype = adapter_dtype(keep_dtype);
  const Device device = weight().get().device();
  Tensor value;
  if (weight().get().is_meta()) value = meta(shape, dtype);  // a model for counting gets adapters for counting
  else value = ones ? full(shape, 1.0, dtype, device) : random_normal(shape, key.fold("ia3_l"), 0.0, 1.0, dtype, device);
  register_adapter(name);
  ia3_l->add(name, std::move(value));
}

void IA3Layer::delete_adapter(const std::string& name) {
  AdapterLayer::delete_adapter(name);
  ia3_l->remove(name);
}

Tensor IA3Layer::forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const {
  Tensor l;  // as a vector over the features
  for (const std::string& name : names) {
    const Tensor one = flatten(ia3_l->at(name));
    l = l.defined() ? mul(l, one) : one;
  }
  return is_feedforward_ ? base_layer->forward(scale_features(x, l), context) : scale_features(base_layer->forward(x, context), l);
}

void IA3Layer::merge_into(const std::string& adapter, Tensor& weight, Tensor& bias) const {
  const Tensor l = to_dtype(ia3_l->at(adapter), weight.dtype());  // (out, 1) or (1, in): as the weight (out, in) needs it
  weight = mul(weight, weight_is_transposed() ? transpose(l) : l);
  if (!is_feedforward_ && bias.defined()) bias = mul(bias, flatten(l));
}

}  // namespace cambium
