// Softmax and log-softmax of rows and their backward: a warp takes a short row, a block a long one; maximum and sum come from one pass.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

template <class T, int kWidth, int kTeam>
__global__ void __launch_bounds__(kTeam == kLanes ? kRowThreads : kTeam) softmax_rows(T* y, const T* x, std::int64_t rows, std::int64_t n, bool logarithm) {
  using A = acc_t<T>;
  const std::int64_t r = Team<kTeam>::row();
  if (r >= rows) return;
  x += r * n;
  y += r * n;
  RunningExponentials<A> sums;
  each_of_row<T, kWidth, kTeam>(x, n, [&](std::int64_t i, auto width) {
    A value[decltype(width)::value];
    widen_pack(value, load_pack<decltype(width)::value>(x + i));
    sums.add(value);
  });
  sums.template combine<kTeam>();
  const A top = sums.maximum, log_total = logarithm_of(sums.total), inverse = A(1) / sums.total;
  each_of_row<T, kWidth, kTeam>(x, n, [&](std::int64_t i, auto width) {
    const auto pack = load_pack<decltype(width)::value>(x + i);
    Pack<T, decltype(width)::value> out;
#pragma unroll
    for (int j = 0; j < decltype(width)::value; ++j) {
      const A shifted = widen(pack.element[j]) - top;
      out.element[j] = convert_to<T>(logarithm ? shifted - log_total : exponential(shifted) * inverse);
    }
    store_pack(y + i, out);
  });
}

// dx = y (g - sum(g y)), or g - e^y sum(g) for the logarithm.
template <class T, int kWidth, int kTeam>
__global__ void __launch_bounds__(kTeam == kLanes ? kRowThreads : kTeam) softmax_rows_backward(T* dx, const T* g, const T* y, std::int64_t rows, std::int64_t n,
                                                                                             bool logarithm) {
  using A = acc_t<T>;
  const std::int64_t r = Team<kTeam>::row();
  if (r >= rows) return;
  dx += r * n;
  g += r * n;
  y += r * n;
  A total = 0;
  each_of_row<T, kWidth, kTeam>(y, n, [&](std::int64_t i, auto width) {
    const auto upstream = load_pack<decltype(width)::value>(g + i);
    const auto value = load_pack<decltype(width)::value>(y + i);
#pragma unroll
    for (int j = 0; j < decltype(width)::value; ++j) total += logarithm ? widen(upstream.element[j]) : widen(upstream.element[j]) * widen(value.element[j]);
  });
  total = Team<kTeam>::sum(total);
  each_of_row<T, kWidth, kTeam>(y, n, [&](std::int64_t i, auto width) {
    const auto upstream = load_pack<decltype(width)::value>(g + i);
    const auto value = load_pack<decltype(width)::value>(y + i);
    Pack<T, decltype(width)::value> out;
#pragma unroll
    for (int j = 0; j < decltype(width)::value; ++j) {
      const A gj = widen(upstream.element[j]), yj = widen(value.element[j]);
      out.element[j] = convert_to<T>(logarithm ? gj - exponential(yj) * total : yj * (gj - total));
    }
    store_pack(dx + i, out);
  });
}

}  // namespace

void softmax_forward(Context& context, Strided y, Strided x, bool logarithm) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (rows == 0 || n == 0) return;
  visit_float(x.dtype, "softmax", [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_row_team<T>(equal_modulo_16(x.data, y.as<T>()), rows, n, [&](auto width, auto team, dim3 grid, dim3 block) {
      launch(KERNEL(softmax_rows<T, decltype(width)::value, decltype(team)::value>), grid, block, 0, stream_of(context), y.as<T>(), x.as<T>(), rows, n, logarithm);
    });
  });
}

void softmax_backward(Context& context, Strided dx, Strided g, Strided y, bool logarithm) {
  const std::int64_t rows = y.shape[0], n = y.shape[1];
  if (rows == 0 || n == 0) return;
  visit_float(y.dtype, "softmax_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_row_team<T>(equal_modulo_16(y.data, g.as<T>(), dx.as<T>()), rows, n, [&](auto width, auto team, dim3 grid, dim3 block) {
      launch(KERNEL(softmax_rows_backward<T, decltype(width)::value, decltype(team)::value>), grid, block, 0, stream_of(context), dx.as<T>(), g.as<T>(), y.as<T>(),
             rows, n, logarithm);
    });
  });
}

}  // namespace cambium::kernels::cuda
