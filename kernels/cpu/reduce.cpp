// Sums, products, extrema over any dimensions, positions of extrema, and cumulative sums.
#include <cmath>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

template <class A>
A combine(Reduction reduction, A a, A b) {
  switch (reduction) {
    case Reduction::sum: return a + b;
    case Reduction::product: return a * b;
    case Reduction::maximum: return a > b || a != a ? a : b;
    case Reduction::minimum: return a < b || a != a ? a : b;
  }
  return a;
}

template <class T, class A>
A reduce_tree(Reduction reduction, const Strided& x, const T* base, std::int64_t begin, std::int64_t end) {
  if (end - begin <= 16) {
    A value = convert<A>(base[offset_of(x, begin)]);
    for (std::int64_t i = begin + 1; i < end; ++i) value = combine(reduction, value, convert<A>(base[offset_of(x, i)]));
    return value;
  }
  const std::int64_t middle = begin + (end - begin) / 2;
  return combine(reduction, reduce_tree<T, A>(reduction, x, base, begin, middle), reduce_tree<T, A>(reduction, x, base, middle, end));
}

}  // namespace

void reduce(Context& context, Reduction reduction, Strided out, Strided x) {
  if (x.count() == 0) return fill(context, out, reduction == Reduction::product ? 1.0 : 0.0);
  Strided reduced = x, kept = x;
  for (int i = 0; i < x.rank; ++i) (out.shape[i] == 1 ? kept : reduced).shape[i] = 1;
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const ConvertRow store = convert_row(out.dtype, dtype_of<A>);
    parallel_for(out.count(), [&](std::int64_t i) {
      const A value = reduce_tree<T, A>(reduction, reduced, x.as<T>() + offset_of(kept, i), 0, reduced.count());
      store(static_cast<std::byte*>(out.data) + offset_of(out, i) * item_size(out.dtype), 1, &value, 1, 1);
    });
  });
}

void arg_reduce(Context&, Reduction reduction, Strided out, Strided x, int dim) {
  Strided rows = x;
  rows.shape[dim] = 1;
  const std::int64_t n = x.shape[dim], step = x.strides[dim];
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(rows.count(), [&](std::int64_t r) {
      const T* row = x.as<T>() + offset_of(rows, r);
      std::int64_t best = 0;
      A value = convert<A>(row[0]);
      for (std::int64_t i = 1; i < n && value == value; ++i) {
        const A candidate = convert<A>(row[i * step]);
        if (candidate != candidate || (reduction == Reduction::maximum ? candidate > value : candidate < value)) {
          value = candidate;
          best = i;
        }
      }
      out.as<std::int64_t>()[offset_of(out, r)] = best;
    });
  });
}

void cumsum(Context&, Strided out, Strided x, int dim, bool reverse) {
  Strided rows = x;
  rows.shape[dim] = 1;
  Strided out_rows = out;
  out_rows.shape[dim] = 1;
  const std::int64_t n = x.shape[dim];
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const ConvertRow store = convert_row(out.dtype, dtype_of<A>);
    parallel_for(rows.count(), [&](std::int64_t r) {
      const T* row = x.as<T>() + offset_of(rows, r);
      std::byte* o = static_cast<std::byte*>(out.data) + offset_of(out_rows, r) * item_size(out.dtype);
      A sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int64_t i = reverse ? n - 1 - j : j;
        sum += convert<A>(row[i * x.strides[dim]]);
        store(o + i * out.strides[dim] * item_size(out.dtype), 1, &sum, 1, 1);
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
