// What the elementary ops share: checks of operands, repeated scalars, undoing a broadcast. Internal.
#pragma once

#include <string_view>

#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium::detail {

inline void check_defined(std::string_view what, const Tensor& x) { check<StateError>(x.defined(), what, ": an input is undefined"); }
inline void check_float(std::string_view what, const Tensor& x) {
  check_defined(what, x);
  check<DTypeError>(is_float(x.dtype()), what, ": expected a floating type, found ", x.dtype());
}
inline void check_bool(std::string_view what, const Tensor& x) {
  check_defined(what, x);
  check<DTypeError>(x.dtype() == DType::boolean, what, ": expected bool, found ", x.dtype());
}
/// Both defined, of one dtype and on one device.
void check_alike(std::string_view what, const Tensor& a, const Tensor& b);
void check_same_device(std::string_view what, const Tensor& a, const Tensor& b);
/// int64 or int32 and all within [0, size); the message names the first kind of offender found.
void check_indices(std::string_view what, const Tensor& index, std::int64_t size);

/// One element of x's dtype repeated to `shape` with stride 0. DTypeError when the dtype cannot hold the value exactly (integers only).
Tensor repeated_scalar(std::string_view what, double value, const Tensor& like, const Shape& shape);

/// Sums g over what broadcasting repeated, so that it has `shape` again. Recorded.
Tensor sum_to(const Tensor& g, const Shape& shape);
/// permute() with an order made at run time.
Tensor permute_by(const Tensor& x, const std::vector<int>& order);
/// Zeros of `shape` with g at the slice; the gradient of slice(). Recorded.
Tensor slice_scatter(const Tensor& g, const Shape& shape, int dim, std::int64_t start, std::int64_t end, std::int64_t step);

/// The floats whose sums are made in float32.
inline bool is_half(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

/// f(x) computed in float32 and rounded once when x has 16 bits; f(x) otherwise.
template <class F>
Tensor in_float(const Tensor& x, F&& f) {
  return is_half(x.dtype()) ? to_dtype(f(to_dtype(x, DType::f32)), x.dtype()) : f(x);
}

/// The gradient of a unary function made of public ops, so that it can be differentiated again. `v` is the input or the output (needs_of).
Tensor unary_derivative(UnaryFunction function, const Tensor& g, const Tensor& v, double p, double q);

}  // namespace cambium::detail
