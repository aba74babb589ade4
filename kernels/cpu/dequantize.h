// Block formats of GGML to float and back; formulas as in ggml's reference (ggml-quants.c), one rounding for each operation.
#pragma once

#include <cstddef>

#include "kernels/ggml_types.h"

namespace cambium::kernels::cpu {

/// `count` elements, a multiple of the block size, of a format with `dequantizes`. Any alignment of `blocks`. On all threads.
void dequantize(GgmlType type, const std::byte* blocks, std::int64_t count, float* out);

/// Blocks of Q8_0 as the reference quantiser makes them: d = max|x| / 127, q = round(x / d), halves away from zero. `count` is a
/// multiple of 32; writes count / 32 * 34 bytes.
void quantize_q8_0(const float* values, std::int64_t count, std::byte* out);

}  // namespace cambium::kernels::cpu
