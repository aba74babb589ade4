// Making batches.
#include "train/batching.h"

#include <algorithm>
#include <numeric>

#include "train/shuffle.h"

namespace cambium {

Batch make_batch(std::span<const Example* const> examples, BatchLayout layout, std::int64_t pad_id) {
  check<StateError>(!examples.empty(), "make_batch: no examples");
  Batch batch;
  batch.rows = static_cast<std::int64_t>(examples.size());
  std::size_t longest = 0;
  for (const Example* example : examples) {
    longest = std::max(longest, example->ids.size());
    batch.tokens += static_cast<std::int64_t>(example->ids.size());
    batch.targets += example->targets();
  }
  std::vector<std::int64_t> ids, labels;
  if (layout == BatchLayout::ragged) {
    std::vector<std::int32_t> starts = {0};
    for (const Example* example : examples) {
      ids.insert(ids.end(), example->ids.begin(), example->ids.end());
      labels.insert(labels.end(), example->labels.begin(), example->labels.end());
      starts.push_back(static_cast<std::int32_t>(ids.size()));
    }
    batch.input.input_ids = from_vector(ids, {1, batch.tokens});
    batch.input.labels = from_vector(labels, {1, batch.tokens});
    batch.input.starts = from_vector(starts, {batch.rows + 1});
    return batch;
  }
  std::vector<std::int64_t> mask;
  for (const Example* example : examples) {
    const std::size_t padding = longest - example->ids.size();
    ids.insert(ids.end(), example->ids.begin(), example->ids.end());
    ids.insert(ids.end(), padding, pad_id);
    labels.insert(labels.end(), example->labels.begin(), example->labels.end());
    labels.insert(labels.end(), padding, -100);
    mask.insert(mask.end(), example->ids.size(), 1);
    mask.insert(mask.end(), padding, 0);
  }
  const Shape shape{batch.rows, static_cast<std::int64_t>(longest)};
  batch.input.input_ids = from_vector(ids, shape);
  batch.input.labels = from_vector(labels, shape);
  batch.input.attention_mask = from_vector(mask, shape);
  return batch;
}

std::vector<std::vector<std::int64_t>> plan_epoch(const Dataset& dataset, const BatchPlan& plan, std::int64_t epoch) {
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  std::vector<std::int64_t> order;
  if (plan.shuffle) {
    order = permutation(count, RandomKey{plan.seed, 0}.fold("data order").fold(static_cast<std::uint64_t>(epoch)));
  } else {
    order.resize(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
  }
  std::vector<std::vector<std::int64_t>> batches;
  std::int64_t rows = 0, used = 0;  // complete rows of the open batch, tokens in its open row
  for (std::int64_t i : order) {
    const auto length = static_cast<std::int64_t>(dataset.examples[static_cast<std::size_t>(i)].ids.size());
    const bool new_row = batches.empty() || !plan.packing || used + length > plan.max_length;
    if (new_row) {
      if (batches.empty() || rows == plan.batch_size) {
        batches.emplace_back();
        rows = 0;
      }
      ++rows;
      used = 0;
    }
    batches.back().push_back(i);
    used += length;
  }
  return batches;
}

}  // namespace cambium
