// LayerNorm and RmsNorm.
#include "nn/norm.h"

#include "nn/init.h"

namespace cambium {

LayerNorm::LayerNorm(Tensor weight_tensor, Tensor bias_tensor, double epsilon) : epsilon_(epsilon) {
  weight.set(std::move(weight_tensor));
  bias.set(std::move(bias_tensor));
}

LayerNorm::LayerNorm(std::int64_t width, double epsilon, DType dtype) : LayerNorm(trained(ones({width}, dtype)), trained(zeros({width}, dtype)), epsilon) {}

Tensor LayerNorm::forward(const Tensor& x, const ForwardContext&) const { return layer_norm(x, weight, bias, epsilon_); }

std::shared_ptr<Module> LayerNorm::copy() const { return std::make_shared<LayerNorm>(copied(weight), copied(bias), epsilon_); }

RmsNorm::RmsNorm(Tensor weight_tensor, double epsilon) : epsilon_(epsilon) { weight.set(std::move(weight_tensor)); }

RmsNorm::RmsNorm(std::int64_t width, double epsilon, DType dtype) : RmsNorm(trained(ones({width}, dtype)), epsilon) {}

Tensor RmsNorm::forward(const Tensor& x, const ForwardContext&) const { return rms_norm(x, weight, epsilon_); }

std::shared_ptr<Module> RmsNorm::copy() const { return std::make_shared<RmsNorm>(copied(weight), epsilon_); }

}  // namespace cambium
