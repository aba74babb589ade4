// Attention with multiply-adds, for every float dtype and any head size: tiles of scores in registers, operands by slices through shared memory.
//
// A block of 16 x 16 threads holds a tile of scores, kM x kM to a thread, and kChunks tiles of its results' columns. More columns than that are cut into
// slices, each a block of its own that computes the scores again. Forward: online softmax (Dao et al. 2022, arXiv 2205.14135). Backward: algorithm 4 there,
// once with the keys of a block fixed for dK and dV and once with the rows fixed for dQ, so that every sum has one owner and one order.
#include "kernels/cuda/attention.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// 16 bytes behind each line of shared memory: lines of a column then lie in different banks, and packs stay aligned.
template <class A, int kTile> inline constexpr int kLine = kTile + 16 / static_cast<int>(sizeof(A));

// `count` lines of [d0, d0 + kWide) of rows as numbers of type A; zeros past `dim` and where address(r) is null. kTransposed: to[d][r], else to[r][d].
template <class T, int kTile, int kWide, bool kTransposed, class F>
__device__ __forceinline__ void stage(acc_t<T>* to, int d0, int dim, bool packs, F&& address) {
  using A = acc_t<T>;
  constexpr int kPart = kPack<T>, kParts = kWide / kPart, kStride = kLine<A, kTile>;
  static_assert(kWide % kPart == 0);
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kParts; i += kThreads) {
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
__device__ __forceinline__ void multiply(A (&sum)[kM][kM], const A* left, const A* right, int ty, int tx) {
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
    stage<T, kTile, kDepth, true>(buffer, d0, p.dim, p.packs, x);
    stage<T, kTile, kDepth, true>(buffer + kDepth * kStride, d0, p.dim, p.packs, y);
    __syncthreads();
    multiply<kM, kDepth, kStride>(sum, buffer, buffer + kDepth * kStride, ty, tx);
  }
}

// sum[c] += W' Y, weights W (moving, fixed) in shared memory, columns [first + c kTile, ...) of the moving operand's rows.
template <class T, int kM, int kChunks, class F>
__device__ __forceinline__ void accumulate(acc_t<T> (&sum)[kChunks][kM][kM], const acc_t<T>* weights, acc_t<T>* buffer, const AttentionProblem& p, int first, int ty,
                                           int tx, F&& y) {
  constexpr int kTile = 16 * kM, kStride = kLine<acc_t<T>, kTile>;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (first + c * kTile >= p.dim) break;
    __syncthreads();
    stage<T, kTile, kTile, false>(buffer, first + c * kTile, p.dim, p.packs, y);
    __syncthreads();
    multiply<kM, kTile, kStride>(sum[c], weights, buffer, ty, tx);
  }
}

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
__global__ void __launch_bounds__(kThreads) attention_forward_tiles(AttentionProblem p, int slices) {
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
    accumulate<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, values);
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

