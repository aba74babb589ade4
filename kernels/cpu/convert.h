// Rows of any element type to and from the type that a kernel computes in.
#pragma once

#include "kernels/strided.h"

namespace cambium::kernels::cpu {

/// to[i * to_stride] = convert(from[i * from_stride]) for i < count. Strides in elements.
using ConvertRow = void (*)(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t count);
ConvertRow convert_row(DType to, DType from);

/// The type that kernels compute elements of `dtype` in: f64, f32 or i64, as acc_t says.
constexpr DType compute_dtype(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : is_float(dtype) ? DType::f32 : DType::i64;
}

/// Calls `f(TypeTag<T>{})` for the type that elements of `dtype` are computed in.
template <class F>
decltype(auto) visit_compute(DType dtype, F&& f) {
  switch (compute_dtype(dtype)) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    default: return f(TypeTag<std::int64_t>{});
  }
}

}  // namespace cambium::kernels::cpu
