// Reductions: sums, products, extrema, moments.
#include <cmath>
#include <limits>

#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;
using kernels::Reduction;

namespace {

// Which dimensions go, and the shapes with them kept as 1 and dropped.
struct Plan {
  bool reduced[kMaxRank] = {};
  Shape kept, dropped;
  std::int64_t count = 1;  ///< elements that become one
};

Plan plan(std::string_view what, const Tensor& x, std::span<const int> dims) {
  detail::check_defined(what, x);
  Plan p;
  for (int dim : dims) {
    const int at = normalize_dim(dim, x.rank(), what);
    check<ShapeError>(!p.reduced[at], what, ": dimension ", at, " appears twice");
    p.reduced[at] = true;
  }
  std::vector<std::int64_t> left;
  p.kept = x.shape();
  for (int i = 0; i < x.rank(); ++i) {
    if (dims.empty()) p.reduced[i] = true;
    if (p.reduced[i]) {
      p.count *= x.shape()[i];
      p.kept.set(i, 1);
    } else {
      left.push_back(x.shape()[i]);
    }
  }
  p.dropped = Shape(left);
  return p;
}

std::span<const std::int64_t> sizes(const Shape& shape) { return {shape.begin(), shape.end()}; }
std::span<const int> dims_span(std::initializer_list<int> dims) { return {dims.begin(), dims.size()}; }

// The result with reduced dimensions of size 1, without a record.
Tensor reduced(Reduction reduction, const Tensor& x, const Plan& p) {
  Tensor out = empty(p.kept, x.dtype(), x.device());
  Run run(x);
  run->reduce(run.context, reduction, out.view(), x.view());
  return out;
}

Tensor finished(const Tensor& kept, const Plan& p, bool keepdim) { return keepdim ? kept : reshape(kept, sizes(p.dropped)); }

void check_elements(std::string_view what, const Tensor& x, const Plan& p) {
  check<ShapeError>(p.count > 0, what, ": no elements to choose from in ", x.shape());
}

Tensor extreme_over(std::string_view name, Reduction reduction, const Tensor& x, std::span<const int> dims, bool keepdim) {
  const Plan p = plan(name, x, dims);
  check_elements(name, x, p);
  const Tensor kept = record(name, reduced(reduction, x, p)).wrt(x, [x = saved(x), d = std::vector<int>(dims.begin(), dims.end())](const Tensor& g, const Tensor& out) {
    const Tensor ties = to_dtype(equal(x.get(), detail::alias(out, out.layout().broadcast_to(x.get().shape()))), g.dtype());
    return mul(div(g, sum(ties, std::span<const int>(d), true)), ties);
  });
  return finished(kept, p, keepdim);
}

// Products of all entries before (after) each one along the last dimension, by doubling: right with any number of zeros, to any order.
Tensor products_of_others(const Tensor& x, bool before) {
  const std::int64_t n = x.size(-1);
  Tensor p = before ? pad(slice(x, -1, 0, n - 1), 1, 0, -1, 1.0) : pad(slice(x, -1, 1, n), 0, 1, -1, 1.0);
  for (std::int64_t reach = 1; reach < n; reach *= 2)
    p = mul(p, before ? pad(slice(p, -1, 0, n - reach), reach, 0, -1, 1.0) : pad(slice(p, -1, reach, n), 0, reach, -1, 1.0));
  return p;
}

Tensor prod_gradient(const Tensor& g, const Tensor& x, const Plan& p) {
  if (x.count() == 0) return zeros(x.shape(), x.dtype(), x.device());
  // Reduced dimensions to the end and folded into one, then back.
  std::vector<int> order, inverse(static_cast<std::size_t>(x.rank()));
  for (bool last : {false, true})
    for (int i = 0; i < x.rank(); ++i)
      if (p.reduced[i] == last) order.push_back(i);
  for (std::size_t i = 0; i < order.size(); ++i) inverse[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
  const Tensor moved = detail::permute_by(x, order), rows = reshape(moved, {p.dropped.count(), p.count});
  const Tensor others = detail::permute_by(reshape(mul(products_of_others(rows, true), products_of_others(rows, false)), sizes(moved.shape())), inverse);
  return mul(others, g);
}

Tensor as_wide_integer(const Tensor& x) { return is_float(x.dtype()) || x.dtype() == DType::i64 ? x : to_dtype(x, DType::i64); }

}  // namespace

Tensor sum(const Tensor& input, std::span<const int> dims, bool keepdim) {
  const Plan p = plan("sum", input, dims);
  const Tensor x = as_wide_integer(input);
  const Tensor kept = record("sum", reduced(Reduction::sum, x, p)).wrt(x, [from = x.shape()](const Tensor& g) { return broadcast_to(g, from); });
  return finished(kept, p, keepdim);
}

Tensor sum(const Tensor& x, std::initializer_list<int> dims, bool keepdim) { return sum(x, dims_span(dims), keepdim); }

Tensor mean(const Tensor& x, std::initializer_list<int> dims, bool keepdim) {
  detail::check_float("mean", x);
  const Plan p = plan("mean", x, dims_span(dims));
  return detail::in_float(x, [&](const Tensor& y) { return div(sum(y, dims, keepdim), static_cast<double>(p.count)); });
}

Tensor prod(const Tensor& input, std::initializer_list<int> dims, bool keepdim) {
  const Plan p = plan("prod", input, dims_span(dims));
  const Tensor x = as_wide_integer(input);
  const Tensor kept = record("prod", reduced(Reduction::product, x, p)).wrt(x, [x = saved(x), p](const Tensor& g) { return prod_gradient(g, x.get(), p); });
  return finished(kept, p, keepdim);
}

Tensor amax(const Tensor& x, std::initializer_list<int> dims, bool keepdim) { return extreme_over("amax", Reduction::maximum, x, dims_span(dims), keepdim); }
Tensor amin(const Tensor& x, std::initializer_list<int> dims, bool keepdim) { return extreme_over("amin", Reduction::minimum, x, dims_span(dims), keepdim); }
Tensor max(const Tensor& x) { return extreme_over("max", Reduction::maximum, x, {}, false); }
Tensor min(const Tensor& x) { return extreme_over("min", Reduction::minimum, x, {}, false); }

Tensor var(const Tensor& x, std::initializer_list<int> dims, double correction, bool keepdim) {
  detail::check_float("var", x);
  const Plan p = plan("var", x, dims_span(dims));
  const double divisor = static_cast<double>(p.count) - correction;
  check<ShapeError>(divisor > 0.0, "var: ", p.count, " elements leave nothing to divide by with correction ", correction);
  return detail::in_float(x, [&](const Tensor& y) {
    return div(sum(square(sub(y, div(sum(y, dims, true), static_cast<double>(p.count)))), dims, keepdim), divisor);
  });
}

Tensor stddev(const Tensor& x, std::initializer_list<int> dims, double correction, bool keepdim) {
  return detail::in_float(x, [&](const Tensor& y) { return sqrt(var(y, dims, correction, keepdim)); });
}

Tensor norm(const Tensor& input, std::initializer_list<int> dims, bool keepdim) {
  detail::check_float("norm", input);
  const Plan p = plan("norm", input, dims_span(dims));
  return detail::in_float(input, [&](const Tensor& x) {
    Tensor out;
    {
      NoGrad no_grad;
      out = sqrt(reduced(Reduction::sum, square(x), p));
    }
    const Tensor kept = record("norm", std::move(out)).wrt(x, [x = saved(x)](const Tensor& g, const Tensor& length) {
      // Where the length is 0 so is x, and dividing by 1 gives 0.
      return mul(x.get(), div(g, masked_fill(length, equal(length, 0.0), 1.0)));
    });
    return finished(kept, p, keepdim);
  });
}

Tensor logsumexp(const Tensor& input, std::initializer_list<int> dims, bool keepdim) {
  detail::check_float("logsumexp", input);
  const Plan p = plan("logsumexp", input, dims_span(dims));
  check_elements("logsumexp", input, p);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  return detail::in_float(input, [&](const Tensor& x) {
    Tensor out;
    {
      NoGrad no_grad;
      Tensor largest = reduced(Reduction::maximum, x, p);
      largest = masked_fill(largest, equal(abs(largest), infinity), 0.0);
      out = add(log(reduced(Reduction::sum, exp(sub(x, largest)), p)), largest);
    }
    const Tensor kept = record("logsumexp", std::move(out)).wrt(x, [x = saved(x)](const Tensor& g, const Tensor& total) {
      // A row of minus infinities has weights of 0, not 0 / 0.
      return mul(exp(sub(x.get(), masked_fill(total, equal(total, -std::numeric_limits<double>::infinity()), 0.0))), g);
    });
    return finished(kept, p, keepdim);
  });
}

}  // namespace cambium
