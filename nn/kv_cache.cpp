// KvCache.
#include "nn/kv_cache.h"

#include "autograd/ops.h"

namespace cambium {

KvCache::KvCache(std::int64_t layers, std::int64_t batch, std::int64_t capacity, std::int64_t kv_heads, std::int64_t head_dim, DType dtype, Device device)
    : batch_(batch), capacity_(capacity) {
  check<ShapeError>(layers > 0 && batch > 0 && capacity > 0, "KvCache: expected positive sizes, found ", layers, " layers, batch ", batch, ", capacity ", capacity);
  const Shape shape{batch, capacity, kv_heads, head_dim};
  for (std::int64_t i = 0; i < layers; ++i) layers_.emplace_back(empty(shape, dtype, device), empty(shape, dtype, device));
}

std::pair<Tensor, Tensor> KvCache::append(std::int64_t layer, const Tensor& keys, const Tensor& values) {
  check<StateError>(!grad_enabled(), "KvCache: it keeps no gradients: put a NoGrad around generation, or train without a cache");
  const auto& [all_keys, all_values] = layers_.at(static_cast<std::size_t>(layer));
  const std::int64_t tokens = keys.rank() == 4 ? keys.size(1) : 0;
  const Shape expected{batch_, tokens, all_keys.size(2), all_keys.size(3)};
  check<ShapeError>(keys.shape() == expected && values.shape() == expected, "KvCache: expected keys and values ", expected, ", found ", keys.shape(), " and ", values.shape());
  check<StateError>(tokens <= capacity_ - length_, "KvCache: ", length_, " tokens and ", tokens, " more exceed its capacity of ", capacity_);
  copy_into(slice(all_keys, 1, length_, length_ + tokens), keys);
  copy_into(slice(all_values, 1, length_, length_ + tokens), values);
  return {slice(all_keys, 1, 0, length_ + tokens), slice(all_values, 1, 0, length_ + tokens)};
}

void KvCache::advance(std::int64_t tokens) {
  check<StateError>(tokens >= 0 && tokens <= capacity_ - length_, "KvCache: ", length_, " tokens and ", tokens, " more exceed its capacity of ", capacity_);
  length_ += tokens;
}

void KvCache::set_cross(std::int64_t layer, const Tensor& keys, const Tensor& values) {
  check<StateError>(!grad_enabled(), "KvCache: it keeps no gradients: put a NoGrad around generation, or train without a cache");
  const Tensor& own = layers_.at(static_cast<std::size_t>(layer)).first;
  check<ShapeError>(keys.rank() == 4 && keys.size(0) == batch_ && keys.size(2) == own.size(2) && keys.size(3) == own.size(3) && values.shape() == keys.shape(),
                    "KvCache: expected keys and values of ", batch_, " rows, ", own.size(2), " heads and head size ", own.size(3), ", found ", keys.shape(), " and ", values.shape());
  cross_.resize(layers_.size());
  cross_[static_cast<std::size_t>(layer)] = {keys, values};
}

const std::pair<Tensor, Tensor>& KvCache::cross(std::int64_t layer) const {
  const auto place = static_cast<std::size_t>(layer);
  check<StateError>(place < cross_.size() && cross_[place].first.defined(), "KvCache: layer ", layer, " has no keys of an encoder yet");
  return cross_[place];
}

void KvCache::truncate(std::int64_t length) {
  check<ShapeError>(length >= 0 && length <= length_, "KvCache: cannot keep ", length, " of ", length_, " tokens");
  length_ = length;
}

}  // namespace cambium
