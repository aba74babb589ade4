// linear and linear_transposed: x times a weight that is stored (N, K) or (K, N), bias added while the result is in registers.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

// Leading dimensions of x become rows; reshape keeps the graph.
Tensor rows(const Tensor& x) { return x.rank() == 2 ? x : reshape(x, {detail::row_count(x.shape()), x.shape()[-1]}); }

Tensor product(std::string_view op, const Tensor& x, const Tensor& weight, const Tensor& bias, bool is_transposed) {
  detail::check_float(op, "the input", x);
  detail::check_alike(op, "the input", x, "the weight", weight);
  check<ShapeError>(weight.rank() == 2, op, ": the weight must be a matrix, found shape ", weight.shape());
  check<ShapeError>(x.rank() >= 1 && x.shape()[-1] == weight.shape()[is_transposed ? 0 : 1], op, ": inner sizes differ: input ", x.shape(), ", weight ",
                    weight.shape(), is_transposed ? " stored (in, out)" : " stored (out, in)");
  const std::int64_t n = weight.shape()[is_transposed ? 1 : 0];
  detail::check_vector(op, "the bias", bias, n, x);
  Tensor out = empty(detail::with_last(x.shape(), n), x.dtype(), x.device());
  if (out.count() > 0) detail::multiply(detail::as_rows(out), detail::as_rows(x), is_transposed ? weight : detail::transposed(weight), 1.0, 0.0, bias);
  return out;
}

Tensor bias_gradient(const Tensor& g) { return sum(rows(g), {0}); }

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor out = product("linear", x, weight, bias, false);
  return record("linear", out)
      .wrt(x, [w = saved(weight)](const Tensor& g) { return linear_transposed(g, w.get()); })                            // dX = G W
      .wrt(weight, [x = saved(x)](const Tensor& g) { return matmul(transpose(rows(g)), rows(x.get())); })                // dW = Gᵀ X
      .wrt(bias, [](const Tensor& g) { return bias_gradient(g); });
}

Tensor linear_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor out = product("linear_transposed", x, weight, bias, true);
  return record("linear_transposed", out)
      .wrt(x, [w = saved(weight)](const Tensor& g) { return linear(g, w.get()); })                                       // dX = G Wᵀ
      .wrt(weight, [x = saved(x)](const Tensor& g) { return matmul(transpose(rows(x.get())), rows(g)); })                // dW = Xᵀ G
      .wrt(bias, [](const Tensor& g) { return bias_gradient(g); });
}

}  // namespace cambium
