// Attention of 16-bit floats on tensor cores, backward: probabilities come back from scores and log-sum-exp, tile by tile.
#include "kernels/cuda/attention_tensor_cores.h"

namespace cambium::kernels::cuda {
namespace {

// What is fixed and what moves as in attention_backward_tiles.cu. Heads of more than 128 entries take fewer lines at a time, and one result at a time.
template <int kDim> inline constexpr int kBackwardThreads = kDim <= 128 ? 128 : 64;
template <int kDim> inline constexpr int kFixed = kBackwardThreads<kDim> / 2;  // 16 lines of a warp
template <int kDim> inline constexpr int kMoving = kDim <= 128 ? 32 : 16;

template <class T, int kDim, bool kKeysFixed, bool kBoth>
__global__ void __launch_bounds__(kBackwardThreads<kDim>) attention_backward_tensor_cores(AttentionProblem p, bool second) {
  constexpr int kThreads = kBackwardThreads<kDim>, kLines = kFixed<kDim>, kStep = kMoving<kDim>, kTiles = kStep / 8;
  constexpr int kStatistics = kKeysFixed ? 2 * kStep : kLines;  // of rows: of two steps, or of the block
  KSHARED_DYN(shared, T);
  KSHARED(row_lse, float[kStatistics]);
  KSHARED(row_delta, float[kStatistics]);
  KSHARED(row_range, KeyRange[kStatistics]);
  const int stride = line_of(p.dim), padded = padded_dim(p.dim);
  T *fixed0 = shared, *fixed1 = fixed0 + kLines * stride, *moving0 = fixed1 + kLines * stride, *moving1 = moving0 + 2 * kStep * stride;
  const Lane lane;
  const int warp = static_cast<int>(threadIdx.x) / kLanes, group = lane.lane / 4, pair = lane.lane % 4 * 2, key_head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z), begin = static_cast<int>(blockIdx.x) * kLines, fixed_count = kKeysFixed ? p.keys : p.rows;
  const int end = begin + kLines < fixed_count ? begin + kLines : fixed_count, moving_count = kKeysFixed ? p.rows : p.keys;
  KeyRange moving;
  if constexpr (kKeysFixed) moving = rows_of_keys(p, begin, end);
  else moving = {keys_of_row(p, begin).begin, keys_of_row(p, end - 1).end};
  const int moving_begin = moving.begin / kStep * kStep, moving_end = moving.end < moving_count ? moving.end : moving_count;

  const auto stage_rows_of = [&](T* to, const AttentionOperand& x, bool of_keys, int from, int until, auto count) {
    stage_lines<decltype(count)::value, kDim, kThreads>(to, stride, p.dim, padded, p.packs, x.data, [&](int r) -> const T* {
      if (from + r >= until) return nullptr;
      return of_keys ? key_address<const T>(x, batch, key_head, from + r) : row_address<const T>(x, p, batch, key_head, from + r);
    });
  };
  const auto note_rows = [&](int to, int first_row, int last_row, int count) {
    for (int r = static_cast<int>(threadIdx.x); r < count; r += kThreads) {
      const int row = first_row + r;
      const bool inside = row < last_row;
      const std::int64_t at = inside ? statistic_of(p, batch, key_head, row) : 0;
      const float lse = inside ? static_cast<const float*>(p.lse)[at] : 0.0F;
      row_range[to + r] = inside && lse != -infinity<float>() ? keys_of_row(p, row) : KeyRange{0, 0};
      row_lse[to + r] = lse * kLog2E;
      row_delta[to + r] = inside ? static_cast<const float*>(p.delta)[at] : 0.0F;
    }
  };
  const auto stage_step = [&](int step) {
    const int buffer = (step - moving_begin) / kStep % 2 * kStep;
    stage_rows_of(moving0 + buffer * stride, kKeysFixed ? p.q : p.k, !kKeysFixed, step, moving_end, Width<kStep>{});
    stage_rows_of(moving1 + buffer * stride, kKeysFixed ? p.g : p.v, !kKeysFixed, step, moving_end, Width<kStep>{});
    if constexpr (kKeysFixed) note_rows(buffer, step, moving_end, kStep);
    ptx::cp_async_commit();
  };
  stage_rows_of(fixed0, kKeysFixed ? p.k : p.q, kKeysFixed, begin, end, Width<kLines>{});
  stage_rows_of(fixed1, kKeysFixed ? p.v : p.g, kKeysFixed, begin, end, Width<kLines>{});
  if constexpr (!kKeysFixed) note_rows(0, begin, end, kLines);
  if (moving_begin < moving_end) stage_step(moving_begin);
  else ptx::cp_async_commit();

