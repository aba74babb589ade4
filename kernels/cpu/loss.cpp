// Cross entropy of rows of logits with class weights, ignored rows and label smoothing.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/softmax.h"
#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

std::byte* row_of(const Strided& s, std::int64_t r) { return s.as<std::byte>() + r * s.shape[1] * item_size(s.dtype); }

double number_at(const Strided& s, const std::byte* base, std::int64_t i) {
  return visit_float(s.dtype, "cross_entropy", [&](auto tag) {
    using T = typename decltype(tag)::type;
    return convert<double>(reinterpret_cast<const T*>(base)[i]);
  });
}

void forward_rows(Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing, std::int64_t begin,
                  std::int64_t end) {
  const std::int64_t n = logits.shape[1];
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t target = targets.as<std::int64_t>()[r];
    const bool counts = target != ignore_index;
    double smooth = 0, value = 0;
    const double total = isa().softmax->log_sum_exp(element_of(logits.dtype), row_of(logits, r), weights.data, n, counts && smoothing > 0 ? &smooth : nullptr);
    if (counts) {
      const double weight = weights ? number_at(weights, weights.as<std::byte>(), target) : 1.0;
      value = weight * (1 - smoothing) * (total - number_at(logits, row_of(logits, r), target));
      if (smoothing > 0) value += smoothing / static_cast<double>(n) * smooth;
    }
    loss.as<float>()[r] = static_cast<float>(value);
    if (lse) lse.as<float>()[r] = static_cast<float>(total);
  }
}

void backward_rows(Strided dlogits, Strided g, Strided logits, Strided lse, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing,
                   double all_weights, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = logits.shape[1];
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t target = targets.as<std::int64_t>()[r];
    if (target == ignore_index) {
      std::memset(row_of(dlogits, r), 0, static_cast<std::size_t>(n * item_size(dlogits.dtype)));
      continue;
    }
    const double upstream = static_cast<double>(g.as<float>()[r]), weight = weights ? number_at(weights, weights.as<std::byte>(), target) : 1.0;
    const double hard = upstream * weight * (1 - smoothing), share = upstream * smoothing / static_cast<double>(n);
    isa().softmax->cross_entropy_backward(element_of(logits.dtype), row_of(dlogits, r), row_of(logits, r), weights.data, n, lse.as<float>()[r], target,
                                          static_cast<float>(hard + share * all_weights), static_cast<float>(share), static_cast<float>(hard));
  }
}

}  // namespace

void cross_entropy_forward(Context&, Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index,
                           double smoothing) {
  const std::int64_t rows = logits.shape[0], n = logits.shape[1];
  if (is_vector_type(logits.dtype)) {
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      forward_rows(loss, lse, logits, targets, weights, ignore_index, smoothing, begin, end);
    });
  }
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
  if (is_vector_type(logits.dtype)) {
    double all_weights = static_cast<double>(n);
    if (weights) {
      all_weights = 0;
      for (std::int64_t i = 0; i < n; ++i) all_weights += number_at(weights, weights.as<std::byte>(), i);
    }
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      backward_rows(dlogits, g, logits, lse, targets, weights, ignore_index, smoothing, all_weights, begin, end);
    });
  }
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
