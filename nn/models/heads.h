// Heads of tasks: logits and losses that all families share, as transformers defines them.
#pragma once

#include "nn/models/model.h"

namespace cambium {

/// A loss (f32 scalar) and how many targets it is the mean of.
struct LabelledLoss {
  Tensor loss;
  std::int64_t labelled = 0;
};

/// Loss of logits (S, N), one row for each sequence, by config.problem_type; an empty one is told by the labels, as transformers does: regression with one class,
/// one label for integers (S), several for floats (S, N). Cross-entropy, labels -100 left out; mean squared error over all classes, labels (S) or (S, N); binary
/// cross-entropy with logits over all classes. `count`: what the sum over sequences is divided by, default those with a label; without either a StateError.
LabelledLoss sequence_classification_loss(const Tensor& logits, const Tensor& labels, const ModelConfig& config, std::optional<double> count = {});

/// Cross-entropy of logits (B, T, N) against labels int64 (B, T), -100 left out.
LabelledLoss token_classification_loss(const Tensor& logits, const Tensor& labels, std::optional<double> count = {});

/// Mean of the cross-entropies of start and end logits (B, T) against positions int64 (B) or (B, 1). Negative ones count as 0, as transformers clamps them; those of T
/// and above are left out. With `starts` (S+1; B = 1) each packed sequence has its own positions (S), counted from its start.
LabelledLoss span_loss(const Tensor& start_logits, const Tensor& end_logits, const Tensor& start_positions, const Tensor& end_positions, const Tensor& starts = {},
                       std::optional<double> count = {});

/// Runs `head` and fills logits, loss and labelled of `out` for a task other than a language model's. `hidden` is (S, C), pooled, for sequence classification, else
/// (B, T, C). Feature extraction takes no head: its logits are the hidden states, and it has no loss of its own.
void finish_task(Task task, const Layer* head, const Tensor& hidden, const ModelInput& input, const ModelConfig& config, const ForwardContext& context, ModelOutput& out);

/// ShapeError, DTypeError or StateError for labels that are not those of the task, or that go without it.
void check_labels(Task task, const ModelInput& input);

}  // namespace cambium
