// Products with one small side, which read the large operand once where it lies: sums along k in vectors, and sums of scaled lines.
#include "kernels/cpu/isa/gemm_set.h"
#include "kernels/cpu/isa/lanes.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

/// P lines of p times kLanes / P lines of q: one vector of sums, element i * Q + j; added to what the sums hold if `add`.
template <class S, int P, bool Add>
inline void dot_tile(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, const S* q, int64_t q_stride, int q_lines, int64_t k) {
  constexpr int Q = kLanes / P;
  vf x[kLanes];
  CAMBIUM_UNROLL
  for (int i = 0; i < kLanes; ++i) x[i] = vf{};
  const S* line[Q];
  for (int j = 0; j < Q; ++j) line[j] = q + (j < q_lines ? j : 0) * q_stride;  // a repeated line is computed and not stored
  int64_t at = 0;
  for (; at + kLanes <= k; at += kLanes) {
    vf a[P];
    CAMBIUM_UNROLL
    for (int i = 0; i < P; ++i) a[i] = load(p + i * p_stride + at);
    CAMBIUM_UNROLL
    for (int j = 0; j < Q; ++j) {
      const vf b = load(line[j] + at);
      CAMBIUM_UNROLL
      for (int i = 0; i < P; ++i) x[i * Q + j] = fma(a[i], b, x[i * Q + j]);
    }
  }
  if (at < k) {
    const int n = static_cast<int>(k - at);
    vf a[P];
    CAMBIUM_UNROLL
    for (int i = 0; i < P; ++i) a[i] = load_partial(p + i * p_stride + at, n);
    CAMBIUM_UNROLL
    for (int j = 0; j < Q; ++j) {
      const vf b = load_partial(line[j] + at, n);
      CAMBIUM_UNROLL
      for (int i = 0; i < P; ++i) x[i * Q + j] = fma(a[i], b, x[i * Q + j]);
    }
  }
  float out[kLanes];
  store(out, sums_of<kLanes>(x));
  for (int i = 0; i < P; ++i)
    for (int j = 0; j < q_lines; ++j) {
      float* s = sums + i * row + j * column;
      *s = Add ? *s + out[i * Q + j] : out[i * Q + j];
    }
}

template <class S, int P>
void dot_lines(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, const S* q, int64_t q_stride, int q_lines, int64_t k, bool add) {
  if (add) dot_tile<S, P, true>(sums, row, column, p, p_stride, q, q_stride, q_lines, k);
  else dot_tile<S, P, false>(sums, row, column, p, p_stride, q, q_stride, q_lines, k);
}

#if defined(__AVX2__)
constexpr int kMostLines = 4;
#else
constexpr int kMostLines = 2;
#endif

/// Ranges of k keep all of p in the first-level cache; within one, each group of lines of q meets every line of p.
template <class S>
void dot_from(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& source, int64_t q_lines, int64_t k) {
  const S* q = static_cast<const S*>(source.data);
  int64_t range = 6144 / p_lines / 64 * 64;
  if (range < 256) range = 256;
  for (int64_t from = 0; from < k; from += range) {
    const int64_t length = k - from < range ? k - from : range;
    const bool add = from > 0;
    const int64_t group = p_lines == 1 ? kLanes : p_lines == 2 || kMostLines == 2 ? kLanes / 2 : kLanes / 4;
    for (int64_t j = 0; j < q_lines; j += group) {
      for (int64_t i = 0; i < p_lines;) {
        const float* a = p + i * p_stride + from;
        const int64_t left = p_lines - i;
        const int lines = left >= kMostLines ? kMostLines : left >= 2 ? 2 : 1;
        const int64_t step = kLanes / lines;
        for (int64_t h = j; h < j + group && h < q_lines; h += step) {
          int64_t most = j + group < q_lines ? j + group : q_lines;
          const int n = most - h < step ? static_cast<int>(most - h) : static_cast<int>(step);
          const S* b = q + h * source.line + from;
          float* s = sums + i * row + h * column;
          if (lines == 4) {
            if constexpr (kMostLines == 4) dot_lines<S, 4>(s, row, column, a, p_stride, b, source.line, n, length, add);
          } else if (lines == 2) {
            dot_lines<S, 2>(s, row, column, a, p_stride, b, source.line, n, length, add);
          } else {
            dot_lines<S, 1>(s, row, column, a, p_stride, b, source.line, n, length, add);
          }
        }
        i += lines;
      }
    }
  }
}

