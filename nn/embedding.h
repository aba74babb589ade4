// Embedding: rows of a table, looked up by id.
#pragma once

#include "nn/module.h"

namespace cambium {

/// ids (…) int64 -> (…, C): rows of weight (V, C). The row `padding_index` gets no gradient, as in PyTorch.
class Embedding final : public Layer {
 public:
  /// PyTorch's starting values: standard normal, the padding row zero.
  Embedding(std::int64_t rows, std::int64_t width, RandomKey key, std::optional<std::int64_t> padding_index = {}, DType dtype = DType::f32);
  explicit Embedding(Tensor weight_tensor, std::optional<std::int64_t> padding_index = {});

  std::string_view type_name() const override { return "Embedding"; }
  std::shared_ptr<Module> copy() const override;
  Tensor forward(const Tensor& ids, const ForwardContext& context) const override;
  std::optional<std::int64_t> padding_index() const { return padding_index_; }

  Param weight{*this, "weight"};

 private:
  std::optional<std::int64_t> padding_index_;
};

}  // namespace cambium
