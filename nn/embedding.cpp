// Embedding.
#include "nn/embedding.h"

#include "nn/init.h"

namespace cambium {

Embedding::Embedding(Tensor weight_tensor, std::optional<std::int64_t> padding_index) : padding_index_(padding_index) {
  check<ShapeError>(weight_tensor.defined() && weight_tensor.rank() == 2, "Embedding: expected a weight of two dimensions");
  check<ConfigError>(!padding_index || (*padding_index >= 0 && *padding_index < weight_tensor.size(0)), "Embedding: padding index ", padding_index.value_or(0),
                     " is no row of ", weight_tensor.shape());
  weight.set(std::move(weight_tensor));
}

Embedding::Embedding(std::int64_t rows, std::int64_t width, RandomKey key, std::optional<std::int64_t> padding_index, DType dtype)
    : Embedding(random_normal({rows, width}, key.fold("weight"), 0.0, 1.0, dtype), padding_index) {
  NoGrad no_grad;
  if (padding_index_) fill_into(slice(weight, 0, *padding_index_, *padding_index_ + 1), 0.0);
  weight.get().set_requires_grad(true);
}

Tensor Embedding::forward(const Tensor& ids, const ForwardContext&) const { return embedding(ids, weight, padding_index_); }

std::shared_ptr<Module> Embedding::copy() const { return std::make_shared<Embedding>(copied(weight), padding_index_); }

}  // namespace cambium