/// P lines of sums gain `Step` scaled lines of q each time they are read.
template <class S, int P, int Step>
void accumulate_lines(float* sums, int64_t row, const float* p, int64_t p_stride, const S* q, int64_t q_stride, int64_t lines) {
  vf a[P][Step];
  for (int i = 0; i < P; ++i)
    for (int s = 0; s < Step; ++s) a[i][s] = set(p[i * p_stride + s]);
  int64_t j = 0;
  for (; j + kLanes <= lines; j += kLanes) {
    vf x[P];
    CAMBIUM_UNROLL
    for (int i = 0; i < P; ++i) x[i] = load(sums + i * row + j);
    CAMBIUM_UNROLL
    for (int s = 0; s < Step; ++s) {
      const vf b = load(q + s * q_stride + j);
      CAMBIUM_UNROLL
      for (int i = 0; i < P; ++i) x[i] = fma(a[i][s], b, x[i]);
    }
    CAMBIUM_UNROLL
    for (int i = 0; i < P; ++i) store(sums + i * row + j, x[i]);
  }
  if (j < lines) {
    const int n = static_cast<int>(lines - j);
    for (int i = 0; i < P; ++i) {
      vf x = load_partial(sums + i * row + j, n);
      for (int s = 0; s < Step; ++s) x = fma(a[i][s], load_partial(q + s * q_stride + j, n), x);
      store_partial(sums + i * row + j, x, n);
    }
  }
}

template <class S, int P>
void accumulate_all(float* sums, int64_t row, const float* p, int64_t p_stride, const GemmSource& source, int64_t lines, int64_t k) {
  const S* q = static_cast<const S*>(source.data);
  constexpr int Step = P <= 2 ? 8 : 4;
  for (int i = 0; i < P; ++i)
    for (int64_t j = 0; j < lines; ++j) sums[i * row + j] = 0.0F;
  int64_t at = 0;
  for (; at + Step <= k; at += Step) accumulate_lines<S, P, Step>(sums, row, p + at, p_stride, q + at * source.k, source.k, lines);
  for (; at < k; ++at) accumulate_lines<S, P, 1>(sums, row, p + at, p_stride, q + at * source.k, source.k, lines);
}

template <class S>
void accumulate_from(float* sums, int64_t row, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t lines, int64_t k) {
  switch (p_lines) {
    case 1: return accumulate_all<S, 1>(sums, row, p, p_stride, q, lines, k);
    case 2: return accumulate_all<S, 2>(sums, row, p, p_stride, q, lines, k);
    case 3: return accumulate_all<S, 3>(sums, row, p, p_stride, q, lines, k);
    default: return accumulate_all<S, 4>(sums, row, p, p_stride, q, lines, k);
  }
}

}  // namespace

void dot(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k) {
  if (q.type == Storage::f32) dot_from<float>(sums, row, column, p, p_stride, p_lines, q, q_lines, k);
  else if (q.type == Storage::bf16) dot_from<bf16>(sums, row, column, p, p_stride, p_lines, q, q_lines, k);
  else dot_from<f16>(sums, row, column, p, p_stride, p_lines, q, q_lines, k);
}

void accumulate(float* sums, int64_t row, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k) {
  if (q.type == Storage::f32) accumulate_from<float>(sums, row, p, p_stride, p_lines, q, q_lines, k);
  else if (q.type == Storage::bf16) accumulate_from<bf16>(sums, row, p, p_stride, p_lines, q, q_lines, k);
  else accumulate_from<f16>(sums, row, p, p_stride, p_lines, q, q_lines, k);
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
