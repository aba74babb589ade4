// Rows of dense matrices shared out to warps or blocks: 16-byte packs, loops over a row, sums and maxima by a fixed tree.
#pragma once

#include "kernels/cuda/block.h"
#include "kernels/cuda/device.h"
#include "kernels/strided.h"

namespace cambium::kernels::cuda {

inline constexpr int kLanes = 32;

/// An element in the type of sums.
template <class T> __device__ __forceinline__ acc_t<T> widen(T x) { return convert_to<acc_t<T>>(x); }

/// Elements whose address need not be a multiple of 16.
template <int kWidth, class T>
__device__ __forceinline__ Pack<T, kWidth> load_each(const T* p) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) pack.element[j] = p[j];
  return pack;
}

// Names of the C library in the width of the argument.
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm_of(float x) { return logf(x); }
__device__ __forceinline__ double logarithm_of(double x) { return log(x); }
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
template <class A> __device__ __forceinline__ A infinity() { return static_cast<A>(__int_as_float(0x7f800000)); }

/// Who works on a row: a warp, or all kThreads threads of a block.
template <int kThreads>
struct Team {
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x) % kThreads; }
  /// The row of this team; teams of a warp lie next to each other in a block.
  __device__ __forceinline__ static std::int64_t row() {
    if constexpr (kThreads > kLanes) return static_cast<std::int64_t>(blockIdx.x);
    return static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kLanes) + threadIdx.x / kLanes;
  }
  /// The same in every thread of the team; a warp needs no barrier.
  template <class A> __device__ __forceinline__ static A sum(A value) { return block_sum<kThreads>(value); }
  template <class A> __device__ __forceinline__ static A maximum(A value) { return block_max<kThreads>(value); }
};

/// sum_i e^x_i = total e^maximum over the numbers seen so far (online softmax: Milakov and Gimelshein 2018, arXiv 1805.02867). NaN ends up in the total.
template <class A>
struct RunningExponentials {
  A maximum, total;

  __device__ __forceinline__ RunningExponentials() : maximum(-infinity<A>()), total(0) {}

  template <int kWidth>
  __device__ __forceinline__ void add(const A (&x)[kWidth]) {
    A top = maximum;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) top = larger(top, x[j]);
    const A base = top == -infinity<A>() ? A(0) : top;
    if (top != maximum) {
      total *= exponential(maximum - base);
      maximum = top;
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) total += exponential(x[j] - base);
  }
  template <int kThreads>
  __device__ __forceinline__ void combine() {
    const A top = Team<kThreads>::maximum(maximum);
    total = Team<kThreads>::sum(maximum == top ? total : total * exponential(maximum - top));
    maximum = top;
  }
};

/// The elements of a pack in the type of sums.
template <class T, int kWidth>
__device__ __forceinline__ void widen_pack(acc_t<T> (&to)[kWidth], const Pack<T, kWidth>& pack) {
#pragma unroll
  for (int j = 0; j < kWidth; ++j) to[j] = widen(pack.element[j]);
}

/// A row of whole packs whose first kKept packs of each thread stay in registers; the rest is read again in every pass.
template <class T, int kWidth, int kThreads, int kKept>
struct KeptRow {
  const T* data;
  std::int64_t packs;
  int thread;
  Pack<T, kWidth> kept[kKept];

  __device__ __forceinline__ KeptRow(const T* row, std::int64_t n) : data(row), packs(n / kWidth), thread(Team<kThreads>::thread()) {
#pragma unroll
    for (int c = 0; c < kKept; ++c)
      if (thread + c * kThreads < packs) kept[c] = load_pack<kWidth>(data + (thread + c * kThreads) * kWidth);
  }
  /// f(i, pack) for every pack of the thread, i being the number of its first element.
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
#pragma unroll
    for (int c = 0; c < kKept; ++c)
      if (thread + c * kThreads < packs) f(static_cast<std::int64_t>(thread + c * kThreads) * kWidth, kept[c]);
    for (std::int64_t i = thread + kKept * kThreads; i < packs; i += kThreads) f(i * kWidth, load_pack<kWidth>(data + i * kWidth));
  }
};

template <int kWidth> struct Width { static constexpr int value = kWidth; };

/// f(i, Width<w>) for the elements [i, i + w) of a row of any length and alignment: packs from the first 16-byte boundary on, single elements before and
/// behind. Operands that are walked together have addresses that are equal modulo 16.
template <class T, int kWidth, int kThreads, class F>
__device__ __forceinline__ void each_of_row(const T* row, std::int64_t n, F&& f) {
  const int thread = Team<kThreads>::thread();
  if constexpr (kWidth == 1) {
    for (std::int64_t i = thread; i < n; i += kThreads) f(i, Width<1>{});
  } else {
    const auto misplaced = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % 16);
    std::int64_t lead = misplaced == 0 ? 0 : (16 - misplaced) / static_cast<int>(sizeof(T));
    lead = lead < n ? lead : n;
    const std::int64_t packs = (n - lead) / kWidth, end = lead + packs * kWidth;
    if (thread < lead) f(static_cast<std::int64_t>(thread), Width<1>{});
    for (std::int64_t i = thread; i < packs; i += kThreads) f(lead + i * kWidth, Width<kWidth>{});
    if (thread < n - end) f(end + thread, Width<1>{});
  }
}

/// Threads of a block whose warps take a row each, threads of a block that takes a long row, and from which length on a row is long.
inline constexpr int kRowThreads = 256, kLongRowThreads = 512;
inline constexpr std::int64_t kLongRow = 2048;

/// f(Width<w>, Width<team>, grid, block) for kernels that walk rows with each_of_row.
template <class T, class F>
void with_row_team(bool packs, std::int64_t rows, std::int64_t n, F&& f) {
  const auto with = [&](auto width) {
    if (n <= kLongRow) f(width, Width<kLanes>{}, dim3(static_cast<unsigned>((rows + kRowThreads / kLanes - 1) / (kRowThreads / kLanes))), dim3(kRowThreads));
    else f(width, Width<kLongRowThreads>{}, dim3(static_cast<unsigned>(rows)), dim3(kLongRowThreads));
  };
  if (packs) with(Width<kPack<T>>{});
  else with(Width<1>{});
}

/// True if packs may be used on whole rows of n elements at all of these addresses.
template <class... P>
bool whole_packs(std::int64_t n, std::int64_t item, const P*... data) {
  return n * item % 16 == 0 && ((reinterpret_cast<std::uintptr_t>(data) % 16 == 0) && ...);
}
/// True if each_of_row may walk these operands together by packs.
template <class... P>
bool equal_modulo_16(const void* first, const P*... data) {
  return ((reinterpret_cast<std::uintptr_t>(data) % 16 == reinterpret_cast<std::uintptr_t>(first) % 16) && ...);
}

}  // namespace cambium::kernels::cuda
