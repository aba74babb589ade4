// Work over lists of tensors: sums of squares for gradient clipping, scaling, and counting of entries that are not finite.
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {

void sum_of_squares(Context&, Strided out, const Strided* tensors, int n) {
  double total = 0;
  for (int k = 0; k < n; ++k) {
    visit_float(tensors[k].dtype, "sum_of_squares", [&](auto tag) {
      using T = typename decltype(tag)::type;
      const std::int64_t count = tensors[k].count();
      std::vector<double> parts(static_cast<std::size_t>((count + kGrain - 1) / kGrain));
      parallel_ranges(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
        double sums[8] = {};
        for (std::int64_t i = begin; i < end; ++i) {
          const double value = static_cast<double>(convert<acc_t<T>>(tensors[k].as<T>()[i]));
          sums[i & 7] += value * value;
        }
        parts[static_cast<std::size_t>(begin / kGrain)] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
      });
      for (const double part : parts) total += part;
    });
  }
  *out.as<double>() = total;
}

void scale_all(Context&, const Strided* tensors, int n, double factor) {
  for (int k = 0; k < n; ++k) {
    visit_float(tensors[k].dtype, "scale_all", [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      T* x = tensors[k].as<T>();
      parallel_ranges(tensors[k].count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) x[i] = convert<T>(convert<A>(x[i]) * static_cast<A>(factor));
      });
    });
  }
}

void count_not_finite(Context&, Strided out, Strided x) {
  std::int64_t& total = *out.as<std::int64_t>();
  total = 0;
  if (!is_float(x.dtype)) return;
  visit_float(x.dtype, "count_not_finite", [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (std::int64_t i = 0; i < x.count(); ++i) total += !std::isfinite(convert<acc_t<T>>(x.as<T>()[offset_of(x, i)]));
  });
}

}  // namespace cambium::kernels::cpu
