// Positions as attention biases: ALiBi's slopes and T5's buckets.
#pragma once

#include "tensor/tensor.h"

namespace cambium {

/// Slope of each head (heads): powers of 2^(-8/n) for a power of two n; otherwise those of the power of two below, followed by every other one of
/// twice as many. Press et al. 2021, arXiv 2108.12409, section 3. ConfigError for less than one head.
Tensor alibi_slopes(std::int64_t heads, DType dtype = DType::f32);

/// Bucket (int64, same shape) of each relative position key - query (int64): half of the buckets exact, the rest growing logarithmically up to
/// max_distance; when bidirectional, later keys have buckets of their own. Raffel et al. 2020, arXiv 1910.10683. The logarithm is taken in float32, as
/// the reference implementation does, so that borders agree. ConfigError for sizes that leave no room.
Tensor t5_relative_position_bucket(const Tensor& relative_position, bool bidirectional, std::int64_t buckets, std::int64_t max_distance);

}  // namespace cambium
