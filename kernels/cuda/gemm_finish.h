// Device functions at both ends of a matrix product: elements of any float type, and scale, old C, bias, activation.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm.h"
#include "kernels/dtype.h"
#include "kernels/pointwise.h"

namespace cambium::kernels::cuda {

/// The type is the same for all threads of a launch: the branch costs nothing beside the load, and one kernel serves all combinations of types.
template <class A>
__device__ __forceinline__ A load_element(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::f64: return static_cast<A>(static_cast<const double*>(data)[i]);
    case DType::bf16: return static_cast<A>(static_cast<float>(static_cast<const bfloat16*>(data)[i]));
    case DType::f16: return static_cast<A>(static_cast<float>(static_cast<const float16*>(data)[i]));
    default: return static_cast<A>(static_cast<const float*>(data)[i]);
  }
}

template <class A>
__device__ __forceinline__ void store_element(void* data, DType dtype, std::int64_t i, A value) {
  switch (dtype) {
    case DType::f64: static_cast<double*>(data)[i] = static_cast<double>(value); break;
    case DType::bf16: static_cast<bfloat16*>(data)[i] = bfloat16(static_cast<float>(value)); break;
    case DType::f16: static_cast<float16*>(data)[i] = float16(static_cast<float>(value)); break;
    default: static_cast<float*>(data)[i] = static_cast<float>(value);
  }
}

template <class A>
__device__ __forceinline__ A activate(A x, MatrixActivation f) {
  switch (f) {
    case MatrixActivation::relu: return x <= A(0) ? A(0) : x;  // NaN stays
    case MatrixActivation::gelu_tanh: return gelu_tanh_value(x);
    case MatrixActivation::gelu_erf: return gelu_erf_value(x);
    case MatrixActivation::silu: return x / (A(1) + std::exp(-x));
    default: return x;
  }
}

/// Stores element (item, i, j) of C from its sum.
template <class A>
__device__ __forceinline__ void finish_element(const MatrixProduct& p, std::int64_t item, std::int64_t i, std::int64_t j, A sum) {
  const std::int64_t at = item * p.c.item + i * p.c.row + j * p.c.column;
  A x = static_cast<A>(p.alpha) * sum;
  if (p.beta != 0) x += static_cast<A>(p.beta) * load_element<A>(p.c.data, p.c.dtype, at);
  if (p.bias != nullptr) x += load_element<A>(p.bias, p.bias_dtype, (p.bias_by_row ? i : j) * p.bias_stride);
  store_element(const_cast<void*>(p.c.data), p.c.dtype, at, activate(x, p.activation));
}

}  // namespace cambium::kernels::cuda
