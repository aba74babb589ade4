// Layer and RMS normalisation of rows: a warp takes a short row, a block a long one; sums over rows for gamma and beta in two stages.
#include <algorithm>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / kLanes;  // where a warp takes a row
constexpr int kKept = 4;                        // packs of a row that a thread keeps in registers
constexpr int kMostRowBlocks = 128, kFewestRows = 32;

// kCentred: layer norm, which subtracts means. Both read a row once where it fits in the registers.
template <class T, int kWidth, int kTeam, bool kCentred>
__global__ void __launch_bounds__(kThreads) norm_forward(T* y, acc_t<T>* mean, acc_t<T>* rstd, const T* x, const T* gamma, const T* beta, std::int64_t rows,
                                                         std::int64_t n, acc_t<T> epsilon) {
  using A = acc_t<T>;
  const std::int64_t r = Team<kTeam>::row();
  if (r >= rows) return;
  const KeptRow<T, kWidth, kTeam, kKept> row(x + r * n, n);
  const A share = A(1) / static_cast<A>(n);
  A m = 0, squares = 0;
  if constexpr (kCentred) {
    row.each([&](std::int64_t, const Pack<T, kWidth>& pack) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) m += widen(pack.element[j]);
    });
    m = Team<kTeam>::sum(m) * share;
  }
  row.each([&](std::int64_t, const Pack<T, kWidth>& pack) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const A d = widen(pack.element[j]) - m;
      squares += d * d;
    }
  });
  const A s = A(1) / root(Team<kTeam>::sum(squares) * share + epsilon);
  row.each([&](std::int64_t i, const Pack<T, kWidth>& pack) {
    Pack<T, kWidth> scale{}, shift{}, out;
    if (gamma) scale = load_pack<kWidth>(gamma + i);
    if (beta) shift = load_pack<kWidth>(beta + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      A v = (widen(pack.element[j]) - m) * s;
      if (gamma) v *= widen(scale.element[j]);
      if (beta) v += widen(shift.element[j]);
      out.element[j] = convert_to<T>(v);
    }
    store_pack(y + r * n + i, out);
  });
  if (Team<kTeam>::thread() == 0) {
    if (kCentred && mean) mean[r] = m;
    if (rstd) rstd[r] = s;
  }
}

// With h = (x - mean) rstd and d = g gamma: dx = rstd (d - mean(d) - h mean(d h)); RMS norm has neither mean.
template <class T, int kWidth, int kTeam, bool kCentred>
__global__ void __launch_bounds__(kThreads) norm_backward(T* dx, const T* g, const T* x, const acc_t<T>* mean, const acc_t<T>* rstd, const T* gamma,
                                                          std::int64_t rows, std::int64_t n) {
  using A = acc_t<T>;
  const std::int64_t r = Team<kTeam>::row();
  if (r >= rows) return;
  const KeptRow<T, kWidth, kTeam, kKept> row(x + r * n, n), upstream(g + r * n, n);
  const A m = kCentred ? mean[r] : A(0), s = rstd[r], share = A(1) / static_cast<A>(n);
  A c1 = 0, c2 = 0;
  // Both rows are walked in step: `other` is the pack of g that belongs to a pack of x.
  const auto walk = [&](auto&& f) {
#pragma unroll
    for (int c = 0; c < kKept; ++c) {
      const std::int64_t i = row.thread + c * kTeam;
      if (i < row.packs) f(i * kWidth, row.kept[c], upstream.kept[c]);
    }
    for (std::int64_t i = row.thread + kKept * kTeam; i < row.packs; i += kTeam)
      f(i * kWidth, load_pack<kWidth>(row.data + i * kWidth), load_pack<kWidth>(upstream.data + i * kWidth));
  };
  walk([&](std::int64_t i, const Pack<T, kWidth>& value, const Pack<T, kWidth>& gradient) {
    Pack<T, kWidth> scale{};
    if (gamma) scale = load_pack<kWidth>(gamma + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const A d = gamma ? widen(gradient.element[j]) * widen(scale.element[j]) : widen(gradient.element[j]);
      if (kCentred) c1 += d;
      c2 += d * ((widen(value.element[j]) - m) * s);
    }
  });
  if constexpr (kCentred) c1 = Team<kTeam>::sum(c1) * share;
  c2 = Team<kTeam>::sum(c2) * share;
  walk([&](std::int64_t i, const Pack<T, kWidth>& value, const Pack<T, kWidth>& gradient) {
    Pack<T, kWidth> scale{}, out;
    if (gamma) scale = load_pack<kWidth>(gamma + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const A d = gamma ? widen(gradient.element[j]) * widen(scale.element[j]) : widen(gradient.element[j]);
      out.element[j] = convert_to<T>((d - c1 - (widen(value.element[j]) - m) * s * c2) * s);
    }
    store_pack(dx + r * n + i, out);
  });
}

