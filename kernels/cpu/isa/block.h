// Small matrix products and transposes on blocks that lie in the first-level cache: the building stones of attention.
#pragma once

#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

#if defined(__AVX512F__)
inline constexpr int kBlockRows = 8;
#else
inline constexpr int kBlockRows = 4;
#endif

/// What happens to C before the product is added to it.
enum class Before { clear, keep, scale };

// kBlockRows x (NV vectors) of C stay in registers over the whole inner length. A has stride 1 along the inner dimension or along rows.
template <int NV, bool kInnerDense, Before kBefore>
inline __attribute__((always_inline)) void block_tile(float* c, int64_t ldc, const float* a, int64_t lda, int64_t last_row, const float* b, int64_t ldb, int64_t inner,
                                                      const float* scale) {
  vf acc[kBlockRows][static_cast<size_t>(NV)];
  const float* rows[kBlockRows];
  for (int i = 0; i < kBlockRows; ++i) {
    // Rows past the end repeat the last one; C has room for them.
    const int64_t row = i < last_row ? i : last_row;
    rows[i] = a + row * lda;
    for (int j = 0; j < NV; ++j) {
      if constexpr (kBefore == Before::clear) acc[i][j] = vf{};
      else if constexpr (kBefore == Before::keep) acc[i][j] = load(c + i * ldc + j * kLanes);
      else acc[i][j] = load(c + i * ldc + j * kLanes) * scale[i];
    }
  }
  for (int64_t p = 0; p < inner; ++p) {
    vf bv[static_cast<size_t>(NV)];
    for (int j = 0; j < NV; ++j) bv[j] = load(b + p * ldb + j * kLanes);
    for (int i = 0; i < kBlockRows; ++i) {
      const vf av = set(kInnerDense ? rows[i][p] : a[p * lda + i]);
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kBlockRows; ++i)
    for (int j = 0; j < NV; ++j) store(c + i * ldc + j * kLanes, acc[i][j]);
}

/// C (m, n) = A B, + C or + scale_i C_i. n a multiple of kLanes; C has room for m rounded up to kBlockRows rows. A's element (i, p) lies at
/// a[i lda + p] if kInnerDense, else at a[p lda + i] (then m may be rounded up in A, too).
template <bool kInnerDense, Before kBefore>
inline void block_product(float* c, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t m, int64_t n, int64_t inner, const float* scale) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes)
    for (int64_t i = 0; i < m; i += kBlockRows)
      block_tile<2, kInnerDense, kBefore>(c + i * ldc + j, ldc, a + (kInnerDense ? i * lda : i), lda, m - 1 - i, b + j, ldb, inner, scale + (kBefore == Before::scale ? i : 0));
  if (j < n)
    for (int64_t i = 0; i < m; i += kBlockRows)
      block_tile<1, kInnerDense, kBefore>(c + i * ldc + j, ldc, a + (kInnerDense ? i * lda : i), lda, m - 1 - i, b + j, ldb, inner, scale + (kBefore == Before::scale ? i : 0));
}

#if defined(__AVX512F__)
inline void transpose_square(float* to, int64_t to_stride, const float* from, int64_t from_stride) {
  __m512 r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int k = 0; k < 2; ++k) {
      const __m512d x = _mm512_castps_pd(t[i + k]), y = _mm512_castps_pd(t[i + 2 + k]);
      r[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      r[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  }
  // r[4 a + c] holds, in its 128-bit lane l, column 4 l + c of rows 4 a .. 4 a + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 x = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), y = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 z = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd), w = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_ps(to + c * to_stride, _mm512_shuffle_f32x4(x, y, 0x88));
    _mm512_storeu_ps(to + (4 + c) * to_stride, _mm512_shuffle_f32x4(z, w, 0x88));
    _mm512_storeu_ps(to + (8 + c) * to_stride, _mm512_shuffle_f32x4(x, y, 0xdd));
    _mm512_storeu_ps(to + (12 + c) * to_stride, _mm512_shuffle_f32x4(z, w, 0xdd));
  }
}
#else
// Four-by-four squares; AVX2 is rare enough on the machines that train.
inline void transpose_four(float* to, int64_t to_stride, const float* from, int64_t from_stride) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_stride), c = _mm_loadu_ps(from + 2 * from_stride), d = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_stride, b);
  _mm_storeu_ps(to + 2 * to_stride, c);
  _mm_storeu_ps(to + 3 * to_stride, d);
}
inline void transpose_square(float* to, int64_t to_stride, const float* from, int64_t from_stride) {
  for (int i = 0; i < kLanes; i += 4)
    for (int j = 0; j < kLanes; j += 4) transpose_four(to + j * to_stride + i, to_stride, from + i * from_stride + j, from_stride);
}
#endif

/// to (columns, rows) = from (rows, columns); both sizes multiples of kLanes.
inline void transpose_block(float* to, int64_t to_stride, const float* from, int64_t from_stride, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) transpose_square(to + j * to_stride + i, to_stride, from + i * from_stride + j, from_stride);
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
