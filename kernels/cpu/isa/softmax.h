// Entries of the table of an instruction set: softmax of rows and cross entropy.
#pragma once

#include "kernels/cpu/isa/element.h"

namespace cambium::kernels::cpu {

struct SoftmaxTable {
  /// Rows (rows, n), contiguous.
  void (*forward)(Element, void* y, const void* x, int64_t rows, int64_t n, bool logarithm);
  void (*backward)(Element, void* dx, const void* g, const void* y, int64_t rows, int64_t n, bool logarithm);
  /// log sum_i e^x_i of one row, and sum_i w_i (lse - x_i) if `smooth` is given; weights may be absent.
  double (*log_sum_exp)(Element, const void* x, const void* weights, int64_t n, double* smooth);
  /// out_i = slope p_i - share w_i - (i == target ? hard : 0) with p = e^(x - lse); out may be x.
  void (*cross_entropy_backward)(Element, void* out, const void* x, const void* weights, int64_t n, float lse, int64_t target, float slope, float share, float hard);
};

}  // namespace cambium::kernels::cpu
