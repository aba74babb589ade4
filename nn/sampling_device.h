// Choosing tokens where the logits are, so that only the chosen ids come to the host. Internal: not installed.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/sampling.h"
#include "tensor/tensor.h"

namespace cambium {

/// A row that wants a token: its number in the logits, the ids it has seen (for a repetition penalty), the key of its draw.
struct SamplingRow {
  std::int64_t row;
  std::vector<std::int64_t> seen;
  RandomKey key;
};

/// What sample_token() gives for each of these rows of logits (R, V) on a device, in the same arithmetic but for the order of sums. One copy to the host.
/// StateError as there.
std::vector<std::int64_t> sample_on_device(const Tensor& logits, const std::vector<SamplingRow>& rows, const SamplingOptions& options);

}  // namespace cambium
