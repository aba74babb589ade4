// Positions of extrema, sorting, the largest k, cumulative sums.
#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;
using kernels::Reduction;

namespace {

// Index of the extreme along dim, with that dimension kept as 1.
Tensor positions(std::string_view what, Reduction reduction, const Tensor& x, int dim) {
  detail::check_defined(what, x);
  const int at = normalize_dim(dim, x.rank(), what);
  check<ShapeError>(x.shape()[at] > 0, what, ": no elements to choose from in ", x.shape());
  Shape shape = x.shape();
  shape.set(at, 1);
  Tensor out = empty(shape, DType::i64, x.device());
  Run run(x);
  run->arg_reduce(run.context, reduction, out.view(), x.view(), at);
  return out;
}

ValuesAndIndices extreme(std::string_view what, Reduction reduction, const Tensor& x, int dim, bool keepdim) {
  const Tensor indices = positions(what, reduction, x, dim);
  const Tensor values = gather(x, dim, indices);
  if (keepdim) return {values, indices};
  return {squeeze(values, dim), squeeze(indices, dim)};
}

// The rows of x along dim, ordered by a kernel that writes `kept` values and their positions.
template <class F>
ValuesAndIndices ordered(std::string_view what, const Tensor& x, int dim, std::int64_t kept, F&& kernel) {
  const Tensor last = contiguous(transpose(x, dim, -1));
  const std::int64_t n = last.size(-1), count = n == 0 ? 0 : last.count() / n;
  Shape shape = last.shape();
  shape.set(-1, kept);
  const Tensor rows = reshape(last, {count, n});
  Tensor values = empty({count, kept}, x.dtype(), x.device()), indices = empty({count, kept}, DType::i64, x.device());
  kernel(values, indices, rows);
  const Tensor recorded = record(what, std::move(values)).wrt(rows, [indices, n, count](const Tensor& g) {
    return scatter_add(zeros({count, n}, g.dtype(), g.device()), 1, indices, g);
  });
  const auto placed = [&](const Tensor& t) { return transpose(reshape(t, std::span(shape.begin(), shape.end())), dim, -1); };
  return {placed(recorded), placed(indices)};
}

Tensor cumulative(const Tensor& x, int dim, bool reverse) {
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Run run(x);
  run->cumsum(run.context, out.view(), x.view(), dim, reverse);
  return record("cumsum", std::move(out)).wrt(x, [dim, reverse](const Tensor& g) { return cumulative(g, dim, !reverse); });
}

}  // namespace

ValuesAndIndices max(const Tensor& x, int dim, bool keepdim) { return extreme("max", Reduction::maximum, x, dim, keepdim); }
ValuesAndIndices min(const Tensor& x, int dim, bool keepdim) { return extreme("min", Reduction::minimum, x, dim, keepdim); }

Tensor argmax(const Tensor& x, int dim, bool keepdim) {
  const Tensor out = positions("argmax", Reduction::maximum, x, dim);
  return keepdim ? out : squeeze(out, dim);
}

Tensor argmin(const Tensor& x, int dim, bool keepdim) {
  const Tensor out = positions("argmin", Reduction::minimum, x, dim);
  return keepdim ? out : squeeze(out, dim);
}

Tensor cumsum(const Tensor& x, int dim) {
  detail::check_defined("cumsum", x);
  check<DTypeError>(x.dtype() != DType::boolean, "cumsum: expected numbers, found bool");
  return cumulative(x, normalize_dim(dim, x.rank(), "cumsum"), false);
}

ValuesAndIndices sort(const Tensor& x, int dim, bool descending) {
  detail::check_defined("sort", x);
  const std::int64_t n = x.size(dim);
  return ordered("sort", x, dim, n, [descending](const Tensor& values, const Tensor& indices, const Tensor& rows) {
    Run run(rows);
    run->sort(run.context, values.view(), indices.view(), rows.view(), descending);
  });
}

ValuesAndIndices topk(const Tensor& x, std::int64_t k, int dim) {
  detail::check_defined("topk", x);
  check<ShapeError>(k >= 0 && k <= x.size(dim), "topk: k is ", k, ", the dimension has ", x.size(dim), " elements");
  return ordered("topk", x, dim, k, [](const Tensor& values, const Tensor& indices, const Tensor& rows) {
    Run run(rows);
    run->topk(run.context, values.view(), indices.view(), rows.view());
  });
}

}  // namespace cambium
