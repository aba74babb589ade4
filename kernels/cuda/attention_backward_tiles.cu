// Attention with multiply-adds, backward, for every float dtype and any head size.
#include "kernels/cuda/attention_tiles.h"

namespace cambium::kernels::cuda {
namespace {

// Of the pair (X0, X1) a block holds a tile fixed, over (Y0, Y1) it moves: (K, V) and (Q, G) with kKeysFixed, else the other way round. With
// S = X0 Y0', U = X1 Y1': P = exp(S - lse), dS = P (U - delta). The results are dX0 = scale sum dS Y0, and with keys fixed dV = sum P Y1.
// kBoth: both results at once; else `second` says which one.
template <class T, int kM, int kChunks, bool kKeysFixed, bool kBoth>
__global__ void __launch_bounds__(kTileThreads) attention_backward_tiles(AttentionProblem p, int slices, bool second) {
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
    for (int r = static_cast<int>(threadIdx.x); r < kTile; r += kTileThreads) {
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
      accumulate_slices<T, kM, kSecondChunks>(other, weights, buffer, p, first_column, ty, tx, moving1);
      __syncthreads();  // all have read the probabilities
      keep(gradient);
      accumulate_slices<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving0);
    } else if (second) {
      keep(probability);
      accumulate_slices<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving1);
    } else {
      keep(gradient);
      accumulate_slices<T, kM, kChunks>(sum, weights, buffer, p, first_column, ty, tx, moving0);
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

}  // namespace

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
        launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, kFits>), grid(p.keys), dim3(kTileThreads), 0, stream, p, slices, false);
      } else if (p.keys > 0) {
        if (p.dk.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, false>), grid(p.keys), dim3(kTileThreads), 0, stream, p, slices, false);
        if (p.dv.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, true, false>), grid(p.keys), dim3(kTileThreads), 0, stream, p, slices, true);
      }
      if (p.rows > 0 && p.dq.data) launch(KERNEL(attention_backward_tiles<T, kM, kChunks, false, false>), grid(p.rows), dim3(kTileThreads), 0, stream, p, slices, false);
    });
  });
}

}  // namespace cambium::kernels::cuda
