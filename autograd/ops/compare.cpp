// Comparisons, logic, and choice by a mask.
#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;
using kernels::Comparison;

namespace {

Tensor compare_views(Comparison comparison, const Tensor& a, const Tensor& b) {
  Tensor out = empty(a.shape(), DType::boolean, a.device());
  Run run(a);
  run->compare(run.context, comparison, out.view(), a.view(), b.view());
  return out;
}

Tensor repeated(const Tensor& x, const Shape& shape) { return detail::alias(x, x.layout().broadcast_to(shape)); }

Tensor compare(std::string_view name, Comparison comparison, const Tensor& a, const Tensor& b) {
  detail::check_alike(name, a, b);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  return compare_views(comparison, repeated(a, shape), repeated(b, shape));
}

Tensor compare(std::string_view name, Comparison comparison, const Tensor& a, double b) {
  detail::check_defined(name, a);
  return compare_views(comparison, a, detail::repeated_scalar(name, b, a, a.shape()));
}

Tensor logic(std::string_view name, Comparison comparison, const Tensor& a, const Tensor& b) {
  detail::check_bool(name, a);
  detail::check_bool(name, b);
  return compare(name, comparison, a, b);
}

// The largest (any) or smallest (all) of the bytes of a bool tensor.
double extreme_bit(std::string_view name, kernels::Reduction reduction, const Tensor& x) {
  detail::check_bool(name, x);
  if (x.count() == 0) return reduction == kernels::Reduction::maximum ? 0.0 : 1.0;
  Shape one = x.shape();
  for (int i = 0; i < one.rank(); ++i) one.set(i, 1);
  const Tensor out = empty(one, DType::boolean, x.device());
  Run run(x);
  run->reduce(run.context, reduction, out.view(), x.view());
  return out.item();
}

}  // namespace

Tensor equal(const Tensor& a, const Tensor& b) { return compare("equal", Comparison::equal, a, b); }
Tensor not_equal(const Tensor& a, const Tensor& b) { return compare("not_equal", Comparison::not_equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return compare("less", Comparison::less, a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) { return compare("less_equal", Comparison::less_equal, a, b); }
Tensor greater(const Tensor& a, const Tensor& b) { return compare("greater", Comparison::greater, a, b); }
Tensor greater_equal(const Tensor& a, const Tensor& b) { return compare("greater_equal", Comparison::greater_equal, a, b); }
Tensor equal(const Tensor& a, double b) { return compare("equal", Comparison::equal, a, b); }
Tensor not_equal(const Tensor& a, double b) { return compare("not_equal", Comparison::not_equal, a, b); }
Tensor less(const Tensor& a, double b) { return compare("less", Comparison::less, a, b); }
Tensor less_equal(const Tensor& a, double b) { return compare("less_equal", Comparison::less_equal, a, b); }
Tensor greater(const Tensor& a, double b) { return compare("greater", Comparison::greater, a, b); }
Tensor greater_equal(const Tensor& a, double b) { return compare("greater_equal", Comparison::greater_equal, a, b); }
Tensor logical_and(const Tensor& a, const Tensor& b) { return logic("logical_and", Comparison::logical_and, a, b); }
Tensor logical_or(const Tensor& a, const Tensor& b) { return logic("logical_or", Comparison::logical_or, a, b); }
Tensor logical_xor(const Tensor& a, const Tensor& b) { return logic("logical_xor", Comparison::logical_xor, a, b); }

Tensor logical_not(const Tensor& a) {
  detail::check_bool("logical_not", a);
  return equal(a, 0.0);
}

Tensor where(const Tensor& condition, const Tensor& left, const Tensor& right) {
  detail::check_bool("where", condition);
  detail::check_alike("where", left, right);
  detail::check_same_device("where", condition, left);
  const Shape shape = broadcast_shapes(broadcast_shapes(left.shape(), right.shape(), "where"), condition.shape(), "where");
  const Tensor mask = repeated(condition, shape), a = broadcast_to(left, shape), b = broadcast_to(right, shape);
  Tensor out = empty(shape, a.dtype(), a.device());
  Run run(a);
  run->where(run.context, out.view(), mask.view(), a.view(), b.view());
  return record("where", std::move(out))
      .wrt(a, [mask = saved(mask)](const Tensor& g) { return where(mask.get(), g, scalar(0.0, g.dtype(), g.device())); })
      .wrt(b, [mask = saved(mask)](const Tensor& g) { return masked_fill(g, mask.get(), 0.0); });
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  detail::check_bool("masked_fill", mask);
  detail::check_same_device("masked_fill", x, mask);
  check<ShapeError>(broadcast_shapes(x.shape(), mask.shape(), "masked_fill") == x.shape(), "masked_fill: the mask ", mask.shape(),
                    " does not broadcast to ", x.shape());
  const Tensor wide = repeated(mask, x.shape());
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Run run(x);
  run->where(run.context, out.view(), wide.view(), detail::repeated_scalar("masked_fill", value, x, x.shape()).view(), x.view());
  return record("masked_fill", std::move(out)).wrt(x, [wide = saved(wide)](const Tensor& g) { return masked_fill(g, wide.get(), 0.0); });
}

bool any(const Tensor& x) { return extreme_bit("any", kernels::Reduction::maximum, x) != 0.0; }
bool all(const Tensor& x) { return extreme_bit("all", kernels::Reduction::minimum, x) != 0.0; }
bool all_finite(const Tensor& x) { return count_not_finite(x) == 0; }

std::int64_t count_not_finite(const Tensor& x) {
  detail::check_float("count_not_finite", x);
  const Tensor out = empty({1}, DType::i64, x.device());
  Run run(x);
  run->count_not_finite(run.context, out.view(), x.view());
  return static_cast<std::int64_t>(out.item());
}

}  // namespace cambium
