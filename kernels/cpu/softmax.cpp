// Softmax and log-softmax of rows and their backward.
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/softmax.h"
#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {

void softmax_forward(Context&, Strided y, Strided x, bool logarithm) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (is_vector_type(x.dtype)) {
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      isa().softmax->forward(element_of(x.dtype), element(y, begin * n), element(x, begin * n), end - begin, n, logarithm);
    });
  }
  visit_float(x.dtype, "softmax", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(rows, [&](std::int64_t r) {
      const T* row = x.as<T>() + r * n;
      T* out = y.as<T>() + r * n;
      A top = -std::numeric_limits<A>::infinity();
      for (std::int64_t i = 0; i < n; ++i) top = std::max(top, convert<A>(row[i]));
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(std::exp(convert<A>(row[i]) - top));
      const A log_sum = static_cast<A>(std::log(sum)), inverse = static_cast<A>(1.0 / sum);
      for (std::int64_t i = 0; i < n; ++i) {
        const A shifted = convert<A>(row[i]) - top;
        out[i] = convert<T>(logarithm ? shifted - log_sum : std::exp(shifted) * inverse);
      }
    });
  });
}

void softmax_backward(Context&, Strided dx, Strided g, Strided y, bool logarithm) {
  const std::int64_t rows = y.shape[0], n = y.shape[1];
  if (is_vector_type(y.dtype)) {
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      isa().softmax->backward(element_of(y.dtype), element(dx, begin * n), element(g, begin * n), element(y, begin * n), end - begin, n, logarithm);
    });
  }
  visit_float(y.dtype, "softmax_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(rows, [&](std::int64_t r) {
      const T *upstream = g.as<T>() + r * n, *value = y.as<T>() + r * n;
      T* out = dx.as<T>() + r * n;
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i)
        sum += static_cast<double>(logarithm ? convert<A>(upstream[i]) : convert<A>(upstream[i]) * convert<A>(value[i]));
      const A total = static_cast<A>(sum);
      for (std::int64_t i = 0; i < n; ++i) {
        const A gi = convert<A>(upstream[i]), yi = convert<A>(value[i]);
        out[i] = convert<T>(logarithm ? gi - std::exp(yi) * total : yi * (gi - total));
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
