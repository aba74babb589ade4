// generate: continues token ids with a model, one token at a time.
#pragma once

#include <functional>
#include <vector>

#include "nn/models/model.h"
#include "nn/sampling.h"

namespace cambium {

struct GenerationOptions {
  std::int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  /// A row ends with the first of these. Absent: those of the model's configuration; an empty list: none.
  std::optional<std::vector<std::int64_t>> eos_token_ids;
  RandomKey key;          ///< of the draws; step and row are folded into it, so rows do not depend on each other
  bool use_cache = true;  ///< false: the whole text again for every token (slow; the reference)
  const Past* past = nullptr;  ///< stands before every row; positions count it
  /// Positions run over padding, too, as they do behind a learned prompt; otherwise they count real tokens only.
  bool positions_count_padding = false;
  /// Called with each new token of each row, in order. Returning false ends the generation after this step.
  std::function<bool(std::int64_t row, std::int64_t token)> on_token;
};

/// New tokens of each row, an end token included. input_ids int64 (B, T); attention_mask (B, T) marks the real tokens of a batch padded on the left, or is
/// undefined. Records nothing. ShapeError for a row without tokens or padded on the right, ConfigError for options. With an encoder-decoder: generate_seq2seq.
std::vector<std::vector<std::int64_t>> generate(const PretrainedModel& model, const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options = {},
                                                const ForwardContext& context = {});
/// One row.
std::vector<std::int64_t> generate(const PretrainedModel& model, const std::vector<std::int64_t>& input_ids, const GenerationOptions& options = {},
                                   const ForwardContext& context = {});

}  // namespace cambium
