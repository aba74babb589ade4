// Cross entropy of rows of logits with class weights, ignored rows and label smoothing.
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {

void cross_entropy_forward(Context&, Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index,
                           double smoothing) {
  const std::int64_t rows = logits.shape[0], n = logits.shape[1];
  visit_float(logits.dtype, "cross_entropy", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const auto weight = [&](std::int64_t i) { return weights ? static_cast<double>(convert<A>(weights.as<T>()[i])) : 1.0; };
    parallel_for(rows, [&](std::int64_t r) {
      const T* row = logits.as<T>() + r * n;
      const std::int64_t target = targets.as<std::int64_t>()[r];
      A top = -std::numeric_limits<A>::infinity();
      for (std::int64_t i = 0; i < n; ++i) top = std::max(top, convert<A>(row[i]));
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(std::exp(convert<A>(row[i]) - top));
      const double total = static_cast<double>(top) + std::log(sum);
      double value = 0;
      if (target != ignore_index) {
        value = weight(target) * (1 - smoothing) * (total - static_cast<double>(convert<A>(row[target])));
        if (smoothing > 0) {
          double smooth = 0;
          for (std::int64_t i = 0; i < n; ++i) smooth += weight(i) * (total - static_cast<double>(convert<A>(row[i])));
          value += smoothing / static_cast<double>(n) * smooth;
        }
      }
      loss.as<A>()[r] = static_cast<A>(value);
      if (lse) lse.as<A>()[r] = static_cast<A>(total);
    });
  });
}

void cross_entropy_backward(Context&, Strided dlogits, Strided g, Strided logits, Strided lse, Strided targets, Strided weights,
                            std::int64_t ignore_index, double smoothing) {
  const std::int64_t rows = logits.shape[0], n = logits.shape[1];
  visit_float(logits.dtype, "cross_entropy_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const auto weight = [&](std::int64_t i) { return weights ? convert<A>(weights.as<T>()[i]) : A(1); };
    A all_weights = static_cast<A>(n);
    if (weights) {
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(weight(i));
      all_weights = static_cast<A>(sum);
    }
    const A share = static_cast<A>(smoothing / static_cast<double>(n));
    parallel_for(rows, [&](std::int64_t r) {
      const T* row = logits.as<T>() + r * n;
      T* out = dlogits.as<T>() + r * n;
      const std::int64_t target = targets.as<std::int64_t>()[r];
      if (target == ignore_index) {
        for (std::int64_t i = 0; i < n; ++i) out[i] = convert<T>(A(0));
        return;
      }
      const A upstream = g.as<A>()[r], total = lse.as<A>()[r], hard = weight(target) * static_cast<A>(1 - smoothing);
      for (std::int64_t i = 0; i < n; ++i) {
        const A p = std::exp(convert<A>(row[i]) - total);
        out[i] = convert<T>(upstream * (hard * (p - (i == target ? A(1) : A(0))) + share * (all_weights * p - weight(i))));
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
