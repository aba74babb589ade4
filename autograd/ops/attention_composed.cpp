// attention_composed: the same from matmul, masks and softmax: the reference, and the way to second derivatives and trained biases.
#include "autograd/ops/attention.h"

#include <limits>

namespace cambium {

namespace {

// Bool (1 or B, 1, Tq, Tk): who may be attended to by position, by the packing and by the key mask.
Tensor allowed_pairs(const Tensor& q, const Tensor& k, const AttentionMask& mask) {
  const std::int64_t queries = q.shape()[1], keys = k.shape()[1], batch = mask.key_mask.defined() ? q.shape()[0] : 1;
  std::vector<std::uint8_t> key_mask;
  if (mask.key_mask.defined()) key_mask = mask.key_mask.to_vector<std::uint8_t>();
  std::vector<std::int64_t> sequence(static_cast<std::size_t>(keys), 0);
  if (mask.starts.defined()) {
    const std::vector<std::int64_t> starts = mask.starts.to_vector<std::int64_t>();
    for (std::size_t s = 0; s + 1 < starts.size(); ++s)
      for (std::int64_t i = starts[s]; i < starts[s + 1]; ++i) sequence[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(s);
  }
  std::vector<bool> allowed;
  allowed.reserve(static_cast<std::size_t>(batch * queries * keys));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t i = 0; i < queries; ++i) {
      const std::int64_t position = i + keys - queries;
      for (std::int64_t j = 0; j < keys; ++j) {
        bool may = (!mask.causal || j <= position) && (mask.window == 0 || j > position - mask.window);
        if (mask.starts.defined()) may = may && sequence[static_cast<std::size_t>(i)] == sequence[static_cast<std::size_t>(j)];
        if (!key_mask.empty()) may = may && key_mask[static_cast<std::size_t>(b * keys + j)] != 0;
        allowed.push_back(may);
      }
    }
  return from_vector(allowed, {batch, 1, queries, keys}, q.device());
}

Tensor heads_first(const Tensor& x) { return permute(x, {0, 2, 1, 3}); }

}  // namespace

Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  detail::check_attention("attention_composed", q, k, v, mask);
  const std::int64_t repeats = q.shape()[2] / k.shape()[2];
  Tensor keys = heads_first(k), values = heads_first(v);
  if (repeats > 1) {
    keys = repeat_interleave(keys, repeats, 1);
    values = repeat_interleave(values, repeats, 1);
  }
  Tensor scores = matmul(heads_first(q), transpose(keys)) * detail::attention_scale(q, mask);
  if (mask.bias.defined()) scores = scores + mask.bias;
  const auto probabilities = [&] { return mask.dropout_p > 0.0 ? dropout(softmax(scores), mask.dropout_p, mask.dropout_key) : softmax(scores); };
  if (!mask.causal && mask.window == 0 && !mask.key_mask.defined() && !mask.starts.defined()) return heads_first(matmul(probabilities(), values));
  const Tensor allowed = allowed_pairs(q, k, mask);
  // A query that may see nothing: softmax over its raw scores, then zeros, so that neither the value nor the gradient is NaN.
  const Tensor nothing = equal(sum(to_dtype(allowed, q.dtype()), {-1}, true), 0.0);
  const Tensor blocked = logical_and(logical_not(allowed), logical_not(nothing));
  scores = masked_fill(scores, blocked, -std::numeric_limits<double>::infinity());
  return heads_first(masked_fill(matmul(probabilities(), values), nothing, 0.0));
}

}  // namespace cambium
