// Entries of the table of an instruction set: pointwise functions over contiguous floats, and gated activations.
#pragma once

#include "kernels/cpu/isa/element.h"

namespace cambium::kernels::cpu {

enum class Gate : uint8_t { silu, gelu_tanh, gelu_erf, relu };

/// The functions of kernels/pointwise.h that the profile of a training step shows. n elements; out may be an input.
struct PointwiseTable {
  using Unary = void (*)(float* out, const float* x, int64_t n, float p, float q);
  using UnaryBackward = void (*)(float* dx, const float* g, const float* value, int64_t n, float p, float q);
  using Binary = void (*)(float* out, const float* a, const float* b, int64_t n);
  struct {
    Unary neg, abs, exp, log, sqrt, rsqrt, reciprocal, square, tanh, sigmoid, relu, erf, gelu_erf, gelu_tanh, quick_gelu, silu, add_scalar, mul_scalar, rsub_scalar,
        rdiv_scalar;
  } unary;
  struct {
    UnaryBackward neg, exp, log, sqrt, rsqrt, reciprocal, square, tanh, sigmoid, relu, gelu_erf, gelu_tanh, quick_gelu, silu, add_scalar, mul_scalar, rsub_scalar;
  } unary_backward;
  struct {
    Binary add, sub, mul, div, maximum, minimum;
  } binary;
  /// out = f(gate) up, and dgate = g up f'(gate), dup = g f(gate); dgate and dup may be absent.
  void (*gated)(Element, Gate, void* out, const void* gate, const void* up, int64_t n);
  void (*gated_backward)(Element, Gate, void* dgate, void* dup, const void* g, const void* gate, const void* up, int64_t n);
};

}  // namespace cambium::kernels::cpu
