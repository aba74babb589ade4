// Shared pieces of the fused ops.
#include "autograd/ops/support.h"

namespace cambium::detail {

Tensor dense(const Tensor& x) { return dense_as(x, x.dtype()); }

Tensor dense_as(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype && x.is_contiguous()) return x;
  Tensor out = empty(x.shape(), dtype, x.device());
  Run run(x);
  run->copy(run.context, out.view(), x.view());
  return out;
}

Tensor as_rows(const Tensor& x) {
  const Shape shape{row_count(x.shape()), x.shape()[-1]};
  if (x.shape() == shape) return x;
  if (const auto layout = x.layout().reshape(shape)) return alias(x, *layout);
  return reshaped(dense(x), shape);
}

Shape with_last(const Shape& shape, std::int64_t last) {
  Shape out = shape;
  out.set(-1, last);
  return out;
}

void check_float(std::string_view op, std::string_view name, const Tensor& x) {
  check<StateError>(x.defined(), op, ": ", name, " is undefined");
  check<DTypeError>(is_float(x.dtype()), op, ": ", name, " must be of a floating type, found ", x.dtype());
}

void check_alike(std::string_view op, std::string_view name_a, const Tensor& a, std::string_view name_b, const Tensor& b) {
  check<StateError>(a.defined() && b.defined(), op, ": ", a.defined() ? name_b : name_a, " is undefined");
  check<DTypeError>(a.dtype() == b.dtype(), op, ": ", name_a, " is ", a.dtype(), ", ", name_b, " ", b.dtype(), ": convert one with to_dtype");
  check<DeviceError>(a.device() == b.device(), op, ": ", name_a, " is on ", a.device(), ", ", name_b, " on ", b.device());
}

void check_vector(std::string_view op, std::string_view name, const Tensor& vector, std::int64_t n, const Tensor& x) {
  if (!vector.defined()) return;
  check_alike(op, "the input", x, name, vector);
  check<ShapeError>(vector.shape() == Shape{n}, op, ": ", name, " must have shape [", n, "], found ", vector.shape());
}

Tensor once(std::string_view op, Tensor result, std::span<const Tensor> inputs) {
  if (!result.defined()) return result;
  const std::string name(op);
  return record("fused backward", std::move(result)).wrt(inputs, [name](const Tensor&, Needed) -> std::vector<Tensor> {
    fail<StateError>(name, ": the second derivative is not implemented for the fused op: compose it from others");
  });
}

void multiply(const Tensor& c, const Tensor& a, const Tensor& b, double alpha, double beta, const Tensor& bias) {
  Run run(c);
  kernels::GemmOptions options{.alpha = alpha, .beta = beta};
  Tensor dense_bias;
  if (bias.defined()) {
    dense_bias = dense_as(bias, c.dtype());
    options.bias = dense_bias.view();
  }
  run->gemm(run.context, alias(c, c.layout().unsqueeze(0)).view(), alias(a, a.layout().unsqueeze(0)).view(), b.view(), options);
}

}  // namespace cambium::detail
