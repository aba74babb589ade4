// Stable sorting of rows and the largest k of each row.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

// A total order in which NaN is greater than every number.
template <class A>
bool less(A a, A b) { return a < b || (b != b && a == a); }

// The order of a row as positions: stable, and with NaN counted as the greatest.
template <class T>
void order_row(std::vector<std::int64_t>& order, const T* row, std::int64_t take, bool descending) {
  using A = acc_t<T>;
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto before = [&](std::int64_t i, std::int64_t j) {
    const A a = convert<A>(row[i]), b = convert<A>(row[j]);
    if (descending ? less(b, a) : less(a, b)) return true;
    if (descending ? less(a, b) : less(b, a)) return false;
    return i < j;
  };
  if (take == static_cast<std::int64_t>(order.size())) std::sort(order.begin(), order.end(), before);
  else std::partial_sort(order.begin(), order.begin() + take, order.end(), before);
}

void sort_rows(Strided values, Strided indices, Strided x, bool descending) {
  const std::int64_t rows = x.shape[0], n = x.shape[1], take = values.shape[1];
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(rows, [&](std::int64_t r) {
      std::vector<std::int64_t> order(static_cast<std::size_t>(n));
      const T* row = x.as<T>() + r * n;
      order_row(order, row, take, descending);
      for (std::int64_t i = 0; i < take; ++i) {
        values.as<T>()[r * take + i] = row[order[static_cast<std::size_t>(i)]];
        indices.as<std::int64_t>()[r * take + i] = order[static_cast<std::size_t>(i)];
      }
    });
  });
}

}  // namespace

void sort(Context&, Strided values, Strided indices, Strided x, bool descending) { sort_rows(values, indices, x, descending); }

void topk(Context&, Strided values, Strided indices, Strided x) { sort_rows(values, indices, x, true); }

}  // namespace cambium::kernels::cpu
