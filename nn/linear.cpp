// Linear and Conv1D.
#include "nn/linear.h"

#include <cmath>

#include "nn/init.h"

namespace cambium {

namespace {

void check_shapes(std::string_view name, const Tensor& weight, const Tensor& bias, int out_dim) {
  check<ShapeError>(weight.defined() && weight.rank() == 2, name, ": expected a weight of two dimensions, found ", weight.defined() ? concat_text(weight.shape()) : "none");
  check<ShapeError>(!bias.defined() || bias.shape() == Shape{weight.size(out_dim)}, name, ": weight ", weight.shape(), " does not go with the bias ",
                    bias.defined() ? concat_text(bias.shape()) : "");
}

}  // namespace

Linear::Linear(Tensor weight_tensor, Tensor bias_tensor) {
  check_shapes("Linear", weight_tensor, bias_tensor, 0);
  weight_.set(std::move(weight_tensor));
  bias_.set(std::move(bias_tensor));
}

Linear::Linear(std::int64_t in, std::int64_t out, RandomKey key, bool with_bias, DType dtype) {
  const double bound = in > 0 ? 1.0 / std::sqrt(static_cast<double>(in)) : 0.0;
  weight_.set(trained(kaiming_uniform({out, in}, key.fold("weight"), std::sqrt(5.0), dtype)));
  if (with_bias) bias_.set(trained(random_uniform({out}, key.fold("bias"), -bound, bound, dtype)));
}

Tensor Linear::forward(const Tensor& x, const ForwardContext&) const { return linear(x, weight_, bias_); }

Tensor Linear::forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext&) const {
  return linear_cross_entropy(hidden, weight_, bias_, targets, -100, count);
}

Tensor Linear::forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext&) const {
  return lora_linear(x, weight_, bias_, terms, false);
}

std::shared_ptr<Module> Linear::copy() const { return std::make_shared<Linear>(copied(weight_), copied(bias_)); }

Conv1D::Conv1D(Tensor weight_tensor, Tensor bias_tensor) {
  check_shapes("Conv1D", weight_tensor, bias_tensor, 1);
  weight_.set(std::move(weight_tensor));
  bias_.set(std::move(bias_tensor));
}

Conv1D::Conv1D(std::int64_t in, std::int64_t out, RandomKey key, bool with_bias, DType dtype) {
  weight_.set(trained(random_normal({in, out}, key.fold("weight"), 0.0, 0.02, dtype)));
  if (with_bias) bias_.set(trained(zeros({out}, dtype)));
}

Tensor Conv1D::forward(const Tensor& x, const ForwardContext&) const { return linear_transposed(x, weight_, bias_); }

Tensor Conv1D::forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext&) const {
  return linear_cross_entropy(hidden, transpose(weight_), bias_, targets, -100, count);
}

Tensor Conv1D::forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext&) const {
  return lora_linear(x, weight_, bias_, terms, true);
}

std::shared_ptr<Module> Conv1D::copy() const { return std::make_shared<Conv1D>(copied(weight_), copied(bias_)); }

}  // namespace cambium
