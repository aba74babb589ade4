// softmax and log_softmax over any dimension.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::dense;
using detail::reshaped;
using detail::Run;

Tensor last_dim_softmax(const Tensor& x, bool logarithm) {
  const Shape matrix{detail::row_count(x.shape()), x.shape()[-1]};
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Run run(x);
  const Tensor from = dense(x);
  run->softmax_forward(run.context, reshaped(out, matrix).view(), reshaped(from, matrix).view(), logarithm);
  return record(logarithm ? "log_softmax" : "softmax", out).wrt(x, [matrix, logarithm](const Tensor& g, const Tensor& y) {
    if (grad_enabled()) {  // the backward pass is being recorded: public ops give the second derivative
      if (logarithm) return g - exp(y) * sum(g, {-1}, true);
      return y * (g - sum(g * y, {-1}, true));
    }
    Tensor dx = empty(y.shape(), y.dtype(), y.device());
    Run backward_run(y);
    backward_run->softmax_backward(backward_run.context, reshaped(dx, matrix).view(), reshaped(dense(g), matrix).view(), reshaped(y, matrix).view(), logarithm);
    return dx;
  });
}

Tensor any_dim_softmax(std::string_view op, const Tensor& x, int dim, bool logarithm) {
  detail::check_float(op, "the input", x);
  check<ShapeError>(x.rank() >= 1, op, ": a scalar has no dimension to normalise");
  dim = normalize_dim(dim, x.rank(), op);
  if (dim == x.rank() - 1) return last_dim_softmax(x, logarithm);
  return transpose(last_dim_softmax(transpose(x, dim, -1), logarithm), dim, -1);
}

}  // namespace

Tensor softmax(const Tensor& x, int dim) { return any_dim_softmax("softmax", x, dim, false); }
Tensor log_softmax(const Tensor& x, int dim) { return any_dim_softmax("log_softmax", x, dim, true); }

}  // namespace cambium
