// Layer normalisation (Ba et al. 2016, arXiv 1607.06450) and RMS normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/norm.h"
#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

template <class T> acc_t<T> value_or_one(const Strided& gamma, std::int64_t i) {
  return gamma ? convert<acc_t<T>>(gamma.as<T>()[i]) : acc_t<T>(1);
}

constexpr std::int64_t kBlockRows = 32;     // rows whose sums for gamma and beta are added up before the tree over the blocks
constexpr std::int64_t kTreeColumns = 512;  // columns per task of that tree

float* statistic(const Strided& s, std::int64_t row) { return s ? s.as<float>() + row : nullptr; }

// Backward in blocks of rows: `block(begin, rows, dgamma, dbeta)` writes the block's sums, which are then added by a tree over the blocks.
template <class F>
void backward_in_blocks(Strided dgamma, Strided dbeta, std::int64_t rows, std::int64_t n, F&& block) {
  const std::int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  std::vector<float> gamma_sums(static_cast<std::size_t>(dgamma ? blocks * n : 0)), beta_sums(static_cast<std::size_t>(dbeta ? blocks * n : 0));
  parallel_for(blocks, [&](std::int64_t b) {
    block(b * kBlockRows, std::min(kBlockRows, rows - b * kBlockRows), dgamma ? gamma_sums.data() + b * n : nullptr, dbeta ? beta_sums.data() + b * n : nullptr);
  });
  if (!dgamma && !dbeta) return;
  parallel_ranges(n, kTreeColumns, [&](std::int64_t begin, std::int64_t end) {
    if (dgamma) isa().norm->sum_blocks(element_of(dgamma.dtype), element(dgamma, begin), gamma_sums.data() + begin, blocks, n, end - begin);
    if (dbeta) isa().norm->sum_blocks(element_of(dbeta.dtype), element(dbeta, begin), beta_sums.data() + begin, blocks, n, end - begin);
  });
}

}  // namespace

void layer_norm_forward(Context&, Strided y, Strided mean, Strided rstd, Strided x, Strided gamma, Strided beta, double epsilon) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (is_vector_type(x.dtype)) {
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      isa().norm->layer_forward(element_of(x.dtype), element(y, begin * n), statistic(mean, begin), statistic(rstd, begin), element(x, begin * n), gamma.data,
                                beta.data, end - begin, n, static_cast<float>(epsilon));
    });
  }
  visit_float(x.dtype, "layer_norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(rows, [&](std::int64_t r) {
      const T* row = x.as<T>() + r * n;
      double sum = 0, squares = 0;
      for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(convert<A>(row[i]));
      const double mu = sum / static_cast<double>(n);
      for (std::int64_t i = 0; i < n; ++i) {
        const double d = static_cast<double>(convert<A>(row[i])) - mu;
        squares += d * d;
      }
      const A m = static_cast<A>(mu), s = static_cast<A>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
      for (std::int64_t i = 0; i < n; ++i) {
        const A shift = beta ? convert<A>(beta.as<T>()[i]) : A(0);
        y.as<T>()[r * n + i] = convert<T>((convert<A>(row[i]) - m) * s * value_or_one<T>(gamma, i) + shift);
      }
      if (mean) mean.as<A>()[r] = m;
      if (rstd) rstd.as<A>()[r] = s;
    });
  });
}

