// CausalLM: what decoders with a language-model head have in common; a family gives embeddings, layers, final norm and head.
#pragma once

#include "nn/kv_cache.h"
#include "nn/models/model.h"

namespace cambium {

/// What the layers need to know about the tokens of one call.
struct DecoderCall {
  const ForwardContext& context;
  Tensor positions;  ///< int64 (B, T)
  Tensor key_mask;   ///< bool (B, Tk) or undefined: all keys are real
  Tensor starts;     ///< int32 (S+1) or undefined
  KvCache* cache = nullptr;

  /// Causal mask of this call; `window` 0: none; dropout on the probabilities while training, keyed by `path`.
  AttentionMask mask(std::int64_t window, double dropout_p, const Module& module) const;
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
