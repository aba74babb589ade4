// Attention of 16-bit floats on tensor cores, forward: online softmax over tiles of keys that arrive while the tile before is computed.
#include "kernels/cuda/attention_tensor_cores.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kForwardRows = 64, kForwardThreads = 128;
template <int kDim> inline constexpr int kForwardKeys = kDim <= 128 ? 64 : 32;

template <class T, int kDim>
__global__ void __launch_bounds__(kForwardThreads) attention_forward_tensor_cores(AttentionProblem p) {
  constexpr int kKeys = kForwardKeys<kDim>, kTiles = kKeys / 8;
  KSHARED_DYN(shared, T);
  const int stride = line_of(p.dim), padded = padded_dim(p.dim);
  T *queries = shared, *keys = queries + kForwardRows * stride, *values = keys + kKeys * stride;
  const Lane lane;
  const int warp = static_cast<int>(threadIdx.x) / kLanes, group = lane.lane / 4, pair = lane.lane % 4 * 2, key_head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z), part = static_cast<int>(blockIdx.x) % p.parts, tiles = (p.rows + kForwardRows - 1) / kForwardRows;
  // The last rows of a causal problem have most to do and so come first.
  const int row_begin = (tiles - 1 - static_cast<int>(blockIdx.x) / p.parts) * kForwardRows, row_end = row_begin + kForwardRows < p.rows ? row_begin + kForwardRows : p.rows;
  const KeyRange first = keys_of_row(p, row_begin), last = keys_of_row(p, row_end - 1);
  const int part_end = (part + 1) * p.keys_of_part, key_end = last.end < part_end ? last.end : part_end;
  int key_begin = first.begin / kKeys * kKeys;
  if (part * p.keys_of_part > key_begin) key_begin = part * p.keys_of_part;

  const int line = warp * 16 + group;
  KeyRange range[2];
  std::int64_t bias[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = row_begin + line + h * 8;
    range[h] = row < row_end ? keys_of_row(p, row) : KeyRange{0, 0};
    if (p.bias && row < row_end) bias[h] = bias_row(p, batch, key_head, row);
  }
  const auto stage_keys = [&](T* to, const AttentionOperand& x, int key) {
    stage_lines<kKeys, kDim, kForwardThreads>(to, stride, p.dim, padded, p.packs, x.data,
                                        [&](int r) { return key + r < key_end ? key_address<const T>(x, batch, key_head, key + r) : nullptr; });
    ptx::cp_async_commit();
  };
  stage_lines<kForwardRows, kDim, kForwardThreads>(queries, stride, p.dim, padded, p.packs, p.q.data,
                                             [&](int r) { return row_begin + r < row_end ? row_address<const T>(p.q, p, batch, key_head, row_begin + r) : nullptr; });
  if (key_begin < key_end) stage_keys(keys, p.k, key_begin);
  else ptx::cp_async_commit();

  float sum[kDim / 8][4] = {}, top[2] = {-infinity<float>(), -infinity<float>()}, total[2] = {};
  const float scale = static_cast<float>(p.scale) * kLog2E;
  for (int key = key_begin; key < key_end; key += kKeys) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the keys are there, and nobody reads the values of the step before
    stage_keys(values, p.v, key);
    float score[kTiles][4];
    clear_tiles(score);
    multiply_lines<kTiles>(score, queries, warp * 16, keys, stride, padded, lane);
    // Scores in units of log 2. Where all rows of the block see all keys there is nothing to forbid.
    const bool open = !p.key_mask && !p.bias && key >= last.begin && key + kKeys <= first.end && key + kKeys <= key_end && row_begin + kForwardRows <= p.rows;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        score[n][e] *= scale;
        if (open) continue;
        const int column = key + n * 8 + pair + e % 2, h = e / 2;
        const bool seen = column < key_end && column >= range[h].begin && column < range[h].end && key_allowed(p, batch, column);
        if (p.bias && seen) score[n][e] += bias_value<float>(p, bias[h] + column * p.bias_key) * kLog2E;
        if (!seen) score[n][e] = -infinity<float>();
      }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) most = fmaxf(most, fmaxf(score[n][2 * h], score[n][2 * h + 1]));
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 2));
      const float base = most == -infinity<float>() ? 0.0F : most, correction = exp2f(top[h] - base);
      top[h] = most;
      total[h] *= correction;
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) {
          score[n][e] = exp2f(score[n][e] - base);
          total[h] += score[n][e];
        }
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        sum[n][2 * h] *= correction;
        sum[n][2 * h + 1] *= correction;
      }
    }
    ptx::cp_async_wait<0>();
    __syncthreads();  // the values are there, and nobody reads these keys any more
    if (key + kKeys < key_end) stage_keys(keys, p.k, key + kKeys);
    accumulate_lines<kTiles, kDim>(sum, score, values, stride, padded, lane);
  }
  ptx::cp_async_wait<0>();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float all = total[h] + __shfl_xor_sync(kFullWarp, total[h], 1);
    all += __shfl_xor_sync(kFullWarp, all, 2);
    const float inverse = all == 0.0F ? 0.0F : 1.0F / all, lse = all == 0.0F ? -infinity<float>() : (top[h] + log2f(all)) * kLn2;
    const int row = row_begin + line + h * 8;
    if (row >= row_end) continue;
    const std::int64_t partial = ((static_cast<std::int64_t>(batch) * p.key_heads() + key_head) * p.parts + part) * p.rows + row;
    T* out = row_address<T>(p.out, p, batch, key_head, row);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int d = n * 8 + pair;
      const float low = sum[n][2 * h] * inverse, high = sum[n][2 * h + 1] * inverse;
      if (p.parts == 1) {
        write_pair(out, d, p.dim, p.pairs, low, high);
      } else {
        if (d < p.dim) p.partial_out[partial * p.dim + d] = low;
        if (d + 1 < p.dim) p.partial_out[partial * p.dim + d + 1] = high;
      }
    }
    if (pair != 0) continue;
    if (p.parts > 1) p.partial_lse[partial] = lse;
    else if (p.lse) static_cast<float*>(p.lse)[statistic_of(p, batch, key_head, row)] = lse;
  }
}

template <int kDim> std::int64_t forward_bytes(int dim) { return std::int64_t{2} * (kForwardRows + 2 * kForwardKeys<kDim>) * line_of(dim); }

}  // namespace

std::int64_t attention_forward_tensor_core_bytes(int dim) {
  std::int64_t bytes = 0;
  with_tensor_kernel(DType::bf16, dim, [&](auto, auto width) { bytes = forward_bytes<decltype(width)::value>(dim); });
  return bytes;
}

void attention_forward_on_tensor_cores(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  with_tensor_kernel(dtype, p.dim, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kDim = decltype(width)::value;
    launch(KERNEL(attention_forward_tensor_cores<T, kDim>), grid_of(p, p.rows, kForwardRows, batch, p.parts), dim3(kForwardThreads),
           static_cast<std::size_t>(forward_bytes<kDim>(p.dim)), stream, p);
  });
}

}  // namespace cambium::kernels::cuda
