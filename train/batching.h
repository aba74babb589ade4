// From examples to model inputs: rows side by side without padding, padded, or packed to full length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nn/models/model.h"
#include "train/dataset.h"

namespace cambium {

/// ragged and padded mean the same: each example is a row of its own. ragged does not compute the padding.
enum class BatchLayout { ragged, padded };

/// How a model takes its rows.
struct BatchFormat {
  BatchLayout layout = BatchLayout::ragged;
  std::int64_t pad_id = 0;
  /// Virtual tokens before each row of the model's output: labels of tokens get as many -100 in front, and answers move by as many. Not for language models,
  /// which shift by themselves. Padded layout only.
  std::int64_t virtual_tokens = 0;
  bool segments = true;  ///< whether the model knows segments of pairs; decoders do not
};

struct Batch {
  ModelInput input;
  std::int64_t rows = 0, tokens = 0, targets = 0;
};

/// One input of the given examples, with labels as the task takes them. Every labelled target counts alike: the loss is the mean over them.
/// Sequence-to-sequence rows are always padded.
Batch make_batch(std::span<const Example* const> examples, const BatchFormat& format = {}, Task task = Task::causal_lm);

/// Which examples make up each batch of an epoch.
struct BatchPlan {
  std::int64_t batch_size = 8;
  bool packing = false;          ///< a row holds as many whole examples as fit into max_length; they do not see each other
  std::int64_t max_length = 1024;
  bool shuffle = true;
  std::uint64_t seed = 0;
};
std::vector<std::vector<std::int64_t>> plan_epoch(const Dataset& dataset, const BatchPlan& plan, std::int64_t epoch);

}  // namespace cambium
