// Linear and Conv1D: layers that multiply by a matrix.
#pragma once

#include "nn/module.h"

namespace cambium {

/// y = x Wᵀ + b: x (…, in), weight (out, in), bias (out) or absent.
class Linear final : public LinearLike {
 public:
  /// PyTorch's starting values: weight and bias uniform in ±1 / sqrt(in).
  Linear(std::int64_t in, std::int64_t out, RandomKey key, bool with_bias = true, DType dtype = DType::f32);
  /// Takes these tensors; meta tensors are to be loaded. ShapeError if they do not fit.
  explicit Linear(Tensor weight_tensor, Tensor bias_tensor = {});

  std::string_view type_name() const override { return "Linear"; }
  std::shared_ptr<Module> copy() const override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  Tensor forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const override;
  Tensor forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext& context) const override;
  std::int64_t in_features() const override { return weight_.get().size(1); }
  std::int64_t out_features() const override { return weight_.get().size(0); }
  bool weight_is_transposed() const override { return false; }
  Param& weight() override { return weight_; }
  Param& bias() override { return bias_; }
  using LinearLike::bias;
  using LinearLike::weight;

 private:
  Param weight_{*this, "weight"}, bias_{*this, "bias"};
};

/// y = x W + b with the weight stored (in, out), as GPT-2 has it.
class Conv1D final : public LinearLike {
 public:
  /// GPT-2's starting values: weight normal with deviation 0.02, bias 0.
  Conv1D(std::int64_t in, std::int64_t out, RandomKey key, bool with_bias = true, DType dtype = DType::f32);
  explicit Conv1D(Tensor weight_tensor, Tensor bias_tensor = {});

  std::string_view type_name() const override { return "Conv1D"; }
  std::shared_ptr<Module> copy() const override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  Tensor forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const override;
  Tensor forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext& context) const override;
  std::int64_t in_features() const override { return weight_.get().size(0); }
  std::int64_t out_features() const override { return weight_.get().size(1); }
  bool weight_is_transposed() const override { return true; }
  Param& weight() override { return weight_; }
  Param& bias() override { return bias_; }
  using LinearLike::bias;
  using LinearLike::weight;

 private:
  Param weight_{*this, "weight"}, bias_{*this, "bias"};
};

}  // namespace cambium
