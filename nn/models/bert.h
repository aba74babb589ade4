// BERT: an encoder with learned positions and segments, norms after each half, erf GELU. Devlin et al. 2018, arXiv 1810.04805.
#pragma once

#include <memory>
#include <optional>

#include "nn/activation.h"
#include "nn/dropout.h"
#include "nn/models/model.h"
#include "nn/models/registry.h"

namespace cambium {

struct BertConfig : ModelConfig {
  double layer_norm_eps = 1e-12, hidden_dropout = 0.0, attention_dropout = 0.0, classifier_dropout = 0.0, initializer_range = 0.02;
  std::int64_t type_vocab_size = 2;
  UnaryFunction activation = UnaryFunction::gelu_erf;
};

/// What the layers need to know about the tokens of one call; theirs, since with gradient checkpointing they run again after it.
struct BertCall {
  ForwardContext context;
  Tensor key_mask;  ///< bool (B, T) or undefined
  Tensor starts;    ///< int32 (S+1) or undefined
  Past past;        ///< seen by every token; without layers: none
};

class BertEmbeddings final : public Module {
 public:
  BertEmbeddings(const BertConfig& config, DType dtype);
  std::string_view type_name() const override { return "BertEmbeddings"; }
  /// words (B, T, C); types and positions int64, broadcast to (B, T).
  Tensor forward(const Tensor& words, const Tensor& types, const Tensor& positions, const ForwardContext& context) const;

  Child<Layer> word_embeddings{*this, "word_embeddings"};

 private:
  Child<Layer> position_embeddings_{*this, "position_embeddings"}, token_type_embeddings_{*this, "token_type_embeddings"}, norm_{*this, "LayerNorm"}, dropout_{*this, "dropout"};
};

class BertSelfAttention final : public Module {
 public:
  BertSelfAttention(const BertConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "BertSelfAttention"; }
  /// Queries of `x` (B, Tq, C), keys and values of `all` (B, T, C).
  Tensor forward(const Tensor& x, const Tensor& all, const BertCall& call) const;

 private:
  Child<Layer> query_{*this, "query"}, key_{*this, "key"}, value_{*this, "value"};
  std::int64_t layer_, heads_, head_dim_;
  double dropout_;
};

/// LayerNorm(dropout(dense(x)) + residual): the end of either half of a layer.
class BertAddNorm final : public Module {
 public:
  BertAddNorm(std::string_view type_name, std::int64_t in, const BertConfig& config, DType dtype);
  std::string_view type_name() const override { return type_name_; }
  Tensor forward(const Tensor& x, const Tensor& residual, const ForwardContext& context) const;

 private:
  std::string_view type_name_;
  Child<Layer> dense_{*this, "dense"}, norm_{*this, "LayerNorm"}, dropout_{*this, "dropout"};
};

class BertAttention final : public Module {
 public:
  BertAttention(const BertConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "BertAttention"; }
  Tensor forward(const Tensor& x, const Tensor& all, const BertCall& call) const;

 private:
  Child<BertSelfAttention> self_{*this, "self"};
  Child<BertAddNorm> output_{*this, "output"};
};

/// activation(dense(x)), of the feed-forward half and (with tanh) of the pooler.
class BertDense final : public Module {
 public:
  BertDense(std::string_view type_name, std::int64_t in, std::int64_t out, UnaryFunction activation, DType dtype);
  std::string_view type_name() const override { return type_name_; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  std::string_view type_name_;
  Child<Layer> dense_{*this, "dense"};
  UnaryFunction activation_;
};

class BertLayer final : public Module {
 public:
  BertLayer(const BertConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "BertLayer"; }
  /// (B, T, C) -> the same, or (B, 1, C) of the first tokens only, which see all.
  Tensor forward(const Tensor& x, const BertCall& call, bool first_only) const;

 private:
  Child<BertAttention> attention_{*this, "attention"};
  Child<BertDense> intermediate_{*this, "intermediate"};
  Child<BertAddNorm> output_{*this, "output"};
};

class BertEncoder final : public Module {
 public:
  BertEncoder(const BertConfig& config, DType dtype);
  std::string_view type_name() const override { return "BertEncoder"; }

  Child<ModuleList<BertLayer>> layer{*this, "layer"};
};

/// The bare model's members, within the module that owns them: BertModel or a bare Bert.
struct BertParts {
  BertParts(Module& owner, const BertConfig& config, bool with_pooler, DType dtype);
  Child<BertEmbeddings> embeddings;
  Child<BertEncoder> encoder;
  std::optional<Child<BertDense>> pooler;
};

class BertModel final : public Module {
 public:
  BertModel(const BertConfig& config, bool with_pooler, DType dtype) : parts(*this, config, with_pooler, dtype) {}
  std::string_view type_name() const override { return "BertModel"; }

  BertParts parts;
};

/// BERT with the head of a task, or bare for features.
class Bert final : public PretrainedModel {
 public:
  Bert(const ModelClass& chosen, BertConfig config, DType dtype);
  std::string_view type_name() const override { return architecture_; }
  const ModelConfig& config() const override { return config_; }
  const BertConfig& bert_config() const { return config_; }
  Task task() const override { return task_; }
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const override;
  std::string input_embedding_path() const override { return bare_ ? "embeddings.word_embeddings" : "bert.embeddings.word_embeddings"; }
  std::string output_embedding_path() const override { return ""; }
  bool is_causal() const override { return false; }
  std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const override;

 private:
  const BertParts& parts() const { return bare_ ? *bare_ : (*bert_)->parts; }
  Tensor run_layers(Tensor hidden, const std::shared_ptr<const BertCall>& call, bool first_only, std::vector<Tensor>* states) const;

  BertConfig config_;
  Task task_;
  std::string_view architecture_;
  std::optional<BertParts> bare_;
  std::optional<Child<BertModel>> bert_;
  std::optional<Child<Layer>> dropout_, head_;
};

}  // namespace cambium
