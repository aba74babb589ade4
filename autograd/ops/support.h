// What the fused ops share: calling a kernel, dense copies, checks with one wording, gradients that end at the first order. Internal.
#pragma once

#include <string_view>
#include <vector>

#include "autograd/record.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

namespace cambium::detail {

/// The kernels of a tensor's device and the context they run in: `Run run(x); run->copy(run.context, …)`.
struct Run {
  explicit Run(const Tensor& x) : context{x.device()}, table(&kernels::kernels_for(x.device())) {}
  const kernels::Kernels* operator->() const { return table; }
  kernels::Context context;
  const kernels::Kernels* table;
};

/// The same memory seen differently, without a record: for what happens inside one op.
inline Tensor alias(const Tensor& x, const Layout& layout) { return Tensor(x.storage(), layout, x.dtype()); }

/// x itself if it is contiguous, else a copy, without a record.
Tensor dense(const Tensor& x);
/// A contiguous tensor of another dtype, without a record; x itself if it has it and is contiguous.
Tensor dense_as(const Tensor& x, DType dtype);
/// x (…, N) as (R, N): by strides where they allow, else a copy; without a record.
Tensor as_rows(const Tensor& x);
/// A contiguous tensor under another shape with as many elements.
inline Tensor reshaped(const Tensor& x, const Shape& shape) { return alias(x, Layout{shape, Layout::contiguous(shape).strides, x.layout().offset}); }

/// Dense view of a tensor, absent for an undefined one.
inline kernels::Strided optional_view(const Tensor& x) { return x.defined() ? x.view() : kernels::Strided{}; }

/// The type sums over `dtype` are kept in: float64 for float64, else float32.
inline DType accumulator(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// shape with its last size replaced.
Shape with_last(const Shape& shape, std::int64_t last);
/// Product of all sizes but the last.
inline std::int64_t row_count(const Shape& shape) {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < shape.rank(); ++i) rows *= shape[i];
  return rows;
}

void check_float(std::string_view op, std::string_view name, const Tensor& x);
/// Same dtype and device.
void check_alike(std::string_view op, std::string_view name_a, const Tensor& a, std::string_view name_b, const Tensor& b);
/// A vector of n entries like x, or undefined.
void check_vector(std::string_view op, std::string_view name, const Tensor& vector, std::int64_t n, const Tensor& x);

/// Result of a fused backward kernel: when the backward pass itself is recorded, a derivative through it fails by name.
Tensor once(std::string_view op, Tensor result, std::span<const Tensor> inputs);
inline Tensor once(std::string_view op, Tensor result, std::initializer_list<Tensor> inputs) {
  return once(op, std::move(result), std::span(inputs.begin(), inputs.size()));
}

/// C (R, N) = alpha A (R, K) B (K, N) + beta C + bias by strides, without a record.
void multiply(const Tensor& c, const Tensor& a, const Tensor& b, double alpha = 1.0, double beta = 0.0, const Tensor& bias = {});
/// (N, M) of (M, N), without a record.
inline Tensor transposed(const Tensor& x) { return alias(x, x.layout().transpose(-2, -1)); }

}  // namespace cambium::detail
