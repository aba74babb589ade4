// The input of decoders: checks, and which rows somebody asked for. Internal: not installed.
#pragma once

#include <utility>
#include <vector>

#include "nn/models/model.h"

namespace cambium {

struct DecoderSizes { std::int64_t batch, time; };

/// B and T, once everything fits: sizes, the past's layers, what this task has no use for. ShapeError and StateError naming what does not.
DecoderSizes check_decoder_input(const ModelInput& input, Task task, std::int64_t hidden_size, std::size_t layers);

/// The rows of (B T, C) that have a target after the shift by one, and those targets.
struct LabelledRows {
  std::vector<std::int64_t> rows, targets;
};
LabelledRows labelled_rows(const ModelInput& input, DecoderSizes sizes);
/// The row of (B T, C) that stands for each sequence: its last token that is not `pad`, by ids; the last one of all where there are embeddings instead.
std::vector<std::int64_t> last_rows(const ModelInput& input, DecoderSizes sizes, std::optional<std::int64_t> pad);

}  // namespace cambium