template <class A>
__device__ __forceinline__ A tree_of_8(const A* column, int stride) {
  const auto at = [&](int i) { return column[i * stride]; };
  return ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
}

// First stage of dgamma and dbeta: block (x, y) sums `chunk` rows of 32 kWidth columns into row y of the partial sums; either may be absent.
template <class T, int kWidth, bool kCentred>
__global__ void __launch_bounds__(kThreads) norm_columns(acc_t<T>* dgamma, acc_t<T>* dbeta, const T* g, const T* x, const acc_t<T>* mean, const acc_t<T>* rstd,
                                                         std::int64_t rows, std::int64_t n, std::int64_t chunk) {
  using A = acc_t<T>;
  constexpr int kColumns = kLanes * kWidth;
  KSHARED(scales, A[8 * kColumns]);
  KSHARED(shifts, A[8 * kColumns]);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, line = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kColumns, column = first + lane * kWidth;
  const std::int64_t begin = blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  A scale[kWidth] = {}, shift[kWidth] = {};
  for (std::int64_t r = begin + line; column < n && r < end; r += 8) {
    const auto gradient = load_pack<kWidth>(g + r * n + column);
    const auto value = load_pack<kWidth>(x + r * n + column);
    const A m = kCentred ? mean[r] : A(0), s = rstd[r];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      scale[j] += widen(gradient.element[j]) * ((widen(value.element[j]) - m) * s);
      shift[j] += widen(gradient.element[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    scales[line * kColumns + lane * kWidth + j] = scale[j];
    shifts[line * kColumns + lane * kWidth + j] = shift[j];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kColumns && first + i < n; i += kThreads) {
    if (dgamma) dgamma[blockIdx.y * n + first + i] = tree_of_8(scales + i, kColumns);
    if (dbeta) dbeta[blockIdx.y * n + first + i] = tree_of_8(shifts + i, kColumns);
  }
}

// Second stage: the sum over the blocks of rows.
template <class T>
__global__ void __launch_bounds__(kThreads) norm_sum_blocks(T* out, const acc_t<T>* partial, std::int64_t blocks, std::int64_t n) {
  using A = acc_t<T>;
  KSHARED(sums, A[8 * kLanes]);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, line = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kLanes + lane;
  A sum = 0;
  for (std::int64_t b = line; column < n && b < blocks; b += 8) sum += partial[b * n + column];
  sums[line * kLanes + lane] = sum;
  __syncthreads();
  if (line == 0 && column < n) out[column] = convert_to<T>(tree_of_8(sums + lane, kLanes));
}

// f(Width<w>, Width<team>) with packs if rows and addresses allow, and with a warp for a row of few of them.
template <class T, class F>
void choose_team(bool packs, std::int64_t n, F&& f) {
  const auto with = [&](auto width) {
    if (n <= kKept * kLanes * decltype(width)::value) f(width, Width<kLanes>{});
    else f(width, Width<kThreads>{});
  };
  if (packs) with(Width<kPack<T>>{});
  else with(Width<1>{});
}

unsigned blocks_for(std::int64_t rows, int team) { return static_cast<unsigned>(team == kLanes ? (rows + kRowsOfBlock - 1) / kRowsOfBlock : rows); }

template <bool kCentred>
void forward(Context& context, const Strided& y, const Strided& mean, const Strided& rstd, const Strided& x, const Strided& gamma, const Strided& beta, double epsilon) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (rows == 0 || n == 0) return;
  visit_float(x.dtype, "norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    choose_team<T>(whole_packs(n, sizeof(T), x.as<T>(), y.as<T>(), gamma.as<T>(), beta.as<T>()), n, [&](auto width, auto team) {
      launch(KERNEL(norm_forward<T, decltype(width)::value, decltype(team)::value, kCentred>), dim3(blocks_for(rows, decltype(team)::value)), dim3(kThreads), 0,
             stream_of(context), y.as<T>(), mean.as<A>(), rstd.as<A>(), x.as<T>(), gamma.as<T>(), beta.as<T>(), rows, n, static_cast<A>(epsilon));
    });
  });
}

