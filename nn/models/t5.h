// T5: encoder and decoder with relative positions, norms before each half, no biases. Raffel et al. 2020, arXiv 1910.10683; v1.1 has gated halves and a head of its own.
#pragma once

#include <memory>
#include <optional>

#include "nn/activation.h"
#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/kv_cache.h"
#include "nn/models/model.h"
#include "nn/models/registry.h"

namespace cambium {

struct T5Config : ModelConfig {
  std::int64_t num_decoder_layers = 0, buckets = 32, max_distance = 128;
  double layer_norm_epsilon = 1e-6, dropout = 0.0, initializer_factor = 1.0;
  UnaryFunction activation = UnaryFunction::relu;
  bool gated = false, scale_decoder_outputs = true;
};

/// What the layers of one stack need to know in one call; theirs, since with gradient checkpointing they run again after it.
struct T5Call {
  ForwardContext context;
  Tensor bias;            ///< (1, H, Tq, P + Tk): of relative positions, shared by all layers
  Tensor key_mask;        ///< bool (B, Tk) of the stack's own tokens, or undefined
  Tensor encoded, encoded_mask;  ///< what a decoder reads: (B, S, C), undefined when the cache has its keys and values; bool (B, S) or undefined
  Past past;              ///< without layers: none
  KvCache* cache = nullptr;
};

class T5Attention final : public Module {
 public:
  /// `buckets` > 0: the layer that holds the table of relative positions.
  T5Attention(const T5Config& config, std::int64_t layer, bool in_decoder, std::int64_t buckets, DType dtype);
  std::string_view type_name() const override { return "T5Attention"; }
  Tensor attend_self(const Tensor& x, const T5Call& call) const;
  Tensor attend_encoder(const Tensor& x, const T5Call& call) const;
  /// (1, H, queries, keys): queries are the last of the keys' positions.
  Tensor relative_bias(std::int64_t queries, std::int64_t keys, const ForwardContext& context) const;

 private:
  Tensor heads(const Child<Layer>& projection, const Tensor& x, const ForwardContext& context) const;
  Tensor finish(const Tensor& mixed, const ForwardContext& context) const;
  AttentionMask mask(const T5Call& call) const;

  Child<Layer> q_{*this, "q"}, k_{*this, "k"}, v_{*this, "v"}, o_{*this, "o"};
  std::optional<Child<Layer>> relative_attention_bias_;
  std::int64_t layer_, heads_, head_dim_, buckets_, max_distance_;
  bool in_decoder_;
  double dropout_;
};

/// One part of a block: x + dropout(f(norm(x))).
class T5Part : public Module {
 public:
  virtual Tensor forward(const Tensor& x, const T5Call& call) const = 0;
};

class T5SelfAttentionPart final : public T5Part {
 public:
  T5SelfAttentionPart(const T5Config& config, std::int64_t layer, bool in_decoder, DType dtype);
  std::string_view type_name() const override { return "T5LayerSelfAttention"; }
  Tensor forward(const Tensor& x, const T5Call& call) const override;

  Child<T5Attention> attention{*this, "SelfAttention"};

 private:
  Child<Layer> layer_norm_{*this, "layer_norm"}, dropout_{*this, "dropout"};
};

class T5CrossAttentionPart final : public T5Part {
 public:
  T5CrossAttentionPart(const T5Config& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "T5LayerCrossAttention"; }
  Tensor forward(const Tensor& x, const T5Call& call) const override;

 private:
  Child<T5Attention> attention_{*this, "EncDecAttention"};
  Child<Layer> layer_norm_{*this, "layer_norm"}, dropout_{*this, "dropout"};
};

/// wo(dropout(act(wi x))), gated: wo(dropout(act(wi_0 x) wi_1 x)).
class T5Dense final : public Module {
 public:
  T5Dense(const T5Config& config, DType dtype);
  std::string_view type_name() const override { return up_ ? "T5DenseGatedActDense" : "T5DenseActDense"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Child<Layer> wi_;                    ///< wi or wi_0
  std::unique_ptr<Child<Layer>> up_;  ///< wi_1
  Child<Layer> wo_{*this, "wo"}, dropout_{*this, "dropout"};
  UnaryFunction activation_;
};

class T5DensePart final : public T5Part {
 public:
  T5DensePart(const T5Config& config, DType dtype);
  std::string_view type_name() const override { return "T5LayerFF"; }
  Tensor forward(const Tensor& x, const T5Call& call) const override;

 private:
  Child<T5Dense> dense_{*this, "DenseReluDense"};
  Child<Layer> layer_norm_{*this, "layer_norm"}, dropout_{*this, "dropout"};
};

class T5Block final : public Module {
 public:
  T5Block(const T5Config& config, std::int64_t layer, bool in_decoder, DType dtype);
  std::string_view type_name() const override { return "T5Block"; }
  Tensor forward(const Tensor& x, const T5Call& call) const;
  const T5Attention& self_attention() const { return *dynamic_cast<const T5SelfAttentionPart&>((*layer_)[0]).attention; }

 private:
  Child<ModuleList<T5Part>> layer_{*this, "layer"};
};

class T5Stack final : public Module {
 public:
  T5Stack(const T5Config& config, bool in_decoder, const Param& shared, DType dtype);
  std::string_view type_name() const override { return "T5Stack"; }
  /// Embeddings (B, T, C) through all blocks and the final norm; `states` gets what goes into each block and the end, unless null.
  Tensor forward(const Tensor& embeddings, T5Call call, bool checkpointing, std::vector<Tensor>* states) const;

  Child<Layer> embed_tokens{*this, "embed_tokens"};
  Child<ModuleList<T5Block>> block{*this, "block"};

 private:
  Child<Layer> final_layer_norm_{*this, "final_layer_norm"}, dropout_{*this, "dropout"};
};

/// T5ForConditionalGeneration, T5Model (features of the decoder) or T5EncoderModel (features of the encoder).
class T5 final : public PretrainedModel {
 public:
  T5(const ModelClass& chosen, T5Config config, DType dtype);
  std::string_view type_name() const override { return architecture_; }
  const ModelConfig& config() const override { return config_; }
  const T5Config& t5_config() const { return config_; }
  Task task() const override { return task_; }
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const override;
  std::string input_embedding_path() const override { return "shared"; }
  std::string output_embedding_path() const override { return lm_head_ ? "lm_head" : ""; }
  bool is_causal() const override { return false; }
  std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const override;

 private:
  Tensor encode(const ModelInput& input, const ForwardContext& context, ModelOutput& out) const;
  Tensor decoder_ids(const ModelInput& input) const;
  void finish(const Tensor& decoded, const ModelInput& input, const ForwardContext& context, ModelOutput& out) const;

  T5Config config_;
  Task task_;
  std::string_view architecture_;
  Child<Embedding> shared_{*this, "shared"};
  Child<T5Stack> encoder_{*this, "encoder"};
  std::optional<Child<T5Stack>> decoder_;
  std::optional<Child<Layer>> lm_head_;
};

}  // namespace cambium
