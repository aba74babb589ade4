// What attention's forward and backward on tensor cores share: tiles by cp.async, operands by ldmatrix, products by mma.sync m16n8k16.
//
// A warp holds 16 lines of scores in the layout of an mma's result, which is that of the left operand of the next product, so that probabilities never leave
// the registers (Dao 2023, arXiv 2307.08691). In a result, thread 4 g + t of a warp has columns 2 t and 2 t + 1 of lines g and g + 8.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.h"

namespace cambium::kernels::cuda {

inline constexpr float kLog2E = 1.4426950408889634F, kLn2 = 0.6931471805599453F;

template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const std::uint32_t b[2] = {b0, b1};
  if constexpr (std::is_same_v<T, bfloat16>) ptx::mma_m16n8k16_bf16(c, a, b);
  else ptx::mma_m16n8k16_f16(c, a, b);
}
template <class T>
__device__ __forceinline__ std::uint32_t pack_pair(float low, float high) {
  return static_cast<std::uint32_t>(convert_to<T>(low).bits) | static_cast<std::uint32_t>(convert_to<T>(high).bits) << 16;
}
// Two neighbouring n8 tiles of a result, rounded, as the left operand (16 x 16) of the next product.
template <class T>
__device__ __forceinline__ void left_operand(std::uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = pack_pair<T>(low[0], low[1]);
  a[1] = pack_pair<T>(low[2], low[3]);
  a[2] = pack_pair<T>(high[0], high[1]);
  a[3] = pack_pair<T>(high[2], high[3]);
}

// Where a lane's 16 bytes for an ldmatrix.x4 begin in a tile of lines of `stride` elements.
struct Lane {
  int lane;
  __device__ __forceinline__ Lane() : lane(static_cast<int>(threadIdx.x) % kLanes) {}
  // 16 x 16 of a left operand from (line, column) on.
  __device__ __forceinline__ int left(int line, int column, int stride) const { return (line + lane % 16) * stride + column + lane / 16 * 8; }
  // Two right operands (16 x 8): lines are n, columns k.
  __device__ __forceinline__ int right(int line, int column, int stride) const { return (line + lane % 8 + lane / 16 * 8) * stride + column + lane / 8 % 2 * 8; }
  // The same from lines that are k, columns n, by ldmatrix.trans: the addresses of a left operand.
  __device__ __forceinline__ int turned(int line, int column, int stride) const { return left(line, column, stride); }
};

// kCount lines of `dim` elements to shared memory, zeros behind them up to `padded` and where address(r) is null. By cp.async if `packs`.
template <int kCount, int kDim, int kThreads, class T, class F>
__device__ __forceinline__ void stage_lines(T* to, int stride, int dim, int padded, bool packs, const void* anywhere, F&& address) {
  constexpr int kLanesOfLine = kDim / 8;
  const int column = static_cast<int>(threadIdx.x) % kLanesOfLine * 8;
  if (column >= padded) return;
#pragma unroll
  for (int r = static_cast<int>(threadIdx.x) / kLanesOfLine; r < kCount; r += kThreads / kLanesOfLine) {
    const T* from = address(r);
    T* line = to + r * stride + column;
    if (packs) {
      const bool inside = from && column < dim;
      ptx::cp_async<16>(line, inside ? static_cast<const void*>(from + column) : anywhere, inside ? 16 : 0);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) line[j] = from && column + j < dim ? from[column + j] : T{};
    }
  }
}

// score[n] += X Y' for 16 lines of X from x_line on and kTiles * 8 lines of Y.
template <int kTiles, class T>
__device__ __forceinline__ void multiply_lines(float (&score)[kTiles][4], const T* x, int x_line, const T* y, int stride, int padded, const Lane& lane) {
  for (int d = 0; d < padded; d += 16) {
    std::uint32_t a[4], b[4];
    ptx::ldmatrix_x4(a, x + lane.left(x_line, d, stride));
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      ptx::ldmatrix_x4(b, y + lane.right(n * 8, d, stride));
      mma<T>(score[n], a, b[0], b[1]);
      mma<T>(score[n + 1], a, b[2], b[3]);
    }
  }
}
// sum += W Y for 16 lines of weights, whose columns are the kTiles * 8 lines of Y.
template <int kTiles, int kDim, class T>
__device__ __forceinline__ void accumulate_lines(float (&sum)[kDim / 8][4], const float (&weight)[kTiles][4], const T* y, int stride, int padded, const Lane& lane) {
#pragma unroll
  for (int k = 0; k < kTiles; k += 2) {
    std::uint32_t a[4], b[4];
    left_operand<T>(a, weight[k], weight[k + 1]);
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      if (n * 16 >= padded) break;
      ptx::ldmatrix_x4_trans(b, y + lane.turned(k * 8, n * 16, stride));
      mma<T>(sum[2 * n], a, b[0], b[1]);
      mma<T>(sum[2 * n + 1], a, b[2], b[3]);
    }
  }
}
template <int kTiles>
__device__ __forceinline__ void clear_tiles(float (&x)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) x[n][e] = 0.0F;
}

// Two neighbouring results of a line.
template <class T>
__device__ __forceinline__ void write_pair(T* to, int d, int dim, bool pairs, float low, float high) {
  if (pairs && d < dim) {
    *as_vector<std::uint32_t>(to + d) = pack_pair<T>(low, high);
    return;
  }
  if (d < dim) to[d] = convert_to<T>(low);
  if (d + 1 < dim) to[d + 1] = convert_to<T>(high);
}

// Lines of shared memory: an odd number of 16-byte parts, so that the 8 lines of a matrix lie in different banks.
__host__ __device__ constexpr int padded_dim(int dim) { return (dim + 15) / 16 * 16; }
__host__ __device__ constexpr int line_of(int dim) { return padded_dim(dim) + 8; }

/// f(TypeTag<T>, Width<kDim>) for the kernel that takes heads of `dim` entries.
template <class F>
void with_tensor_kernel(DType dtype, int dim, F&& f) {
  const auto with_type = [&](auto tag) {
    if (dim <= 64) f(tag, Width<64>{});
    else if (dim <= 128) f(tag, Width<128>{});
    else f(tag, Width<kMostTensorDim>{});
  };
  if (dtype == DType::bf16) with_type(TypeTag<bfloat16>{});
  else with_type(TypeTag<float16>{});
}

inline dim3 grid_of(const AttentionProblem& p, int lines, int tile, int batch, int parts = 1) {
  return dim3(static_cast<unsigned>((lines + tile - 1) / tile * parts), static_cast<unsigned>(p.key_heads()), static_cast<unsigned>(batch));
}

}  // namespace cambium::kernels::cuda
