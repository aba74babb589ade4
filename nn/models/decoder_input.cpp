// Checks of a decoder's input, and rows of its output.
#include "nn/models/decoder_input.h"

#include "nn/kv_cache.h"
#include "nn/models/inputs.h"

namespace cambium {

namespace {

/// First and end of each packed sequence, or of each row, in (B T).
std::vector<std::pair<std::int64_t, std::int64_t>> sequences_of(const ModelInput& input, DecoderSizes sizes) {
  std::vector<std::pair<std::int64_t, std::int64_t>> out;
  if (input.starts.defined()) {
    const std::vector<std::int64_t> starts = input.starts.to_vector<std::int64_t>();
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) out.emplace_back(starts[s], starts[s + 1]);
  } else {
    for (std::int64_t b = 0; b < sizes.batch; ++b) out.emplace_back(b * sizes.time, (b + 1) * sizes.time);
  }
  return out;
}

}  // namespace

DecoderSizes check_decoder_input(const ModelInput& input, Task task, std::int64_t hidden_size, std::size_t layers) {
  const auto [batch, time] = token_sizes("input_ids", input.input_ids, "inputs_embeds", input.inputs_embeds, hidden_size);
  check_shape("position_ids", input.position_ids, {batch, time});
  if (task == Task::causal_lm) check_shape("labels", input.labels, {batch, time});
  const bool spans = task == Task::question_answering;
  refuse_members({{"token_type_ids", input.token_type_ids.defined()},
                  {"decoder_input_ids", input.decoder_input_ids.defined()},
                  {"decoder_attention_mask", input.decoder_attention_mask.defined()},
                  {"encoder_output", input.encoder_output.defined()},
                  {"start_positions", !spans && input.start_positions.defined()},
                  {"end_positions", !spans && input.end_positions.defined()},
                  {"last_logits_only", task != Task::causal_lm && input.last_logits_only}});
  if (input.past) check_past(*input.past, layers);
  if (input.want_past) {
    check<StateError>(!input.cache && !input.past && !input.starts.defined(), "forward: a past is made of one row of tokens, without a cache, a past or packed sequences");
    check<ShapeError>(batch == 1, "forward: a past is made of one row of tokens, found ", batch);
  }
  if (input.cache) check<ShapeError>(input.cache->batch() == batch, "forward: the cache is for ", input.cache->batch(), " rows, the input has ", batch);
  return {batch, time};
}

LabelledRows labelled_rows(const ModelInput& input, DecoderSizes sizes) {
  LabelledRows out;
  const std::vector<std::int64_t> labels = input.labels.to_vector<std::int64_t>();
  // The first token of a sequence does not follow from the last one of the sequence before it.
  for (const auto& [first, end] : sequences_of(input, sizes))
    for (std::int64_t i = first; i + 1 < end; ++i) {
      const std::int64_t target = labels[static_cast<std::size_t>(i + 1)];
      if (target == -100) continue;
      out.rows.push_back(i);
      out.targets.push_back(target);
    }
  return out;
}

std::vector<std::int64_t> last_rows(const ModelInput& input, DecoderSizes sizes, std::optional<std::int64_t> pad) {
  check<ConfigError>(pad || sizes.batch == 1 || !input.input_ids.defined(), "forward: the configuration has no pad_token_id, so that nobody knows where the ", sizes.batch,
                     " rows of this batch end");
  std::vector<std::int64_t> ids, out;
  if (pad && input.input_ids.defined()) ids = input.input_ids.to_vector<std::int64_t>();
  for (const auto& [first, end] : sequences_of(input, sizes)) {
    check<ShapeError>(first < end, "forward: packed sequence ", out.size(), " has no tokens");
    std::int64_t last = end - 1;
    while (!ids.empty() && last > first && ids[static_cast<std::size_t>(last)] == *pad) --last;
    out.push_back(last);
  }
  return out;
}

}  // namespace cambium
