// Attention with multiply-adds, forward, for every float dtype and any head size.
#include "kernels/cuda/attention_tiles.h"

namespace cambium::kernels::cuda {
namespace {

template <class A>
__device__ __forceinline__ A maximum_of_16(A value) {
  for (int step = 8; step > 0; step /= 2) value = larger(value, __shfl_xor_sync(kFullWarp, value, step));
  return value;
}
template <class A>
__device__ __forceinline__ A sum_of_16(A value) {
  for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(kFullWarp, value, step);
  return value;
}

template <class T, int kM, int kChunks>
__global__ void __launch_bounds__(kTileThreads) attention_forward_tiles(AttentionProblem p, int slices) {
  using A = acc_t<T>;
  constexpr int kTile = 16 * kM, kStride = kLine<A, kTile>;
  KSHARED(buffer, A[kTile * kStride]);
  KSHARED(weights, A[kTile * kStride]);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16, key_head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int slice = static_cast<int>(blockIdx.x) % slices, part = static_cast<int>(blockIdx.x) / slices % p.parts;
  // The last rows of a causal problem have most to do and so come first.
  const int tiles = (p.rows + kTile - 1) / kTile, row_begin = (tiles - 1 - static_cast<int>(blockIdx.x) / slices / p.parts) * kTile;
  const int row_last = row_begin + kTile < p.rows ? row_begin + kTile - 1 : p.rows - 1, first_column = slice * kChunks * kTile;
  const KeyRange first = keys_of_row(p, row_begin), last = keys_of_row(p, row_last);
  const int part_end = (part + 1) * p.keys_of_part, key_end = last.end < part_end ? last.end : part_end;
  int key_begin = first.begin / kTile * kTile;
  if (part * p.keys_of_part > key_begin) key_begin = part * p.keys_of_part;

  A sum[kChunks][kM][kM] = {}, top[kM], total[kM];
  KeyRange range[kM];
  std::int64_t bias[kM];
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int row = row_begin + ty * kM + i;
    top[i] = -infinity<A>();
    total[i] = 0;
    range[i] = row <= row_last ? keys_of_row(p, row) : KeyRange{0, 0};
    bias[i] = p.bias && row <= row_last ? bias_row(p, batch, key_head, row) : 0;
  }
  const auto query = [&](int r) { return row_begin + r <= row_last ? row_address<const T>(p.q, p, batch, key_head, row_begin + r) : nullptr; };
  for (int key = key_begin; key < key_end; key += kTile) {
    const auto keys = [&](int r) { return key + r < key_end ? key_address<const T>(p.k, batch, key_head, key + r) : nullptr; };
    const auto values = [&](int r) { return key + r < key_end ? key_address<const T>(p.v, batch, key_head, key + r) : nullptr; };
    A score[kM][kM];
    products<T, kM>(score, buffer, p, ty, tx, query, keys);
#pragma unroll
    for (int j = 0; j < kM; ++j) {
      const int column = key + tx * kM + j;
      const bool allowed = column < key_end && key_allowed(p, batch, column);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        const bool seen = allowed && column >= range[i].begin && column < range[i].end;
        score[i][j] *= static_cast<A>(p.scale);
        if (p.bias && seen) score[i][j] += bias_value<A>(p, bias[i] + column * p.bias_key);
        if (!seen) score[i][j] = -infinity<A>();
      }
    }
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      A most = score[i][0];
#pragma unroll
      for (int j = 1; j < kM; ++j) most = larger(most, score[i][j]);
      most = larger(top[i], maximum_of_16(most));
      const A base = most == -infinity<A>() ? A(0) : most, correction = exponential(top[i] - base);
      top[i] = most;
      total[i] *= correction;
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        score[i][j] = exponential(score[i][j] - base);
        total[i] += score[i][j];
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
#pragma unroll
        for (int j = 0; j < kM; ++j) sum[c][i][j] *= correction;
    }
#pragma unroll
    for (int j = 0; j < kM; ++j)
#pragma unroll
      for (int i = 0; i < kM; ++i) weights[(tx * kM + j) * kStride + ty * kM + i] = score[i][j];
    accumulate_slices<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, values);
  }
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const A all = sum_of_16(total[i]), inverse = all == A(0) ? A(0) : A(1) / all, lse = all == A(0) ? -infinity<A>() : top[i] + logarithm_of(all);
    const int row = row_begin + ty * kM + i;
    if (row > row_last) continue;
    const std::int64_t partial = ((static_cast<std::int64_t>(batch) * p.key_heads() + key_head) * p.parts + part) * p.rows + row;
    T* out = row_address<T>(p.out, p, batch, key_head, row);
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        const int d = first_column + c * kTile + tx * kM + j;
        if (d >= p.dim) continue;
        if (p.parts > 1) p.partial_out[partial * p.dim + d] = static_cast<float>(sum[c][i][j] * inverse);
        else out[d] = convert_to<T>(sum[c][i][j] * inverse);
      }
    if (tx != 0 || slice != 0) continue;
    if (p.parts > 1) p.partial_lse[partial] = static_cast<float>(lse);
    else if (p.lse) static_cast<A*>(p.lse)[statistic_of(p, batch, key_head, row)] = lse;
  }
}

}  // namespace

void attention_forward_in_tiles(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  visit_float(dtype, "attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_tiles<T>(p.dim, [&](auto m, auto chunks) {
      constexpr int kM = decltype(m)::value, kChunks = decltype(chunks)::value;
      const int slices = blocks_of(p.dim, 16 * kM * kChunks);
      const dim3 grid(static_cast<unsigned>(blocks_of(p.rows, 16 * kM) * p.parts * slices), static_cast<unsigned>(p.key_heads()), static_cast<unsigned>(batch));
      launch(KERNEL(attention_forward_tiles<T, kM, kChunks>), grid, dim3(kTileThreads), 0, stream, p, slices);
    });
  });
}

}  // namespace cambium::kernels::cuda
