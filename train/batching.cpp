// Making batches.
#include "train/batching.h"

#include <algorithm>
#include <numeric>

#include "train/shuffle.h"

namespace cambium {

namespace {

using Examples = std::span<const Example* const>;
using Member = std::vector<std::int64_t> Example::*;

std::size_t longest(Examples examples, Member member) {
  std::size_t length = 0;
  for (const Example* example : examples) length = std::max(length, (example->*member).size());
  return length;
}

/// A member of all rows side by side: (1, total).
Tensor side_by_side(Examples examples, Member member) {
  std::vector<std::int64_t> all;
  for (const Example* example : examples) all.insert(all.end(), (example->*member).begin(), (example->*member).end());
  return from_vector(all, {1, static_cast<std::int64_t>(all.size())});
}

/// A member of each row with `before` values in front and filled up behind: (B, before + longest).
Tensor filled_up(Examples examples, Member member, std::int64_t fill, std::int64_t before = 0) {
  const std::size_t width = longest(examples, member) + static_cast<std::size_t>(before);
  std::vector<std::int64_t> all;
  for (const Example* example : examples) {
    all.insert(all.end(), static_cast<std::size_t>(before), fill);
    all.insert(all.end(), (example->*member).begin(), (example->*member).end());
    all.resize((all.size() + width - 1) / width * width, fill);
  }
  return from_vector(all, {static_cast<std::int64_t>(examples.size()), static_cast<std::int64_t>(width)});
}

/// 1 where a member has values: (B, longest).
Tensor real_tokens(Examples examples, Member member) {
  const std::size_t width = longest(examples, member);
  std::vector<std::int64_t> all;
  for (const Example* example : examples) {
    all.insert(all.end(), (example->*member).size(), 1);
    all.resize((all.size() + width - 1) / width * width, 0);
  }
  return from_vector(all, {static_cast<std::int64_t>(examples.size()), static_cast<std::int64_t>(width)});
}

/// Labels of whole rows: classes (B), numbers (B), or one number for each class (B, N).
Tensor row_labels(Examples examples) {
  const auto rows = static_cast<std::int64_t>(examples.size());
  const std::size_t width = examples.front()->values.size();
  if (width == 0) {
    std::vector<std::int64_t> classes;
    for (const Example* example : examples) classes.push_back(example->label);
    return from_vector(classes, {rows});
  }
  std::vector<float> values;
  for (const Example* example : examples) values.insert(values.end(), example->values.begin(), example->values.end());
  return width == 1 ? from_vector(values, {rows}) : from_vector(values, {rows, static_cast<std::int64_t>(width)});
}

Tensor positions(Examples examples, std::int64_t Example::*member, std::int64_t moved) {
  std::vector<std::int64_t> all;
  for (const Example* example : examples) all.push_back(example->*member + moved);
  return from_vector(all, {static_cast<std::int64_t>(examples.size())});
}

}  // namespace

Batch make_batch(Examples examples, const BatchFormat& format, Task task) {
  check<StateError>(!examples.empty(), "make_batch: no examples");
  const bool ragged = format.layout == BatchLayout::ragged && task != Task::seq2seq_lm;
  check<StateError>(!ragged || format.virtual_tokens == 0, "make_batch: virtual tokens before each row need the padded layout");
  Batch batch;
  ModelInput& input = batch.input;
  batch.rows = static_cast<std::int64_t>(examples.size());
  bool segments = false;
  std::vector<std::int32_t> starts = {0};
  for (const Example* example : examples) {
    batch.tokens += static_cast<std::int64_t>(example->ids.size() + (task == Task::seq2seq_lm ? example->labels.size() : 0));
    batch.targets += example->targets();
    segments = segments || (format.segments && !example->token_types.empty());
    starts.push_back(starts.back() + static_cast<std::int32_t>(example->ids.size()));
  }
  if (segments)
    for (const Example* example : examples)
      check<StateError>(example->token_types.size() == example->ids.size(), "make_batch: some rows have segments of tokens and line ", example->line, " has none");
  if (ragged) {
    input.input_ids = side_by_side(examples, &Example::ids);
    input.starts = from_vector(starts, {batch.rows + 1});
    if (segments) input.token_type_ids = side_by_side(examples, &Example::token_types);
  } else {
    input.input_ids = filled_up(examples, &Example::ids, format.pad_id);
    input.attention_mask = real_tokens(examples, &Example::ids);
    if (segments) input.token_type_ids = filled_up(examples, &Example::token_types, 0);
  }
  switch (task) {
    case Task::sequence_classification: input.labels = row_labels(examples); break;
    case Task::question_answering:
      input.start_positions = positions(examples, &Example::answer_start, format.virtual_tokens);
      input.end_positions = positions(examples, &Example::answer_end, format.virtual_tokens);
      break;
    case Task::seq2seq_lm:
      input.labels = filled_up(examples, &Example::labels, -100);
      if (longest(examples, &Example::decoder_ids) > 0) {
        for (const Example* example : examples)
          check<StateError>(example->decoder_ids.size() == example->labels.size(), "make_batch: some rows have decoder_input_ids and line ", example->line, " has none");
        input.decoder_input_ids = filled_up(examples, &Example::decoder_ids, format.pad_id);
      }
      break;
    case Task::feature_extraction: break;
    default: input.labels = ragged ? side_by_side(examples, &Example::labels) : filled_up(examples, &Example::labels, -100, format.virtual_tokens);
  }
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
