// Attention of 16-bit floats on tensor cores: mma.sync m16n8k16, operands by ldmatrix from tiles that cp.async brings while the step before is computed.
//
// A warp holds 16 lines of scores in the layout of an mma's result, which is that of the left operand of the next product, so that probabilities never leave
// the registers (Dao 2023, arXiv 2307.08691). In a result, thread 4 g + t of a warp has columns 2 t and 2 t + 1 of lines g and g + 8.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.h"

namespace cambium::kernels::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634F, kLn2 = 0.6931471805599453F;

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
__device__ __forceinline__ void stage(T* to, int stride, int dim, int padded, bool packs, const void* anywhere, F&& address) {
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
__device__ __forceinline__ void multiply_rows(float (&score)[kTiles][4], const T* x, int x_line, const T* y, int stride, int padded, const Lane& lane) {
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
__device__ __forceinline__ void accumulate(float (&sum)[kDim / 8][4], const float (&weight)[kTiles][4], const T* y, int stride, int padded, const Lane& lane) {
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
__device__ __forceinline__ void clear(float (&x)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) x[n][e] = 0.0F;
}

// Two neighbouring results of a line.
template <class T>
__device__ __forceinline__ void write_pair(T* to, int d, int dim, bool pairs, float low, float high) {
  if (pairs && d < dim) {
    *reinterpret_cast<std::uint32_t*>(to + d) = pack_pair<T>(low, high);
    return;
  }
  if (d < dim) to[d] = convert_to<T>(low);
  if (d + 1 < dim) to[d + 1] = convert_to<T>(high);
}

// Lines of shared memory: an odd number of 16-byte parts, so that the 8 lines of a matrix lie in different banks.
__host__ __device__ constexpr int padded_dim(int dim) { return (dim + 15) / 16 * 16; }
__host__ __device__ constexpr int line_of(int dim) { return padded_dim(dim) + 8; }

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
    stage<kKeys, kDim, kForwardThreads>(to, stride, p.dim, padded, p.packs, x.data,
                                        [&](int r) { return key + r < key_end ? key_address<const T>(x, batch, key_head, key + r) : nullptr; });
    ptx::cp_async_commit();
  };
  stage<kForwardRows, kDim, kForwardThreads>(queries, stride, p.dim, padded, p.packs, p.q.data,
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
    clear(score);
    multiply_rows<kTiles>(score, queries, warp * 16, keys, stride, padded, lane);
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
    accumulate<kTiles, kDim>(sum, score, values, stride, padded, lane);
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

// Backward: what is fixed and what moves as in attention_tiles.cu. Heads of more than 128 entries take fewer lines at a time, and one result at a time.
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

  const auto stage_lines = [&](T* to, const AttentionOperand& x, bool of_keys, int from, int until, auto count) {
    stage<decltype(count)::value, kDim, kThreads>(to, stride, p.dim, padded, p.packs, x.data, [&](int r) -> const T* {
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
    stage_lines(moving0 + buffer * stride, kKeysFixed ? p.q : p.k, !kKeysFixed, step, moving_end, Width<kStep>{});
    stage_lines(moving1 + buffer * stride, kKeysFixed ? p.g : p.v, !kKeysFixed, step, moving_end, Width<kStep>{});
    if constexpr (kKeysFixed) note_rows(buffer, step, moving_end, kStep);
    ptx::cp_async_commit();
  };
  stage_lines(fixed0, kKeysFixed ? p.k : p.q, kKeysFixed, begin, end, Width<kLines>{});
  stage_lines(fixed1, kKeysFixed ? p.v : p.g, kKeysFixed, begin, end, Width<kLines>{});
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
    clear(probability);
    clear(gradient);
    multiply_rows<kTiles>(probability, fixed0, warp * 16, y0, stride, padded, lane);
    if (kBoth || !second) multiply_rows<kTiles>(gradient, fixed1, warp * 16, y1, stride, padded, lane);
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
      accumulate<kTiles, kDim>(other, probability, y1, stride, padded, lane);
      accumulate<kTiles, kDim>(sum, gradient, y0, stride, padded, lane);
    } else if (second) {
      accumulate<kTiles, kDim>(sum, probability, y1, stride, padded, lane);
    } else {
      accumulate<kTiles, kDim>(sum, gradient, y0, stride, padded, lane);
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

template <class F>
void with_kernel(DType dtype, int dim, F&& f) {
  const auto with_type = [&](auto tag) {
    if (dim <= 64) f(tag, Width<64>{});
    else if (dim <= 128) f(tag, Width<128>{});
    else f(tag, Width<kMostTensorDim>{});
  };
  if (dtype == DType::bf16) with_type(TypeTag<bfloat16>{});
  else with_type(TypeTag<float16>{});
}

dim3 grid_of(const AttentionProblem& p, int lines, int tile, int batch, int parts = 1) {
  return dim3(static_cast<unsigned>((lines + tile - 1) / tile * parts), static_cast<unsigned>(p.key_heads()), static_cast<unsigned>(batch));
}

template <int kDim> std::int64_t forward_bytes(int dim) { return std::int64_t{2} * (kForwardRows + 2 * kForwardKeys<kDim>) * line_of(dim); }
template <int kDim> std::int64_t backward_bytes(int dim) { return std::int64_t{2} * (2 * kFixed<kDim> + 4 * kMoving<kDim>) * line_of(dim); }

}  // namespace

std::int64_t attention_tensor_core_bytes(int dim, bool backward) {
  std::int64_t bytes = 0;
  constexpr std::int64_t kStatistics = 2048;  // of the rows of a block of the backward, at most
  with_kernel(DType::bf16, dim, [&](auto, auto width) {
    constexpr int kDim = decltype(width)::value;
    bytes = backward ? backward_bytes<kDim>(dim) + kStatistics : forward_bytes<kDim>(dim);
  });
  return bytes;
}

void attention_forward_on_tensor_cores(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  with_kernel(dtype, p.dim, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kDim = decltype(width)::value;
    launch(KERNEL(attention_forward_tensor_cores<T, kDim>), grid_of(p, p.rows, kForwardRows, batch, p.parts), dim3(kForwardThreads),
           static_cast<std::size_t>(forward_bytes<kDim>(p.dim)), stream, p);
  });
}

void attention_backward_on_tensor_cores(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  with_kernel(dtype, p.dim, [&](auto tag, auto width) {
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
