// Attention forward over blocks of 64 rows and 64 keys with a running maximum and sum (Dao 2022, arXiv 2205.14135, algorithm 1).
//
// Scores are held transposed, (keys, rows): keys enter by broadcast and need no packing, the softmax runs along vectors of rows without
// sums over lanes, and the block is at once the packed left operand of the product with the values.
#include "kernels/cpu/isa/attention.h"

#include "kernels/cpu/isa/attention_scores.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

struct Scratch {
  RowRanges ranges;
  float maximum[kBlock], total[kBlock], correction[kBlock];
  float scores[kBlock * kBlock];
};

// One block of scores to probabilities relative to the new maximum; updates maximum, total and correction of each row.
void softmax_block(Scratch& s, int64_t keys, int64_t lanes) {
  for (int64_t i = 0; i < lanes; i += kLanes) {
    const vf before = load(s.maximum + i);
    vf m = before;
    for (int64_t j = 0; j < keys; ++j) m = max(m, load(s.scores + j * kBlock + i));
    const vf base = select(m == -kInfinity, vf{}, m);
    const vf correction = exp_negative(before - base);
    vf total = load(s.total + i) * correction;
    for (int64_t j = 0; j < keys; ++j) {
      float* score = s.scores + j * kBlock + i;
      const vf p = exp_negative(load(score) - base);
      store(score, p);
      total += p;
    }
    store(s.maximum + i, m);
    store(s.total + i, total);
    store(s.correction + i, correction);
  }
}

template <class T>
void forward_rows(const AttentionHead& h, const AttentionForward& f, int64_t row_begin, int64_t row_end, int64_t key_begin, int64_t key_end, void* scratch) {
  Scratch& s = *static_cast<Scratch*>(scratch);
  const int64_t padded = padded_dim(h.dim), rows = row_end - row_begin, lanes = round_up(rows, kLanes);
  float* buffer = reinterpret_cast<float*>(static_cast<char*>(scratch) + round_up(sizeof(Scratch), 64));
  float *q = buffer, *out = q + kBlock * padded, *keys = out + kBlock * padded, *values = keys + kBlock * padded;
  load_rows<T>(out, q, h, h.q, h.q_stride, h.q_head, row_begin, row_end, h.scale);
  find_ranges(s.ranges, h, row_begin, row_end);
  for (int64_t i = 0; i < kBlock; ++i) {
    s.maximum[i] = -kInfinity;
    s.total[i] = 0.0F;
  }
  bool first = true;
  if (s.ranges.any_begin > key_begin) key_begin = s.ranges.any_begin / kBlock * kBlock > key_begin ? s.ranges.any_begin / kBlock * kBlock : key_begin;
  if (s.ranges.any_end < key_end) key_end = s.ranges.any_end;
  for (int64_t begin = key_begin; begin < key_end; begin += kBlock) {
    const int64_t end = begin + kBlock < key_end ? begin + kBlock : key_end, count = end - begin;
    const FloatRows k = float_rows<T>(keys, h.k, h.k_stride, begin, end, h.dim);
    block_product<true, Before::clear>(s.scores, kBlock, k.data, k.stride, q, kBlock, count, lanes, h.dim, nullptr);
    restrict_scores(s.scores, h, s.ranges, row_begin, rows, begin, end);
    softmax_block(s, count, lanes);
    const FloatRows v = float_rows<T>(values, h.v, h.v_stride, begin, end, h.dim);
    if (first) block_product<false, Before::clear>(out, padded, s.scores, kBlock, v.data, v.stride, rows, padded, count, nullptr);
    else block_product<false, Before::scale>(out, padded, s.scores, kBlock, v.data, v.stride, rows, padded, count, s.correction);
    first = false;
  }
  for (int64_t i = 0; i < kBlock; i += kLanes) {
    const vf total = load(s.total + i), nothing_seen = select(total == 0.0F, set(-kInfinity), load(s.maximum + i) + vlog(total));
    store(s.maximum + i, nothing_seen);
    store(s.correction + i, select(total == 0.0F, vf{}, 1.0F / total));
  }
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = row_begin + i, query = row / h.group, head = row % h.group;
    float* o = out + i * padded;
    if (first) load_row(o, o, 0, padded, 0.0F);
    if (f.partial) store_row(static_cast<float*>(f.out) + row * h.dim, o, h.dim, s.correction[i]);
    else store_row(row_at<T>(f.out, query * f.out_stride + head * f.out_head), o, h.dim, s.correction[i]);
    if (f.lse) f.lse[f.partial ? row : head * f.lse_head + query] = s.maximum[i];
  }
}

int64_t forward_scratch(int64_t dim) { return round_up(sizeof(Scratch), 64) + 4 * kBlock * padded_dim(dim) * 4; }

void forward(const AttentionHead& h, const AttentionForward& f, int64_t row_begin, int64_t row_end, int64_t key_begin, int64_t key_end, void* scratch) {
  visit_element(h.type, [&](auto* type) { forward_rows<Pointee<decltype(type)>>(h, f, row_begin, row_end, key_begin, key_end, scratch); });
}

template <class T>
void combine_rows(const AttentionHead& h, const AttentionForward& f, int64_t rows, int64_t parts, const float* outs, const float* lses) {
  for (int64_t row = 0; row < rows; ++row) {
    float m = -kInfinity, total = 0.0F;
    for (int64_t p = 0; p < parts; ++p) m = lses[p * rows + row] > m ? lses[p * rows + row] : m;
    T* out = row_at<T>(f.out, row / h.group * f.out_stride + row % h.group * f.out_head);
    for (int64_t p = 0; p < parts; ++p) total += m == -kInfinity ? 0.0F : vexp(set(lses[p * rows + row] - m))[0];
    for (int64_t d = 0; d < h.dim; d += kLanes) {
      const int n = h.dim - d < kLanes ? static_cast<int>(h.dim - d) : kLanes;
      vf sum{};
      if (m != -kInfinity)
        for (int64_t p = 0; p < parts; ++p) sum = fma(vexp(set(lses[p * rows + row] - m)), load_partial(outs + (p * rows + row) * h.dim + d, n), sum);
      store_partial(out + d, m == -kInfinity ? sum : sum / total, n);
    }
    if (f.lse) f.lse[row % h.group * f.lse_head + row / h.group] = m == -kInfinity ? m : m + vlog(set(total))[0];
  }
}

void combine(const AttentionHead& h, const AttentionForward& f, int64_t rows, int64_t parts, const float* outs, const float* lses) {
  visit_element(h.type, [&](auto* type) { combine_rows<Pointee<decltype(type)>>(h, f, rows, parts, outs, lses); });
}

}  // namespace

int64_t attention_backward_scratch(int64_t dim, int64_t keys);
void attention_backward(const AttentionHead& h, const AttentionBackward& b, int64_t key_begin, int64_t key_end, void* scratch);
void attention_sum_dq(const AttentionHead& h, const AttentionBackward& b, int64_t row_begin, int64_t row_end, int64_t rows, int64_t parts, const float* partial);

extern const AttentionTable attention_table;
constinit const AttentionTable attention_table = {
    .forward_scratch = forward_scratch,
    .backward_scratch = attention_backward_scratch,
    .forward = forward,
    .backward = attention_backward,
    .combine = combine,
    .sum_dq = attention_sum_dq,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
