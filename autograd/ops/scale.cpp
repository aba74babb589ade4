// scale_features.
#include "autograd/ops/scale.h"

#include "autograd/ops.h"
#include "autograd/ops/helpers.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::alias;
using detail::dense_as;
using detail::Run;

// a f in a's type, computed in the wider one, without a record.
Tensor product(const Tensor& a, const Tensor& f) {
  const DType wide = item_size(f.dtype()) > item_size(a.dtype()) ? f.dtype() : a.dtype();
  const Tensor from = a.dtype() == wide ? a : dense_as(a, wide), factor = dense_as(f, wide);
  Tensor out = empty(a.shape(), wide, a.device());
  Run run(a);
  run->binary(run.context, kernels::BinaryFunction::mul, out.view(), from.view(), alias(factor, factor.layout().broadcast_to(a.shape())).view());
  return dense_as(out, a.dtype());
}

// Sum of g x over all but the last dimension: the gradient of a norm's weight where nothing was divided.
Tensor column_products(const Tensor& g, const Tensor& x, DType dtype) {
  const DType sums = detail::accumulator(x.dtype());
  const Tensor a = detail::as_rows(dense_as(g, sums)), b = detail::as_rows(dense_as(x, sums));
  Tensor out = empty({b.shape()[1]}, sums, x.device());
  const Tensor ones_of_rows = full({b.shape()[0]}, 1.0, sums, x.device());
  Run run(x);
  run->rms_norm_backward(run.context, {}, out.view(), a.view(), b.view(), ones_of_rows.view(), {});
  return dense_as(out, dtype);
}

}  // namespace

Tensor scale_features(const Tensor& x, const Tensor& f) {
  constexpr std::string_view op = "scale_features";
  detail::check_float(op, "the input", x);
  detail::check_float(op, "the factor", f);
  detail::check_same_device(op, x, f);
  check<DTypeError>(f.dtype() == x.dtype() || (f.dtype() == DType::f32 && item_size(x.dtype()) == 2), op, ": a factor of ", f.dtype(), " beside an input of ", x.dtype(),
                    ": it must be of the input's type, or float32 beside a 16-bit input");
  check<ShapeError>(x.rank() >= 1 && f.shape() == Shape{x.shape()[-1]}, op, ": expected input (…, N) and factor (N), found ", x.shape(), " and ", f.shape());
  Tensor out = product(x, f);
  return record(op, std::move(out))
      .wrt(x, [f = saved(f)](const Tensor& g) { return grad_enabled() ? to_dtype(mul(to_dtype(g, f.get().dtype()), f.get()), g.dtype()) : product(g, f.get()); })
      .wrt(f, [x = saved(x), shape = f.shape(), dtype = f.dtype()](const Tensor& g) {
        if (!grad_enabled()) return column_products(g, x.get(), dtype);
        const Tensor whole = mul(to_dtype(g, dtype), to_dtype(x.get(), dtype));
        return sum(reshape(whole, {-1, shape[0]}), {0});
      });
}

}  // namespace cambium
