// KvCache: keys and values of the tokens so far, for generation.
#pragma once

#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace cambium {

/// Memory for `capacity` tokens of B rows, made once and written in place; inference only. What a prefix learns is another thing: a Past with gradients.
class KvCache {
 public:
  KvCache(std::int64_t layers, std::int64_t batch, std::int64_t capacity, std::int64_t kv_heads, std::int64_t head_dim, DType dtype = DType::f32, Device device = {});

  std::int64_t length() const { return length_; }  ///< tokens that are in it
  std::int64_t capacity() const { return capacity_; }
  std::int64_t batch() const { return batch_; }
  std::int64_t layers() const { return static_cast<std::int64_t>(layers_.size()); }

  /// Writes keys and values (B, T, G, D) of one layer behind the tokens of the cache and returns all of that layer (B, length + T, G, D), views.
  /// StateError while ops are recorded or when the capacity does not suffice, ShapeError. They count only after advance(), so a forward that fails
  /// leaves the cache as it was.
  std::pair<Tensor, Tensor> append(std::int64_t layer, const Tensor& keys, const Tensor& values);
  /// Once every layer has its T tokens.
  void advance(std::int64_t tokens);
  /// Keys and values (B, S, G, D) that a decoder layer made of its encoder's output: computed once, kept as they are. ShapeError, StateError as for append().
  void set_cross(std::int64_t layer, const Tensor& keys, const Tensor& values);
  const std::pair<Tensor, Tensor>& cross(std::int64_t layer) const;  ///< StateError when there are none
  bool has_cross() const { return !cross_.empty() && cross_.back().first.defined(); }
  /// Forgets all tokens from `length` on. ShapeError if there are fewer.
  void truncate(std::int64_t length);

 private:
  std::int64_t batch_, capacity_, length_ = 0;
  std::vector<std::pair<Tensor, Tensor>> layers_, cross_;
};

}  // namespace cambium
