// Decoder: the bare model of a decoder family, its layers, and what one call tells them.
#pragma once

#include "nn/kv_cache.h"
#include "nn/models/model.h"

namespace cambium {

/// What the layers need to know about the tokens of one call, and their attention: a family knows nothing of caches, pasts and collecting. It refers to nothing of the
/// caller's, since layers may run again in the backward pass; a cache and collecting are not for those.
struct DecoderCall {
  ForwardContext context;
  Tensor positions;  ///< int64 (B or 1, T), behind past and cache
  Tensor key_mask;   ///< bool (B, Tk), of the cache's and the own tokens, or undefined: all keys are real
  Tensor starts;     ///< int32 (S+1) or undefined
  Tensor bias;       ///< of positions, float, broadcast to (B, H, T, P + Tk); undefined for families without one
  KvCache* cache = nullptr;
  std::shared_ptr<const Past> past;
  Past* collected = nullptr;  ///< where keys and values of this call are wanted
  bool mask_given = false;    ///< whether the input had an attention_mask, if only of real tokens

  std::int64_t past_length() const { return past ? past->length() : 0; }
  std::int64_t key_count() const { return positions.size(1) + (cache ? cache->length() : 0); }  ///< Tk
  /// Causal mask of this call; `window` 0: none; dropout on the probabilities while training, keyed by the module's path.
  AttentionMask mask(std::int64_t window, double dropout_p, const Module& module) const;
  /// Attention of layer `layer`, q (B, T, H, D) and the layer's new k, v (B, T, G, D) as they enter it, over past, cache and these: (B, T, H, D).
  Tensor attend(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) const;
  /// The same of q, k and v as one projection (B, T, 3 H, D).
  Tensor attend_packed(std::int64_t layer, const Tensor& qkv, const AttentionMask& mask) const;
};

/// The configuration of a decoder: what all families have besides ModelConfig.
struct DecoderConfig : ModelConfig {
  double initializer_range = 0.02;
  double classifier_dropout = 0.1;  ///< before the head that classifies tokens
  bool head_bias = false;           ///< of the language model's head
};

class DecoderLayer : public Module {
 public:
  virtual Tensor forward(const Tensor& x, const DecoderCall& call) const = 0;  ///< (B, T, C) -> (B, T, C)
};

/// Token embeddings, layers and final norm of a family. Not a module itself: its members are those of `owner`, which is the model for feature extraction and
/// the model's "transformer" or "model" for everything with a head.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::string_view type_name() const = 0;  ///< "GPT2Model"
  virtual const DecoderConfig& config() const = 0;
  virtual const Child<Layer>& embedding() const = 0;
  virtual const ModuleList<DecoderLayer>& layers() const = 0;
  virtual const Layer& final_norm() const = 0;
  /// What stands between the token embeddings and the first layer (learned positions, dropout); it may add to the call what all layers share.
  virtual Tensor enter(const Tensor& embeddings, [[maybe_unused]] DecoderCall& call) const { return embeddings; }
  /// Whether more positions than config().max_position_embeddings are impossible (learned positions), not merely untrained.
  virtual bool positions_are_limited() const { return false; }
};

}  // namespace cambium
