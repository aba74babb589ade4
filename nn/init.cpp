// Starting values of parameters.
#include "nn/init.h"

#include <cmath>

#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace cambium {

Tensor kaiming_uniform(const Shape& shape, RandomKey key, double a, DType dtype) {
  check<ShapeError>(shape.rank() >= 2, "kaiming_uniform: expected two dimensions or more, found ", shape);
  std::int64_t fan_in = 1;
  for (int i = 1; i < shape.rank(); ++i) fan_in *= shape[i];
  const double bound = fan_in == 0 ? 0.0 : std::sqrt(6.0 / ((1.0 + a * a) * static_cast<double>(fan_in)));
  return random_uniform(shape, key, -bound, bound, dtype);
}

Tensor copied(const Tensor& parameter) {
  if (!parameter.defined()) return {};
  NoGrad no_grad;
  Tensor out = parameter.is_meta() ? meta(parameter.shape(), parameter.dtype()) : clone(parameter);
  if (parameter.requires_grad()) out.set_requires_grad(true);
  return out;
}

Tensor trained(Tensor tensor) {
  tensor.set_requires_grad(true);
  return tensor;
}

void initialize_normal(Module& root, RandomKey key, double deviation, DType dtype) {
  NoGrad no_grad;
  const auto give = [](Param& parameter, Tensor value) { parameter.set(trained(std::move(value))); };
  root.visit([&](const std::string& path, Module& module) {
    const auto normal = [&](Param& parameter) {
      // A tied parameter has its value from the name that came first.
      if (parameter.get().is_meta()) give(parameter, random_normal(parameter.get().shape(), key.fold(path + "." + parameter.name()), 0.0, deviation, dtype));
    };
    if (auto* linear = dynamic_cast<LinearLike*>(&module)) {
      normal(linear->weight());
      if (linear->bias().defined()) give(linear->bias(), zeros(linear->bias().get().shape(), dtype));
    } else if (auto* embedding = dynamic_cast<Embedding*>(&module)) {
      normal(embedding->weight);
      if (const auto row = embedding->padding_index()) fill_into(slice(embedding->weight, 0, *row, *row + 1), 0.0);
    } else if (auto* layer_norm = dynamic_cast<LayerNorm*>(&module)) {
      if (layer_norm->weight.defined()) give(layer_norm->weight, ones(layer_norm->weight.get().shape(), dtype));
      if (layer_norm->bias.defined()) give(layer_norm->bias, zeros(layer_norm->bias.get().shape(), dtype));
    } else if (auto* rms_norm = dynamic_cast<RmsNorm*>(&module)) {
      give(rms_norm->weight, ones(rms_norm->weight.get().shape(), dtype));
    } else {
      check<StateError>(module.own_parameters().empty(), "initialize_normal: no rule for the parameters of ", module.type_name(), " at '", path, "'");
    }
  });
}

}  // namespace cambium
