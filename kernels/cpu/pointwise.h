// Row functions: a pointwise function applied to contiguous values of the type it is computed in.
#pragma once

#include <cstdint>

#include "kernels/pointwise.h"

namespace cambium::kernels::cpu {

/// Values per call of a row function at most: operands of other types and strides are brought into buffers of this length.
inline constexpr std::int64_t kRowBlock = 512;

/// out[i] = f(x[i], p, q). out may be x.
template <class T> using UnaryRow = void (*)(T* out, const T* x, std::int64_t n, T p, T q);
/// dx[i] = g[i] f'(value[i], p, q). dx may be g or value.
template <class T> using UnaryBackwardRow = void (*)(T* dx, const T* g, const T* value, std::int64_t n, T p, T q);
/// out[i] = f(a[i], b[i]). out may be a or b.
template <class T> using BinaryRow = void (*)(T* out, const T* a, const T* b, std::int64_t n);

}  // namespace cambium::kernels::cpu
