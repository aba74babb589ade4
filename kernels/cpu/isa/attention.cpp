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

// A step of decoding has one row per head: tiles would mostly work on padding, while the keys only need to be read once.
constexpr int64_t kFewRows = 4;

template <class T> inline vf load_lanes(const T* p, int64_t rest) { return rest >= kLanes ? load(p) : load_partial(p, static_cast<int>(rest)); }

// scores[j][r] = q_r . k_j: kLanes keys at a time, whose sums over lanes become sums of vectors by a transpose.
template <class T>
void score_few(float* scores, const float* q, int64_t rows, const T* k, int64_t stride, int64_t keys, int64_t dim) {
  float products[kLanes * kLanes], transposed[kLanes * kLanes];
  for (int64_t begin = 0; begin < keys; begin += kLanes) {
    const int64_t count = keys - begin < kLanes ? keys - begin : kLanes;
    for (int64_t j = 0; j < count; ++j) store(scores + (begin + j) * kBlock, set(-kInfinity));
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = q + r * padded_dim(dim);
      for (int64_t j = 0; j < kLanes; ++j) {
        vf product{};
        const T* key = k + (begin + j) * stride;
        for (int64_t d = 0; j < count && d < dim; d += kLanes) product = fma(load_lanes(key + d, dim - d), load(row + d), product);
        store(products + j * kLanes, product);
      }
      transpose_square(transposed, kLanes, products, kLanes);
      vf total = load(transposed);
      for (int64_t i = 1; i < kLanes; ++i) total += load(transposed + i * kLanes);
      float each[kLanes];
      store(each, total);
      for (int64_t j = 0; j < count; ++j) scores[(begin + j) * kBlock + r] = each[j];
    }
  }
}

// out_r = correction_r out_r + sum_j p[j][r] v_j.
template <class T>
void add_few(float* out, const Scratch& s, int64_t rows, const T* v, int64_t stride, int64_t keys, int64_t dim) {
  const int64_t padded = padded_dim(dim);
  for (int64_t r = 0; r < rows; ++r) {
    const vf correction = set(s.correction[r]);
    int64_t d = 0;
    for (; d + 4 * kLanes <= dim; d += 4 * kLanes) {
      float* o = out + r * padded + d;
      vf a = load(o) * correction, b = load(o + kLanes) * correction, c = load(o + 2 * kLanes) * correction, e = load(o + 3 * kLanes) * correction;
      for (int64_t j = 0; j < keys; ++j) {
        const vf p = set(s.scores[j * kBlock + r]);
        const T* value = v + j * stride + d;
        a = fma(p, load(value), a);
        b = fma(p, load(value + kLanes), b);
        c = fma(p, load(value + 2 * kLanes), c);
        e = fma(p, load(value + 3 * kLanes), e);
      }
      store(o, a);
      store(o + kLanes, b);
      store(o + 2 * kLanes, c);
      store(o + 3 * kLanes, e);
    }
    for (; d < dim; d += kLanes) {
      float* o = out + r * padded + d;
      vf a = load(o) * correction;
      for (int64_t j = 0; j < keys; ++j) a = fma(set(s.scores[j * kBlock + r]), load_lanes(v + j * stride + d, dim - d), a);
      store(o, a);
    }
  }
}

template <class T>
void forward_rows(const AttentionHead& h, const AttentionForward& f, int64_t row_begin, int64_t row_end, int64_t key_begin, int64_t key_end, void* scratch) {
  Scratch& s = *static_cast<Scratch*>(scratch);
  const int64_t padded = padded_dim(h.dim), rows = row_end - row_begin, lanes = round_up(rows, kLanes);
  float* buffer = reinterpret_cast<float*>(static_cast<char*>(scratch) + round_up(sizeof(Scratch), 64));
  float *q = buffer, *out = q + kBlock * padded, *keys = out + kBlock * padded, *values = keys + kBlock * padded;
  const bool few = rows <= kFewRows;
  load_rows<T>(out, q, h, h.q, h.q_stride, h.q_head, row_begin, row_end, h.scale);
  if (few) {
    memcpy(q, out, static_cast<size_t>(rows * padded) * sizeof(float));
    memset(out, 0, static_cast<size_t>(rows * padded) * sizeof(float));
  }
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
    if (few) {
      score_few(s.scores, q, rows, row_at<T>(h.k, begin * h.k_stride), h.k_stride, count, h.dim);
      restrict_scores(s.scores, h, s.ranges, row_begin, rows, begin, end);
      softmax_block(s, count, kLanes);
      add_few(out, s, rows, row_at<T>(h.v, begin * h.v_stride), h.v_stride, count, h.dim);
      first = false;
      continue;
    }
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
