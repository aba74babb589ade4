// Attention backward: probabilities come back from scores and log-sum-exp, five products per block (Dao 2022, arXiv 2205.14135, algorithm 4).
//
// With S = scale Q K', P = exp(S - lse), D_i = g_i . out_i:  dV = P' G,  dP = G V',  dS = P (dP - D),  dQ = scale dS K,  dK = scale dS' Q.
// All blocks are held transposed, (keys, rows), as in the forward.
#include "kernels/cpu/isa/attention_scores.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

int64_t attention_backward_scratch(int64_t dim, int64_t keys);
void attention_backward(const AttentionHead& h, const AttentionBackward& b, int64_t key_begin, int64_t key_end, void* scratch);
void attention_sum_dq(const AttentionHead& h, const AttentionBackward& b, int64_t row_begin, int64_t row_end, int64_t rows, int64_t parts, const float* partial);

namespace {

struct Scratch {
  RowRanges ranges;
  float lse[kBlock], delta[kBlock];
  float scores[kBlock * kBlock], gradients[kBlock * kBlock];
};

// P over the scores and dS = P (dP - delta) over dP.
void probabilities(Scratch& s, int64_t keys, int64_t lanes) {
  for (int64_t i = 0; i < lanes; i += kLanes) {
    const vf lse = load(s.lse + i), delta = load(s.delta + i);
    for (int64_t j = 0; j < keys; ++j) {
      float *score = s.scores + j * kBlock + i, *gradient = s.gradients + j * kBlock + i;
      const vf p = exp_negative(load(score) - lse);
      store(score, p);
      store(gradient, p * (load(gradient) - delta));
    }
  }
}

template <class T>
void load_statistics(Scratch& s, const AttentionHead& h, const AttentionBackward& b, int64_t row_begin, int64_t rows, const float* g) {
  const int64_t padded = padded_dim(h.dim);
  for (int64_t i = 0; i < kBlock; ++i) {
    s.lse[i] = kInfinity;
    s.delta[i] = 0.0F;
  }
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = row_begin + i, query = row / h.group, head = row % h.group;
    const T* out = row_at<T>(b.out, query * b.out_stride + head * b.out_head);
    vf sum_vector{};
    for (int64_t d = 0; d < h.dim; d += kLanes)
      sum_vector = fma(h.dim - d < kLanes ? load_partial(out + d, static_cast<int>(h.dim - d)) : load(out + d), load(g + i * padded + d), sum_vector);
    s.delta[i] = sum(sum_vector);
    const float lse = b.lse[head * b.lse_head + query];
    s.lse[i] = lse == -kInfinity ? kInfinity : lse;
  }
}