// Of the pair (X0, X1) a block holds a tile fixed, over (Y0, Y1) it moves: (K, V) and (Q, G) with kKeysFixed, else the other way round. With
// S = X0 Y0', U = X1 Y1': P = exp(S - lse), dS = P (U - delta). The results are dX0 = scale sum dS Y0, and with keys fixed dV = sum P Y1.
// kBoth: both results at once; else `second` says which one.
template <class T, int kM, int kChunks, bool kKeysFixed, bool kBoth>
__global__ void __launch_bounds__(kThreads) attention_backward_tiles(AttentionProblem p, int slices, bool second) {
  using A = acc_t<T>;
  constexpr int kTile = 16 * kM, kStride = kLine<A, kTile>;
  KSHARED(buffer, A[kTile * kStride]);
  KSHARED(weights, A[kTile * kStride]);
  KSHARED(row_lse, A[kTile]);
  KSHARED(row_delta, A[kTile]);
  KSHARED(row_range, KeyRange[kTile]);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16, key_head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int slice = static_cast<int>(blockIdx.x) % slices, begin = static_cast<int>(blockIdx.x) / slices * kTile, first_column = slice * kChunks * kTile;
  const int fixed_count = kKeysFixed ? p.keys : p.rows, moving_count = kKeysFixed ? p.rows : p.keys;
  const int end = begin + kTile < fixed_count ? begin + kTile : fixed_count;
  KeyRange moving;
  if constexpr (kKeysFixed) moving = rows_of_keys(p, begin, end);
  else moving = {keys_of_row(p, begin).begin, keys_of_row(p, end - 1).end};
  const int moving_end = moving.end < moving_count ? moving.end : moving_count;
  const auto row_of = [&](const AttentionOperand& x, int row) { return row_address<const T>(x, p, batch, key_head, row); };
  const auto key_of = [&](const AttentionOperand& x, int key) { return key_address<const T>(x, batch, key_head, key); };
  const auto fixed0 = [&](int r) { return begin + r >= end ? nullptr : kKeysFixed ? key_of(p.k, begin + r) : row_of(p.q, begin + r); };
  const auto fixed1 = [&](int r) { return begin + r >= end ? nullptr : kKeysFixed ? key_of(p.v, begin + r) : row_of(p.g, begin + r); };
  const auto note_rows = [&](int first_row, int last_row) {
    for (int r = static_cast<int>(threadIdx.x); r < kTile; r += kThreads) {
      const int row = first_row + r;
      const bool inside = row < last_row;
      const A lse = inside ? static_cast<const A*>(p.lse)[statistic_of(p, batch, key_head, row)] : A(0);
      // A row without keys gives nothing: exp(-infinity) = 0 whatever its scores.
      row_range[r] = inside && lse != -infinity<A>() ? keys_of_row(p, row) : KeyRange{0, 0};
      row_lse[r] = lse;
      row_delta[r] = inside ? static_cast<const A*>(p.delta)[statistic_of(p, batch, key_head, row)] : A(0);
    }
  };
  if constexpr (!kKeysFixed) note_rows(begin, end);
  constexpr int kSecondChunks = kBoth ? kChunks : 1;
  A sum[kChunks][kM][kM] = {}, other[kSecondChunks][kM][kM] = {};
  for (int step = moving.begin / kTile * kTile; step < moving_end; step += kTile) {
    const auto moving0 = [&](int r) { return step + r >= moving_end ? nullptr : kKeysFixed ? row_of(p.q, step + r) : key_of(p.k, step + r); };
    const auto moving1 = [&](int r) { return step + r >= moving_end ? nullptr : kKeysFixed ? row_of(p.g, step + r) : key_of(p.v, step + r); };
    if constexpr (kKeysFixed) {
      __syncthreads();  // the step before has read these
      note_rows(step, moving_end);
    }
    A probability[kM][kM], gradient[kM][kM];
    products<T, kM>(probability, buffer, p, ty, tx, fixed0, moving0);
    if (kBoth || !second) products<T, kM>(gradient, buffer, p, ty, tx, fixed1, moving1);
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        const int fixed_at = ty * kM + i, moving_at = tx * kM + j;
        const int row_at = kKeysFixed ? moving_at : fixed_at, key = kKeysFixed ? begin + fixed_at : step + moving_at, row = kKeysFixed ? step + row_at : begin + row_at;
        const bool seen = key >= row_range[row_at].begin && key < row_range[row_at].end && key_allowed(p, batch, key);
        A score = probability[i][j] * static_cast<A>(p.scale);
        if (p.bias && seen) score += bias_value<A>(p, bias_row(p, batch, key_head, row) + key * p.bias_key);
        probability[i][j] = seen ? exponential(score - row_lse[row_at]) : A(0);
        if (kBoth || !second) gradient[i][j] = probability[i][j] * (gradient[i][j] - row_delta[row_at]);
      }
    const auto keep = [&](const A (&value)[kM][kM]) {
#pragma unroll
      for (int j = 0; j < kM; ++j)
#pragma unroll
        for (int i = 0; i < kM; ++i) weights[(tx * kM + j) * kStride + ty * kM + i] = value[i][j];
    };
    if constexpr (kBoth) {
      keep(probability);
      accumulate<T, kM, kSecondChunks>(other, weights, buffer, p, first_column, ty, tx, moving1);
      __syncthreads();  // all have read the probabilities
      keep(gradient);
      accumulate<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving0);
    } else if (second) {
      keep(probability);
      accumulate<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving1);
    } else {
      keep(gradient);
      accumulate<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving0);
    }
  }
  const auto write = [&](const AttentionOperand& to, int i, int d, A value) {
    const int at = begin + ty * kM + i;
    T* result = kKeysFixed ? key_address<T>(to, batch, key_head, at) : row_address<T>(to, p, batch, key_head, at);
    result[d] = convert_to<T>(value);
  };
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        const int d = first_column + c * kTile + tx * kM + j;
        if (begin + ty * kM + i >= end || d >= p.dim) continue;
        if (!kBoth && second) write(p.dv, i, d, sum[c][i][j]);
        else write(kKeysFixed ? p.dk : p.dq, i, d, sum[c][i][j] * static_cast<A>(p.scale));
        if constexpr (kBoth) write(p.dv, i, d, other[c][i][j]);
      }
}

