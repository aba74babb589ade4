// Work over lists of tensors: sums of squares for gradient clipping, scaling, and counting of entries that are not finite.
#include <atomic>
#include <cmath>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kBuffer = 512;

struct TensorPiece {
  const Strided* tensor;
  std::int64_t begin, end;
};

// One list of work for all tensors, so that hundreds of small ones share the threads.
std::vector<TensorPiece> pieces_of(const Strided* tensors, int n) {
  std::vector<TensorPiece> pieces;
  for (int k = 0; k < n; ++k) {
    const std::int64_t count = tensors[k].count();
    for (std::int64_t begin = 0; begin < count; begin += kGrain) pieces.push_back({tensors + k, begin, std::min(count, begin + kGrain)});
  }
  return pieces;
}

template <class A>
double squares_of(const A* x, std::int64_t n) {
  constexpr std::int64_t kLanes = 8;
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (std::int64_t j = 0; i + j < n; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t j = 0; j < width; ++j) sums[j] += sums[j + width];
  return sums[0];
}

// Calls `body(values, n)` with runs of a dense tensor in the type that it is computed in; runs are of fixed length and may be written.
template <class F>
void visit_runs(const TensorPiece& piece, bool write_back, F&& body) {
  const DType dtype = piece.tensor->dtype;
  visit_float(dtype, "gradients", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const ConvertRow load = convert_row(dtype_of<A>, dtype), store = convert_row(dtype, dtype_of<A>);
    for (std::int64_t begin = piece.begin; begin < piece.end; begin += kBuffer) {
      const std::int64_t n = std::min(kBuffer, piece.end - begin);
      T* x = piece.tensor->as<T>() + begin;
      if constexpr (std::is_same_v<T, A>) {
        body(x, n);
      } else {
        A buffer[kBuffer];
        load(buffer, 1, x, 1, n);
        body(buffer, n);
        if (write_back) store(x, 1, buffer, 1, n);
      }
    }
  });
}

double sum_tree(const double* x, std::size_t n) {
  if (n <= 8) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += x[i];
    return sum;
  }
  return sum_tree(x, n / 2) + sum_tree(x + n / 2, n - n / 2);
}

}  // namespace

void sum_of_squares(Context&, Strided out, const Strided* tensors, int n) {
  const std::vector<TensorPiece> pieces = pieces_of(tensors, n);
  std::vector<double> sums(pieces.size());
  parallel_for(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t at) {
    double& sum = sums[static_cast<std::size_t>(at)];
    visit_runs(pieces[static_cast<std::size_t>(at)], false, [&](const auto* x, std::int64_t count) { sum += squares_of(x, count); });
  });
  *out.as<double>() = sum_tree(sums.data(), sums.size());
}

void scale_all(Context&, const Strided* tensors, int n, double factor) {
  const std::vector<TensorPiece> pieces = pieces_of(tensors, n);
  parallel_for(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t at) {
    visit_runs(pieces[static_cast<std::size_t>(at)], true, [&]<class A>(A* x, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) x[i] *= static_cast<A>(factor);
    });
  });
}

void count_not_finite(Context&, Strided out, Strided x) {
  std::atomic<std::int64_t> total{0};  // whole numbers: the order does not matter
  if (is_float(x.dtype)) {
    visit_float(x.dtype, "count_not_finite", [&](auto tag) {
      using T = typename decltype(tag)::type;
      for_each_row<1>({x}, [&](const auto& p, const auto& strides, std::int64_t count) {
        using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
        constexpr Bits kExponent = static_cast<Bits>(sizeof(T) == 8              ? 0x7ff0000000000000U
                                                     : sizeof(T) == 4            ? 0x7f800000U
                                                     : std::is_same_v<T, float16> ? 0x7c00U
                                                                                  : 0x7f80U);
        std::int64_t found = 0;
        const auto is_special = [&](std::int64_t element) {
          Bits bits;
          std::memcpy(&bits, p[0] + element * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
          return (bits & kExponent) == kExponent;
        };
        if (strides[0] == 1) for (std::int64_t i = 0; i < count; ++i) found += is_special(i);
        else for (std::int64_t i = 0; i < count; ++i) found += is_special(i * strides[0]);
        if (found) total.fetch_add(found, std::memory_order_relaxed);
      });
    });
  }
  *out.as<std::int64_t>() = total.load();
}

}  // namespace cambium::kernels::cpu