template <class T>
void backward_keys(const AttentionHead& h, const AttentionBackward& b, int64_t key_begin, int64_t key_end, void* scratch) {
  Scratch& s = *static_cast<Scratch*>(scratch);
  const int64_t padded = padded_dim(h.dim), all_rows = h.queries * h.group, block = kBlock * padded;
  float* buffer = reinterpret_cast<float*>(static_cast<char*>(scratch) + round_up(sizeof(Scratch), 64));
  float *q = buffer, *qt = q + block, *g = qt + block, *gt = g + block, *dq = gt + block, *keys = dq + block, *values = keys + block;
  float *dk = values + block, *dv = dk + round_up(key_end - key_begin, kBlock) * padded;
  const bool wants_dq = b.dq || b.dq_partial;
  memset(dk, 0, static_cast<size_t>(2 * round_up(key_end - key_begin, kBlock) * padded) * sizeof(float));

  for (int64_t row_begin = 0; row_begin < all_rows; row_begin += kBlock) {
    const int64_t row_end = row_begin + kBlock < all_rows ? row_begin + kBlock : all_rows, rows = row_end - row_begin, lanes = round_up(rows, kLanes);
    find_ranges(s.ranges, h, row_begin, row_end);
    // Whole tiles of keys: a tile writes all of its rows of dK and dV.
    const int64_t seen = round_up(s.ranges.any_end, kBlockRows), last = seen < key_end ? seen : key_end;
    int64_t begin = key_begin;
    if (s.ranges.any_begin / kBlock * kBlock > begin) begin = s.ranges.any_begin / kBlock * kBlock;
    bool first = true;
    if (begin < last) {
      load_rows<T>(q, qt, h, h.q, h.q_stride, h.q_head, row_begin, row_end, h.scale);
      load_rows<T>(g, gt, h, b.g, b.g_stride, b.g_head, row_begin, row_end, 1.0F);
      load_statistics<T>(s, h, b, row_begin, rows, g);
    }
    for (; begin < last; begin += kBlock) {
      const int64_t end = begin + kBlock < last ? begin + kBlock : last, count = end - begin, at = (begin - key_begin) * padded;
      const FloatRows k = float_rows<T>(keys, h.k, h.k_stride, begin, end, h.dim), v = float_rows<T>(values, h.v, h.v_stride, begin, end, h.dim);
      block_product<true, Before::clear>(s.scores, kBlock, k.data, k.stride, qt, kBlock, count, lanes, h.dim, nullptr);
      block_product<true, Before::clear>(s.gradients, kBlock, v.data, v.stride, gt, kBlock, count, lanes, h.dim, nullptr);
      restrict_scores(s.scores, h, s.ranges, row_begin, rows, begin, end);
      probabilities(s, count, lanes);
      if (b.dv) block_product<true, Before::keep>(dv + at, padded, s.scores, kBlock, g, padded, count, padded, rows, nullptr);
      if (b.dk) block_product<true, Before::keep>(dk + at, padded, s.gradients, kBlock, q, padded, count, padded, rows, nullptr);
      if (!wants_dq) continue;
      if (first) block_product<false, Before::clear>(dq, padded, s.gradients, kBlock, k.data, k.stride, rows, padded, count, nullptr);
      else block_product<false, Before::keep>(dq, padded, s.gradients, kBlock, k.data, k.stride, rows, padded, count, nullptr);
      first = false;
    }
    for (int64_t i = 0; i < rows && wants_dq; ++i) {
      const int64_t row = row_begin + i;
      if (first) load_row(dq + i * padded, dq, 0, padded, 0.0F);
      if (b.dq_partial) store_row(b.dq_partial + row * h.dim, dq + i * padded, h.dim, h.scale);
      else store_row(row_at<T>(b.dq, row / h.group * b.dq_stride + row % h.group * b.dq_head), dq + i * padded, h.dim, h.scale);
    }
  }
  for (int64_t j = key_begin; j < key_end; ++j) {
    if (b.dk) store_row(row_at<T>(b.dk, j * b.dk_stride), dk + (j - key_begin) * padded, h.dim, 1.0F);
    if (b.dv) store_row(row_at<T>(b.dv, j * b.dv_stride), dv + (j - key_begin) * padded, h.dim, 1.0F);
  }
}

template <class T>
void sum_parts(const AttentionHead& h, const AttentionBackward& b, int64_t row_begin, int64_t row_end, int64_t rows, int64_t parts, const float* partial) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    T* to = row_at<T>(b.dq, row / h.group * b.dq_stride + row % h.group * b.dq_head);
    for (int64_t d = 0; d < h.dim; d += kLanes) {
      const int n = h.dim - d < kLanes ? static_cast<int>(h.dim - d) : kLanes;
      vf total{};
      for (int64_t p = 0; p < parts; ++p) total += load_partial(partial + (p * rows + row) * h.dim + d, n);
      store_partial(to + d, total, n);
    }
  }
}

}  // namespace

int64_t attention_backward_scratch(int64_t dim, int64_t keys) {
  return round_up(sizeof(Scratch), 64) + (7 * kBlock + 2 * round_up(keys, kBlock)) * padded_dim(dim) * 4;
}

void attention_backward(const AttentionHead& h, const AttentionBackward& b, int64_t key_begin, int64_t key_end, void* scratch) {
  visit_element(h.type, [&](auto* type) { backward_keys<Pointee<decltype(type)>>(h, b, key_begin, key_end, scratch); });
}

void attention_sum_dq(const AttentionHead& h, const AttentionBackward& b, int64_t row_begin, int64_t row_end, int64_t rows, int64_t parts, const float* partial) {
  visit_element(h.type, [&](auto* type) { sum_parts<Pointee<decltype(type)>>(h, b, row_begin, row_end, rows, parts, partial); });
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