void layer_norm_backward(Context&, Strided dx, Strided dgamma, Strided dbeta, Strided g, Strided x, Strided mean, Strided rstd, Strided gamma) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (is_vector_type(x.dtype)) {
    return backward_in_blocks(dgamma, dbeta, rows, n, [&](std::int64_t begin, std::int64_t count, float* gamma_sums, float* beta_sums) {
      isa().norm->layer_backward(element_of(x.dtype), element(dx, begin * n), gamma_sums, beta_sums, element(g, begin * n), element(x, begin * n),
                                 statistic(mean, begin), statistic(rstd, begin), gamma.data, count, n);
    });
  }
  visit_float(x.dtype, "layer_norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const auto hat = [&](std::int64_t r, std::int64_t i) { return (convert<A>(x.as<T>()[r * n + i]) - mean.as<A>()[r]) * rstd.as<A>()[r]; };
    if (dx) parallel_for(rows, [&](std::int64_t r) {
      double sum = 0, product = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const A d = convert<A>(g.as<T>()[r * n + i]) * value_or_one<T>(gamma, i);
        sum += static_cast<double>(d);
        product += static_cast<double>(d * hat(r, i));
      }
      const A c1 = static_cast<A>(sum / static_cast<double>(n)), c2 = static_cast<A>(product / static_cast<double>(n));
      for (std::int64_t i = 0; i < n; ++i) {
        const A d = convert<A>(g.as<T>()[r * n + i]) * value_or_one<T>(gamma, i);
        dx.as<T>()[r * n + i] = convert<T>((d - c1 - hat(r, i) * c2) * rstd.as<A>()[r]);
      }
    });
    if (dgamma || dbeta) parallel_for(n, [&](std::int64_t i) {
      double scale = 0, shift = 0;
      for (std::int64_t r = 0; r < rows; ++r) {
        const A d = convert<A>(g.as<T>()[r * n + i]);
        scale += static_cast<double>(d * hat(r, i));
        shift += static_cast<double>(d);
      }
      if (dgamma) dgamma.as<T>()[i] = convert<T>(static_cast<A>(scale));
      if (dbeta) dbeta.as<T>()[i] = convert<T>(static_cast<A>(shift));
    });
  });
}

void rms_norm_forward(Context&, Strided y, Strided rstd, Strided x, Strided gamma, double epsilon) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (is_vector_type(x.dtype)) {
    return parallel_ranges(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      isa().norm->rms_forward(element_of(x.dtype), element(y, begin * n), statistic(rstd, begin), element(x, begin * n), gamma.data, end - begin, n,
                              static_cast<float>(epsilon));
    });
  }
  visit_float(x.dtype, "rms_norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(rows, [&](std::int64_t r) {
      double squares = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const double v = static_cast<double>(convert<A>(x.as<T>()[r * n + i]));
        squares += v * v;
      }
      const A s = static_cast<A>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
      for (std::int64_t i = 0; i < n; ++i) y.as<T>()[r * n + i] = convert<T>(convert<A>(x.as<T>()[r * n + i]) * s * value_or_one<T>(gamma, i));
      if (rstd) rstd.as<A>()[r] = s;
    });
  });
}

void rms_norm_backward(Context&, Strided dx, Strided dgamma, Strided g, Strided x, Strided rstd, Strided gamma) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (is_vector_type(x.dtype)) {
    return backward_in_blocks(dgamma, {}, rows, n, [&](std::int64_t begin, std::int64_t count, float* gamma_sums, float*) {
      isa().norm->rms_backward(element_of(x.dtype), element(dx, begin * n), gamma_sums, element(g, begin * n), element(x, begin * n), statistic(rstd, begin),
                               gamma.data, count, n);
    });
  }
  visit_float(x.dtype, "rms_norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const auto hat = [&](std::int64_t r, std::int64_t i) { return convert<A>(x.as<T>()[r * n + i]) * rstd.as<A>()[r]; };
    if (dx) parallel_for(rows, [&](std::int64_t r) {
      double product = 0;
      for (std::int64_t i = 0; i < n; ++i) product += static_cast<double>(convert<A>(g.as<T>()[r * n + i]) * value_or_one<T>(gamma, i) * hat(r, i));
      const A c = static_cast<A>(product / static_cast<double>(n));
      for (std::int64_t i = 0; i < n; ++i) {
        const A d = convert<A>(g.as<T>()[r * n + i]) * value_or_one<T>(gamma, i);
        dx.as<T>()[r * n + i] = convert<T>((d - hat(r, i) * c) * rstd.as<A>()[r]);
      }
    });
    if (dgamma) parallel_for(n, [&](std::int64_t i) {
      double scale = 0;
      for (std::int64_t r = 0; r < rows; ++r) scale += static_cast<double>(convert<A>(g.as<T>()[r * n + i]) * hat(r, i));
      dgamma.as<T>()[i] = convert<T>(static_cast<A>(scale));
    });
  });
}

}  // namespace cambium::kernels::cpu
