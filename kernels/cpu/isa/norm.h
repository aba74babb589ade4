// Entries of the table of an instruction set: layer and RMS normalisation of rows.
#pragma once

#include "kernels/cpu/isa/element.h"

namespace cambium::kernels::cpu {

/// Rows (rows, n), contiguous. gamma, beta (n), mean, rstd (rows) in float; absent ones are not read or written.
struct NormTable {
  void (*layer_forward)(Element, void* y, float* mean, float* rstd, const void* x, const void* gamma, const void* beta, int64_t rows, int64_t n, float epsilon);
  void (*rms_forward)(Element, void* y, float* rstd, const void* x, const void* gamma, int64_t rows, int64_t n, float epsilon);
  /// dx, and these rows' sums for gamma and beta, written to dgamma, dbeta (n).
  void (*layer_backward)(Element, void* dx, float* dgamma, float* dbeta, const void* g, const void* x, const float* mean, const float* rstd, const void* gamma,
                         int64_t rows, int64_t n);
  void (*rms_backward)(Element, void* dx, float* dgamma, const void* g, const void* x, const float* rstd, const void* gamma, int64_t rows, int64_t n);
  /// out[i] = sum of partial[block * stride + i] over the blocks, neighbours first, i < n; overwrites the partial sums.
  void (*sum_blocks)(Element, void* out, float* partial, int64_t blocks, int64_t stride, int64_t n);
};

}  // namespace cambium::kernels::cpu