template <bool kCentred>
void backward(Context& context, const Strided& dx, const Strided& dgamma, const Strided& dbeta, const Strided& g, const Strided& x, const Strided& mean,
              const Strided& rstd, const Strided& gamma) {
  const std::int64_t rows = x.shape[0], n = x.shape[1];
  if (n == 0) return;
  visit_float(x.dtype, "norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    if (dx && rows > 0) {
      choose_team<T>(whole_packs(n, sizeof(T), x.as<T>(), g.as<T>(), dx.as<T>(), gamma.as<T>()), n, [&](auto width, auto team) {
        launch(KERNEL(norm_backward<T, decltype(width)::value, decltype(team)::value, kCentred>), dim3(blocks_for(rows, decltype(team)::value)), dim3(kThreads), 0,
               stream_of(context), dx.as<T>(), g.as<T>(), x.as<T>(), mean.as<A>(), rstd.as<A>(), gamma.as<T>(), rows, n);
      });
    }
    if (!dgamma && !dbeta) return;
    const std::int64_t chunk = std::max<std::int64_t>(kFewestRows, ((rows + kMostRowBlocks - 1) / kMostRowBlocks + 7) / 8 * 8), blocks = (rows + chunk - 1) / chunk;
    const Scratch<A> scales(context, dgamma ? blocks * n : 0), shifts(context, dbeta ? blocks * n : 0);
    const auto first_stage = [&](auto width) {
      constexpr int kWidth = decltype(width)::value;
      const dim3 grid(static_cast<unsigned>((n + kLanes * kWidth - 1) / (kLanes * kWidth)), static_cast<unsigned>(blocks));
      launch(KERNEL(norm_columns<T, kWidth, kCentred>), grid, dim3(kThreads), 0, stream_of(context), scales.data(), shifts.data(), g.as<T>(), x.as<T>(), mean.as<A>(),
             rstd.as<A>(), rows, n, chunk);
    };
    if (rows > 0) {
      if (whole_packs(n, sizeof(T), x.as<T>(), g.as<T>())) first_stage(Width<kPack<T>>{});
      else first_stage(Width<1>{});
    }
    const auto second_stage = [&](const Strided& out, const A* partial) {
      launch(KERNEL(norm_sum_blocks<T>), dim3(static_cast<unsigned>((n + kLanes - 1) / kLanes)), dim3(kThreads), 0, stream_of(context), out.as<T>(), partial, blocks, n);
    };
    if (dgamma) second_stage(dgamma, scales.data());
    if (dbeta) second_stage(dbeta, shifts.data());
  });
}

}  // namespace

void layer_norm_forward(Context& context, Strided y, Strided mean, Strided rstd, Strided x, Strided gamma, Strided beta, double epsilon) {
  forward<true>(context, y, mean, rstd, x, gamma, beta, epsilon);
}
void layer_norm_backward(Context& context, Strided dx, Strided dgamma, Strided dbeta, Strided g, Strided x, Strided mean, Strided rstd, Strided gamma) {
  backward<true>(context, dx, dgamma, dbeta, g, x, mean, rstd, gamma);
}
void rms_norm_forward(Context& context, Strided y, Strided rstd, Strided x, Strided gamma, double epsilon) {
  forward<false>(context, y, {}, rstd, x, gamma, {}, epsilon);
}
void rms_norm_backward(Context& context, Strided dx, Strided dgamma, Strided g, Strided x, Strided rstd, Strided gamma) {
  backward<false>(context, dx, dgamma, {}, g, x, {}, rstd, gamma);
}

}  // namespace cambium::kernels::cuda