  float sum[kDim / 8][4] = {}, other[kBoth ? kDim / 8 : 1][4] = {};
  const float scale = static_cast<float>(p.scale) * kLog2E;
  for (int step = moving_begin; step < moving_end; step += kStep) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // this step's lines are there, and nobody reads the buffer of the one before
    if (step + kStep < moving_end) stage_step(step + kStep);
    const int buffer = (step - moving_begin) / kStep % 2 * kStep;
    const T *y0 = moving0 + buffer * stride, *y1 = moving1 + buffer * stride;
    float probability[kTiles][4], gradient[kTiles][4];
    clear_tiles(probability);
    clear_tiles(gradient);
    multiply_lines<kTiles>(probability, fixed0, warp * 16, y0, stride, padded, lane);
    if (kBoth || !second) multiply_lines<kTiles>(gradient, fixed1, warp * 16, y1, stride, padded, lane);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int fixed_at = warp * 16 + group + e / 2 * 8, moving_at = n * 8 + pair + e % 2;
        const int row_at = kKeysFixed ? buffer + moving_at : fixed_at, key = kKeysFixed ? begin + fixed_at : step + moving_at;
        const bool seen = key >= row_range[row_at].begin && key < row_range[row_at].end && key_allowed(p, batch, key);
        float score = probability[n][e] * scale;
        if (p.bias && seen) {
          const int row = kKeysFixed ? step + moving_at : begin + fixed_at;
          score += bias_value<float>(p, bias_row(p, batch, key_head, row) + key * p.bias_key) * kLog2E;
        }
        probability[n][e] = seen ? exp2f(score - row_lse[row_at]) : 0.0F;
        gradient[n][e] = probability[n][e] * (gradient[n][e] - row_delta[row_at]);
      }
    if constexpr (kBoth) {
      accumulate_lines<kTiles, kDim>(other, probability, y1, stride, padded, lane);
      accumulate_lines<kTiles, kDim>(sum, gradient, y0, stride, padded, lane);
    } else if (second) {
      accumulate_lines<kTiles, kDim>(sum, probability, y1, stride, padded, lane);
    } else {
      accumulate_lines<kTiles, kDim>(sum, gradient, y0, stride, padded, lane);
    }
  }
  ptx::cp_async_wait<0>();
  const auto write = [&](const AttentionOperand& to, const auto& value, float factor) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = begin + warp * 16 + group + h * 8;
      if (at >= end) continue;
      T* result = kKeysFixed ? key_address<T>(to, batch, key_head, at) : row_address<T>(to, p, batch, key_head, at);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) write_pair(result, n * 8 + pair, p.dim, p.pairs, value[n][2 * h] * factor, value[n][2 * h + 1] * factor);
    }
  };
  if (!kBoth && second) write(p.dv, sum, 1.0F);
  else write(kKeysFixed ? p.dk : p.dq, sum, static_cast<float>(p.scale));
  if constexpr (kBoth) write(p.dv, other, 1.0F);
}

template <int kDim> std::int64_t backward_bytes(int dim) { return std::int64_t{2} * (2 * kFixed<kDim> + 4 * kMoving<kDim>) * line_of(dim); }

}  // namespace

std::int64_t attention_backward_tensor_core_bytes(int dim) {
  constexpr std::int64_t kStatistics = 2048;  // static: of the rows of a block, at most
  std::int64_t bytes = 0;
  with_tensor_kernel(DType::bf16, dim, [&](auto, auto width) { bytes = backward_bytes<decltype(width)::value>(dim) + kStatistics; });
  return bytes;
}

void attention_backward_on_tensor_cores(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  with_tensor_kernel(dtype, p.dim, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kDim = decltype(width)::value;
    constexpr bool kFits = kDim <= 128;
    const auto bytes = static_cast<std::size_t>(backward_bytes<kDim>(p.dim));
    const dim3 threads(kBackwardThreads<kDim>), keys = grid_of(p, p.keys, kFixed<kDim>, batch), rows = grid_of(p, p.rows, kFixed<kDim>, batch);
    if (p.keys > 0 && kFits && p.dk.data && p.dv.data) {
      launch(KERNEL(attention_backward_tensor_cores<T, kDim, true, kFits>), keys, threads, bytes, stream, p, false);
    } else if (p.keys > 0) {
      if (p.dk.data) launch(KERNEL(attention_backward_tensor_cores<T, kDim, true, false>), keys, threads, bytes, stream, p, false);
      if (p.dv.data) launch(KERNEL(attention_backward_tensor_cores<T, kDim, true, false>), keys, threads, bytes, stream, p, true);
    }
    if (p.rows > 0 && p.dq.data) launch(KERNEL(attention_backward_tensor_cores<T, kDim, false, false>), rows, threads, bytes, stream, p, false);
  });
}

}  // namespace cambium::kernels::cuda
