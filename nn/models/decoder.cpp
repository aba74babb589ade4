// Attention of a decoder's layers over past, cache and the call's own tokens.
#include "nn/models/decoder.h"

#include "autograd/ops/attention.h"

namespace cambium {

AttentionMask DecoderCall::mask(std::int64_t window, double dropout_p, const Module& module) const {
  AttentionMask mask;
  mask.causal = true;
  mask.window = window;
  mask.key_mask = key_mask;
  mask.starts = starts;
  mask.bias = bias;
  if (context.training && dropout_p > 0.0) {
    mask.dropout_p = dropout_p;
    mask.dropout_key = context.key.fold(module.path());
  }
  return mask;
}

Tensor DecoderCall::attend(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) const {
  const auto place = static_cast<std::size_t>(layer);
  if (collected) collected->layers.at(place) = {select(k, 0, 0), select(v, 0, 0)};
  Tensor keys = k, values = v;
  if (cache) std::tie(keys, values) = cache->append(layer, k, v);
  return past ? attention_with_past(q, keys, values, past->layers.at(place).keys, past->layers.at(place).values, mask) : attention(q, keys, values, mask);
}

Tensor DecoderCall::attend_packed(std::int64_t layer, const Tensor& qkv, const AttentionMask& mask) const {
  if (!cache && !past && !collected) return attention_packed(qkv, mask);
  const std::int64_t heads = qkv.size(2) / 3;
  return attend(layer, slice(qkv, 2, 0, heads), slice(qkv, 2, heads, 2 * heads), slice(qkv, 2, 2 * heads), mask);
}

}  // namespace cambium
