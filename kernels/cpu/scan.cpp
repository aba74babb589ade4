// Positions of extrema along a dimension, and cumulative sums.
#include <cmath>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kLineBuffer = 1024;

// All lines of x along `dim`: x with that dimension of size 1.
Strided without(Strided x, int dim) {
  x.shape[dim] = 1;
  return x;
}

std::byte* at(const Strided& x, std::int64_t offset) { return static_cast<std::byte*>(x.data) + offset * item_size(x.dtype); }

}  // namespace

void arg_reduce(Context&, Reduction reduction, Strided out, Strided x, int dim) {
  const std::int64_t n = x.shape[dim], stride = x.strides[dim];
  if (out.count() == 0 || n == 0) return;
  const Strided lines = without(x, dim);
  const bool maximum = reduction == Reduction::maximum;
  visit_compute(x.dtype, [&](auto tag) {
    using A = typename decltype(tag)::type;
    const ConvertRow load = convert_row(dtype_of<A>, x.dtype);
    const bool direct = x.dtype == dtype_of<A> && stride == 1;
    parallel_ranges(lines.count(), rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      A buffer[kLineBuffer];
      for (std::int64_t line = begin; line < end; ++line) {
        const std::int64_t base = offset_of(lines, line);
        std::int64_t best = 0;
        A value{};
        for (std::int64_t first = 0; first < n && value == value; first += kLineBuffer) {  // the first NaN wins and ends the search
          const std::int64_t count = std::min(kLineBuffer, n - first);
          const A* values = reinterpret_cast<const A*>(at(x, base + first * stride));
          if (!direct) {
            load(buffer, 1, values, stride, count);
            values = buffer;
          }
          std::int64_t i = 0;
          if (first == 0) value = values[i++];
          for (; i < count && value == value; ++i) {
            if (maximum ? !(values[i] <= value) : !(values[i] >= value)) {
              value = values[i];
              best = first + i;
            }
          }
        }
        out.as<std::int64_t>()[offset_of(out, line)] = best;
      }
    });
  });
}

void cumsum(Context&, Strided out, Strided x, int dim, bool reverse) {
  const std::int64_t n = x.shape[dim];
  if (x.count() == 0) return;
  const Strided lines = without(x, dim), out_lines = without(out, dim);
  const std::int64_t in_step = reverse ? -x.strides[dim] : x.strides[dim], out_step = reverse ? -out.strides[dim] : out.strides[dim];
  const std::int64_t in_start = reverse ? (n - 1) * x.strides[dim] : 0, out_start = reverse ? (n - 1) * out.strides[dim] : 0;
  const auto run = [&]<class A>(TypeTag<A>) {
    const ConvertRow load = convert_row(dtype_of<A>, x.dtype), store = convert_row(out.dtype, dtype_of<A>);
    parallel_ranges(lines.count(), rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      A buffer[kLineBuffer];
      for (std::int64_t line = begin; line < end; ++line) {
        const std::int64_t from = offset_of(lines, line) + in_start, to = offset_of(out_lines, line) + out_start;
        A sum = 0;
        for (std::int64_t first = 0; first < n; first += kLineBuffer) {
          const std::int64_t count = std::min(kLineBuffer, n - first);
          load(buffer, 1, at(x, from + first * in_step), in_step, count);
          for (std::int64_t i = 0; i < count; ++i) {
            if constexpr (std::is_integral_v<A>) sum = static_cast<A>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(buffer[i]));
            else sum += buffer[i];
            buffer[i] = sum;
          }
          store(at(out, to + first * out_step), out_step, buffer, 1, count);
        }
      }
    });
  };
  // Long running sums lose digits: floats are added up in double.
  if (is_float(x.dtype)) run(TypeTag<double>{});
  else run(TypeTag<std::int64_t>{});
}

}  // namespace cambium::kernels::cpu
