// CausalLM: what decoders with a language-model head have in common; a family gives embeddings, layers, final norm and head.
#pragma once

#include "nn/kv_cache.h"
#include "nn/models/model.h"

namespace cambium {

/// What the layers need to know about the tokens of one call, and their attention: a family knows nothing of caches, pasts and collecting.
struct DecoderCall {
  const ForwardContext& context;
  Tensor positions;  ///< int64 (B, T), behind past and cache
  Tensor key_mask;   ///< bool (B, Tk), of the cache's and the own tokens, or undefined: all keys are real
  Tensor starts;     ///< int32 (S+1) or undefined
  KvCache* cache = nullptr;
  const Past* past = nullptr;
  Past* collected = nullptr;  ///< where keys and values of this call are wanted

  /// Causal mask of this call; `window` 0: none; dropout on the probabilities while training, keyed by `path`.
  AttentionMask mask(std::int64_t window, double dropout_p, const Module& module) const;
  /// Attention of layer `layer`, q (B, T, H, D) and the layer's new k, v (B, T, G, D) as they enter it, over past, cache and these: (B, T, H, D).
  Tensor attend(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) const;
  /// The same of q, k and v as one projection (B, T, 3 H, D).
  Tensor attend_packed(std::int64_t layer, const Tensor& qkv, const AttentionMask& mask) const;
};

class CausalLM : public PretrainedModel {
 public:
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const final;
  Task task() const override { return Task::causal_lm; }
  bool is_causal() const override { return true; }
  std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const override;

 protected:
  /// Token embeddings of ids (B, T).
  virtual Tensor embed(const Tensor& input_ids, const ForwardContext& context) const = 0;
  /// What stands between the token embeddings and the first layer (learned positions, dropout).
  virtual Tensor enter(const Tensor& embeddings, const DecoderCall& call) const = 0;
  virtual std::size_t layer_count() const = 0;
  virtual Tensor run_layer(std::size_t index, const Tensor& hidden, const DecoderCall& call) const = 0;
  virtual const Layer& final_norm() const = 0;
  virtual const Layer& head() const = 0;
  /// Whether more positions than config().max_position_embeddings are impossible (learned positions), not merely untrained.
  virtual bool positions_are_limited() const { return false; }
};

}  // namespace cambium