// f(kM, kChunks): tiles of 64 for floats and of 32 for doubles, columns of results for heads of up to 64, 128 and more entries.
template <class T, class F>
void with_tiles(int dim, F&& f) {
  if constexpr (std::is_same_v<T, double>) f(Width<2>{}, Width<4>{});
  else if (dim <= 64) f(Width<4>{}, Width<1>{});
  else if (dim <= 128) f(Width<4>{}, Width<2>{});
  else f(Width<4>{}, Width<4>{});
}

int blocks_of(int count, int tile) { return (count + tile - 1) / tile; }

}  // namespace

void attention_forward_in_tiles(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  visit_float(dtype, "attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_tiles<T>(p.dim, [&](auto m, auto chunks) {
      constexpr int kM = decltype(m)::value, kChunks = decltype(chunks)::value;
      const int slices = blocks_of(p.dim, 16 * kM * kChunks);
      const dim3 grid(static_cast<unsigned>(blocks_of(p.rows, 16 * kM) * p.parts * slices), static_cast<unsigned>(p.key_heads()), static_cast<unsigned>(batch));
      launch(KERNEL(attention_forward_tiles<T, kM, kChunks>), grid, dim3(kThreads), 0, stream, p, slices);
    });
  });
}

void attention_backward_in_tiles(cudaStream_t stream, const AttentionProblem& p, DType dtype, int batch) {
  visit_float(dtype, "attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_tiles<T>(p.dim, [&](auto m, auto chunks) {
      constexpr int kM = decltype(m)::value, kChunks = decltype(chunks)::value;
      constexpr bool kFits = kM * kM * kChunks * sizeof(acc_t<T>) <= 128;  // two results of a thread in its registers
      const int slices = blocks_of(p.dim, 16 * kM * kChunks);
      const auto grid = [&](int count) {
        return dim3(static_cast<unsigned>(blocks_of(count, 16 * kM) * slices), static_cast<unsigned>(p.key_heads()), static_cast<unsigned>(batch));
      };
      if (p.keys > 0 && kFits && p.dk.data && p.dv.data) {
        launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, kFits>), grid(p.keys), dim3(kThreads), 0, stream, p, slices, false);
      } else if (p.keys > 0) {
        if (p.dk.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, false>), grid(p.keys), dim3(kThreads), 0, stream, p, slices, false);
        if (p.dv.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, false>), grid(p.keys), dim3(kThreads), 0, stream, p, slices, true);
      }
      if (p.rows > 0 && p.dq.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, false, false>), grid(p.rows), dim3(kThreads), 0, stream, p, slices, false);
    });
  });
}

}  // namespace cambium::kernels::cuda
