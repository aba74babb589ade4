// LayerNorm and RmsNorm, over the last dimension.
#pragma once

#include "nn/module.h"

namespace cambium {

/// (x - mean) / sqrt(var + epsilon) weight + bias. Ba et al. 2016, arXiv 1607.06450. weight and bias (C), either may be absent.
class LayerNorm final : public Layer {
 public:
  explicit LayerNorm(std::int64_t width, double epsilon = 1e-5, DType dtype = DType::f32);
  LayerNorm(Tensor weight_tensor, Tensor bias_tensor, double epsilon);
  std::string_view type_name() const override { return "LayerNorm"; }
  std::shared_ptr<Module> copy() const override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  double epsilon() const { return epsilon_; }

  Param weight{*this, "weight"}, bias{*this, "bias"};

 private:
  double epsilon_;
};

/// x / sqrt(mean x² + epsilon) weight. Zhang and Sennrich 2019, arXiv 1910.07467.
class RmsNorm final : public Layer {
 public:
  explicit RmsNorm(std::int64_t width, double epsilon = 1e-6, DType dtype = DType::f32);
  RmsNorm(Tensor weight_tensor, double epsilon);
  std::string_view type_name() const override { return "RmsNorm"; }
  std::shared_ptr<Module> copy() const override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  double epsilon() const { return epsilon_; }

  Param weight{*this, "weight"};

 private:
  double epsilon_;
};

}  // namespace cambium
