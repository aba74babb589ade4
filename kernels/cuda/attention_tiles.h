// What attention's forward and backward with multiply-adds share: slices of operands in shared memory and products of them in registers.
//
// A block of 16 x 16 threads holds a tile of scores, kM x kM to a thread, and kChunks tiles of its results' columns. More columns than that are cut into
// slices, each a block of its own that computes the scores again. Forward: online softmax (Dao et al. 2022, arXiv 2205.14135). Backward: algorithm 4 there,
// once with the keys of a block fixed for dK and dV and once with the rows fixed for dQ, so that every sum has one owner and one order.
#pragma once

#include "kernels/cuda/attention.h"

namespace cambium::kernels::cuda {

inline constexpr int kTileThreads = 256;

// 16 bytes behind each line of shared memory: lines of a column then lie in different banks, and packs stay aligned.
template <class A, int kTile> inline constexpr int kLine = kTile + 16 / static_cast<int>(sizeof(A));

// `count` lines of [d0, d0 + kWide) of rows as numbers of type A; zeros past `dim` and where address(r) is null. kTransposed: to[d][r], else to[r][d].
template <class T, int kTile, int kWide, bool kTransposed, class F>
__device__ __forceinline__ void stage_slice(acc_t<T>* to, int d0, int dim, bool packs, F&& address) {
  using A = acc_t<T>;
  constexpr int kPart = kPack<T>, kParts = kWide / kPart, kStride = kLine<A, kTile>;
  static_assert(kWide % kPart == 0);
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kParts; i += kTileThreads) {
    const int r = i / kParts, d = i % kParts * kPart, left = dim - d0 - d;
    const T* from = address(r);
    Pack<T, kPart> pack{};
    if (from && packs && left >= kPart) {
      pack = load_pack<kPart>(from + d0 + d);
    } else if (from) {
#pragma unroll
      for (int j = 0; j < kPart; ++j)
        if (j < left) pack.element[j] = from[d0 + d + j];
    }
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      if constexpr (kTransposed) to[(d + j) * kStride + r] = widen(pack.element[j]);
      else to[r * kStride + d + j] = widen(pack.element[j]);
    }
  }
}

// sum[i][j] += left[d][ty kM + i] right[d][tx kM + j] over kCount lines d.
template <int kM, int kCount, int kStride, class A>
__device__ __forceinline__ void multiply_slices(A (&sum)[kM][kM], const A* left, const A* right, int ty, int tx) {
#pragma unroll 4
  for (int d = 0; d < kCount; ++d) {
    A a[kM], b[kM];
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      a[i] = left[d * kStride + ty * kM + i];
      b[i] = right[d * kStride + tx * kM + i];
    }
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kM; ++j) sum[i][j] += a[i] * b[j];
  }
}

// sum = X Y' of two operands' rows; `buffer` holds kTile lines.
template <class T, int kM, class F, class G>
__device__ __forceinline__ void products(acc_t<T> (&sum)[kM][kM], acc_t<T>* buffer, const AttentionProblem& p, int ty, int tx, F&& x, G&& y) {
  using A = acc_t<T>;
  constexpr int kTile = 16 * kM, kDepth = kTile / 2, kStride = kLine<A, kTile>;
#pragma unroll
  for (int i = 0; i < kM; ++i)
#pragma unroll
    for (int j = 0; j < kM; ++j) sum[i][j] = A(0);
  for (int d0 = 0; d0 < p.dim; d0 += kDepth) {
    __syncthreads();
    stage_slice<T, kTile, kDepth, true>(buffer, d0, p.dim, p.packs, x);
    stage_slice<T, kTile, kDepth, true>(buffer + kDepth * kStride, d0, p.dim, p.packs, y);
    __syncthreads();
    multiply_slices<kM, kDepth, kStride>(sum, buffer, buffer + kDepth * kStride, ty, tx);
  }
}

// sum[c] += W' Y, weights W (moving, fixed) in shared memory, columns [first + c kTile, ...) of the moving operand's rows.
template <class T, int kM, int kChunks, class F>
__device__ __forceinline__ void accumulate_slices(acc_t<T> (&sum)[kChunks][kM][kM], const acc_t<T>* weights, acc_t<T>* buffer, const AttentionProblem& p, int first, int ty,
                                           int tx, F&& y) {
  constexpr int kTile = 16 * kM, kStride = kLine<acc_t<T>, kTile>;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (first + c * kTile >= p.dim) break;
    __syncthreads();
    stage_slice<T, kTile, kTile, false>(buffer, first + c * kTile, p.dim, p.packs, y);
    __syncthreads();
    multiply_slices<kM, kTile, kStride>(sum[c], weights, buffer, ty, tx);
  }
}

/// f(Width<kM>, Width<kChunks>): tiles of 64 for floats and of 32 for doubles, columns of results for heads of up to 64, 128 and more entries.
template <class T, class F>
void with_tiles(int dim, F&& f) {
  if constexpr (std::is_same_v<T, double>) f(Width<2>{}, Width<4>{});
  else if (dim <= 64) f(Width<4>{}, Width<1>{});
  else if (dim <= 128) f(Width<4>{}, Width<2>{});
  else f(Width<4>{}, Width<4>{});
}

inline int blocks_of(int count, int tile) { return (count + tile - 1) / tile; }

}  // namespace cambium::kernels::cuda
