// What makes the virtual tokens of prompt methods: an embedding alone, or one followed by a small network.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "nn/activation.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/lstm.h"

namespace cambium {

/// Linear layers with an activation between them, named as in PyTorch's Sequential: "0", "2", "4".
class Perceptron final : public Module {
 public:
  /// widths: in, hidden…, out. PyTorch's starting values.
  Perceptron(const std::vector<std::int64_t>& widths, UnaryFunction activation, RandomKey key);
  std::string_view type_name() const override { return "Sequential"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;  ///< (…, in) -> (…, out)
  Linear& last() const { return **layers_.back(); }

 private:
  std::vector<std::unique_ptr<Child<Linear>>> layers_;
  UnaryFunction activation_;
};

/// The trained origin of one adapter's virtual tokens. Parameters are float32 and named as PEFT's. It runs once, whatever the batch: this one has its result as rows.
/// Prompts: rows (N, C) that stand before the embeddings of a text (Lester et al. 2021, arXiv 2104.08691). Prefixes: (N, 2 L D), key and value of each layer in turn.
class VirtualTokens : public Module {
 public:
  Child<Embedding> embedding{*this, "embedding"};

  explicit VirtualTokens(Tensor rows) { embedding.set(std::make_shared<Embedding>(std::move(rows))); }
  /// PyTorch's starting values of an embedding: standard normal.
  VirtualTokens(std::int64_t rows, std::int64_t width, RandomKey key) { embedding.set(std::make_shared<Embedding>(rows, width, key.fold("embedding"))); }
  std::string_view type_name() const override { return "PromptEmbedding"; }
  virtual Tensor forward(const ForwardContext&) const { return embedding->weight; }
  /// Whether the embedding's rows are the virtual tokens themselves.
  virtual bool is_flat() const { return true; }
};

/// P-tuning (Liu et al. 2021, arXiv 2103.10385): linear layers with ReLU, or a bidirectional LSTM and two linear layers on it.
class PromptEncoder final : public VirtualTokens {
 public:
  struct Options {
    std::int64_t rows, width, hidden;
    bool lstm = false;
    std::int64_t lstm_layers = 2;
    double lstm_dropout = 0.0;  ///< between its layers
  };
  PromptEncoder(const Options& options, RandomKey key);
  std::string_view type_name() const override { return "PromptEncoder"; }
  Tensor forward(const ForwardContext& context) const override;  ///< (N, C): all rows are one sequence
  bool is_flat() const override { return false; }

 private:
  std::unique_ptr<Child<Lstm>> lstm_head_;
  Child<Perceptron> mlp_head_{*this, "mlp_head"};
};

/// A prefix whose flat keys and values are a projection with tanh of narrower rows (Li and Liang 2021, arXiv 2101.00190).
class PrefixEncoder final : public VirtualTokens {
 public:
  PrefixEncoder(std::int64_t rows, std::int64_t width, std::int64_t hidden, std::int64_t out, RandomKey key);
  std::string_view type_name() const override { return "PrefixEncoder"; }
  Tensor forward(const ForwardContext& context) const override { return transform->forward(embedding->weight, context); }  ///< (N, out)
  bool is_flat() const override { return false; }

  Child<Perceptron> transform{*this, "transform"};
};

}  // namespace cambium
