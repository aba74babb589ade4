// qr and svd: values only; a derivative through them is refused by name.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

void check_matrix(std::string_view op, const Tensor& x) {
  check<StateError>(x.defined(), op, ": the input is undefined");
  check<DTypeError>(x.dtype() == DType::f32 || x.dtype() == DType::f64, op, ": the matrix must be float32 or float64, found ", x.dtype());
  check<ShapeError>(x.rank() == 2 && x.count() > 0, op, ": expected a matrix that is not empty, found shape ", x.shape());
  check<StateError>(!needs_grad(x), op, ": has no gradient: detach() the input or use it under NoGrad");
}

}  // namespace

QrResult qr(const Tensor& x) {
  check_matrix("qr", x);
  const std::int64_t m = x.shape()[0], n = x.shape()[1], k = std::min(m, n);
  QrResult result{empty({m, k}, x.dtype(), x.device()), empty({k, n}, x.dtype(), x.device())};
  const Tensor from = detail::dense(x);
  detail::Run run(x);
  run->qr(run.context, result.q.view(), result.r.view(), from.view());
  return result;
}

SvdResult svd(const Tensor& x) {
  check_matrix("svd", x);
  const std::int64_t m = x.shape()[0], n = x.shape()[1], k = std::min(m, n);
  SvdResult result{empty({m, k}, x.dtype(), x.device()), empty({k}, x.dtype(), x.device()), empty({k, n}, x.dtype(), x.device())};
  const Tensor from = detail::dense(x);
  detail::Run run(x);
  run->svd(run.context, result.u.view(), result.s.view(), result.vt.view(), from.view());
  return result;
}

}  // namespace cambium
