// Vectors of the instruction set that a file is compiled for: load, store, tails, conversion, arithmetic, fixed-tree sums.
//
// Included only by the files of kernels/cpu/isa, which are compiled once per set with CAMBIUM_ISA naming the set. Everything lives in the set's
// own namespace: an inline function with the same name in two sets would be merged by the linker, and a program that runs the portable set would
// execute AVX-512 code. For the same reason no std:: template and no header of the library with inline functions may be included here.
#pragma once

#include <stdint.h>
#include <string.h>

#include <immintrin.h>

#ifndef CAMBIUM_ISA
#error "compile files of kernels/cpu/isa with -DCAMBIUM_ISA=<set>"
#endif

namespace cambium::kernels::cpu::CAMBIUM_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif
inline constexpr int kDoubleLanes = kLanes / 2;

typedef float vf __attribute__((vector_size(4 * kLanes)));       ///< floats
typedef int32_t vi __attribute__((vector_size(4 * kLanes)));     ///< their bits, and masks: -1 where true
typedef uint32_t vu __attribute__((vector_size(4 * kLanes)));
typedef double vd __attribute__((vector_size(4 * kLanes)));      ///< doubles, half as many
typedef int64_t vl __attribute__((vector_size(4 * kLanes)));
typedef uint16_t vh __attribute__((vector_size(2 * kLanes)));    ///< kLanes 16-bit numbers

// Storage types of this set. dtype.h has the ones with conversions; these have the same layout and no inline code.
struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

inline vf set(float x) { return x - vf{}; }                    // x - 0 is x for every x and costs nothing; 0 + x is not, for -0
inline vd set(double x) { return x - vd{}; }
inline vi set(int32_t x) { return vi{} + x; }
inline vf bits_to_float(vi x) { return reinterpret_cast<vf>(x); }
inline vi bits_of(vf x) { return reinterpret_cast<vi>(x); }

// Conversion of 16-bit numbers. To bf16: round to nearest, ties to even, NaN stays NaN.
inline vf widen(vh x, bf16) { return reinterpret_cast<vf>(__builtin_convertvector(x, vu) << 16); }
inline vh narrow(vf x, bf16) {
  const vu u = reinterpret_cast<vu>(x);
  const vu rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16, quiet = (u >> 16) | 0x40U;
  const vu nan = reinterpret_cast<vu>(x != x);
  return __builtin_convertvector((nan & quiet) | (~nan & rounded), vh);
}
#if defined(__AVX512F__)
inline vf widen(vh x, f16) { return reinterpret_cast<vf>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(x))); }
inline vh narrow(vf x, f16) { return reinterpret_cast<vh>(_mm512_cvtps_ph(reinterpret_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT)); }
#elif defined(__AVX2__)
inline vf widen(vh x, f16) { return reinterpret_cast<vf>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(x))); }
inline vh narrow(vf x, f16) { return reinterpret_cast<vh>(_mm256_cvtps_ph(reinterpret_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT)); }
#else
inline vu choose(vi mask, vu a, vu b) {
  const vu m = reinterpret_cast<vu>(mask);
  return (m & a) | (~m & b);
}
inline vf widen(vh x, f16) {
  const vu h = __builtin_convertvector(x, vu), sign = (h & 0x8000U) << 16, rest = h & 0x7fffU;
  const vf subnormal = __builtin_convertvector(reinterpret_cast<vi>(rest), vf) * 0x1p-24F;
  vu u = (rest << 13) + (112U << 23);                                        // normal
  u = choose(rest >= 0x7c00U, (rest << 13) | 0x7f800000U, u);                // infinity, NaN
  u = choose(rest > 0x7c00U, u | 0x400000U, u);                              // NaN becomes quiet, as the instruction makes it
  u = choose(rest < 0x400U, reinterpret_cast<vu>(subnormal), u);
  return reinterpret_cast<vf>(u | sign);
}
inline vh narrow(vf x, f16) {
  const vu u = reinterpret_cast<vu>(x), sign = (u >> 16) & 0x8000U, a = u & 0x7fffffffU;
  const vu subnormal = reinterpret_cast<vu>(reinterpret_cast<vf>(a) + 0.5F) - 0x3f000000U;  // the sum rounds once, at 2^-24
  vu h = (a - 0x38000000U + 0xfffU + ((a >> 13) & 1U)) >> 13;
  h = choose(a < 0x38800000U, subnormal, h);
  h = choose(a >= 0x477ff000U, vu{} + 0x7c00U, h);
  h = choose(a > 0x7f800000U, ((a >> 13) & 0x3ffU) | 0x7e00U, h);
  return __builtin_convertvector(h | sign, vh);
}
#endif

// Loads and stores at any alignment; the `partial` ones touch the first n lanes only, 0 <= n <= lanes, and load 0 elsewhere.
inline vf load(const float* p) { vf x; memcpy(&x, p, sizeof x); return x; }
inline vd load(const double* p) { vd x; memcpy(&x, p, sizeof x); return x; }
inline void store(float* p, vf x) { memcpy(p, &x, sizeof x); }
inline void store(double* p, vd x) { memcpy(p, &x, sizeof x); }

#if defined(__AVX512F__)
inline __mmask16 first(int n) { return static_cast<__mmask16>((1U << n) - 1U); }
inline vf load_partial(const float* p, int n) { return reinterpret_cast<vf>(_mm512_maskz_loadu_ps(first(n), p)); }
inline void store_partial(float* p, vf x, int n) { _mm512_mask_storeu_ps(p, first(n), reinterpret_cast<__m512>(x)); }
inline vd load_partial(const double* p, int n) { return reinterpret_cast<vd>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(first(n)), p)); }
inline void store_partial(double* p, vd x, int n) { _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first(n)), reinterpret_cast<__m512d>(x)); }
inline vh load_half(const uint16_t* p, int n) { return reinterpret_cast<vh>(_mm256_maskz_loadu_epi16(first(n), p)); }
inline void store_half(uint16_t* p, vh x, int n) { _mm256_mask_storeu_epi16(p, first(n), reinterpret_cast<__m256i>(x)); }
#else
#if defined(__AVX2__)
alignas(32) inline constexpr int32_t kTail[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
inline __m256i first(int n) { __m256i m; memcpy(&m, kTail + 8 - n, sizeof m); return m; }
inline vf load_partial(const float* p, int n) { return reinterpret_cast<vf>(_mm256_maskload_ps(p, first(n))); }
inline void store_partial(float* p, vf x, int n) { _mm256_maskstore_ps(p, first(n), reinterpret_cast<__m256>(x)); }
inline vd load_partial(const double* p, int n) { return reinterpret_cast<vd>(_mm256_maskload_pd(p, first(2 * n))); }
inline void store_partial(double* p, vd x, int n) { _mm256_maskstore_pd(p, first(2 * n), reinterpret_cast<__m256d>(x)); }
#else
inline vf load_partial(const float* p, int n) { vf x{}; for (int i = 0; i < n; ++i) x[i] = p[i]; return x; }
inline void store_partial(float* p, vf x, int n) { for (int i = 0; i < n; ++i) p[i] = x[i]; }
inline vd load_partial(const double* p, int n) { vd x{}; for (int i = 0; i < n; ++i) x[i] = p[i]; return x; }
inline void store_partial(double* p, vd x, int n) { for (int i = 0; i < n; ++i) p[i] = x[i]; }
#endif
inline vh load_half(const uint16_t* p, int n) { uint16_t t[kLanes] = {}; for (int i = 0; i < n; ++i) t[i] = p[i]; vh x; memcpy(&x, t, sizeof x); return x; }
inline void store_half(uint16_t* p, vh x, int n) { uint16_t t[kLanes]; memcpy(t, &x, sizeof x); for (int i = 0; i < n; ++i) p[i] = t[i]; }
#endif

// 16-bit storage reads and writes as float vectors, so that a kernel is one template over float, bf16 and f16.
template <class H> inline vf load16(const H* p) { vh x; memcpy(&x, p, sizeof x); return widen(x, H{}); }
template <class H> inline void store16(H* p, vf x) { const vh h = narrow(x, H{}); memcpy(p, &h, sizeof h); }
inline vf load(const bf16* p) { return load16(p); }
inline vf load(const f16* p) { return load16(p); }
inline void store(bf16* p, vf x) { store16(p, x); }
inline void store(f16* p, vf x) { store16(p, x); }
inline vf load_partial(const bf16* p, int n) { return widen(load_half(reinterpret_cast<const uint16_t*>(p), n), bf16{}); }
inline vf load_partial(const f16* p, int n) { return widen(load_half(reinterpret_cast<const uint16_t*>(p), n), f16{}); }
inline void store_partial(bf16* p, vf x, int n) { store_half(reinterpret_cast<uint16_t*>(p), narrow(x, bf16{}), n); }
inline void store_partial(f16* p, vf x, int n) { store_half(reinterpret_cast<uint16_t*>(p), narrow(x, f16{}), n); }

// One element as the type that is computed in, and back.
inline float value_of(float x) { return x; }
inline double value_of(double x) { return x; }
inline float value_of(bf16 x) { const uint32_t u = static_cast<uint32_t>(x.bits) << 16; float f; memcpy(&f, &u, 4); return f; }
inline float value_of(f16 x) { return load_partial(&x, 1)[0]; }
inline void put(float* p, float x) { *p = x; }
inline void put(double* p, double x) { *p = x; }
inline void put(bf16* p, float x) { store_partial(p, set(x), 1); }
inline void put(f16* p, float x) { store_partial(p, set(x), 1); }

// Arithmetic. fma is one rounding in avx2 and avx512, two in portable.
#if defined(__AVX512F__)
inline vf fma(vf a, vf b, vf c) { return reinterpret_cast<vf>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c))); }
inline vd fma(vd a, vd b, vd c) { return reinterpret_cast<vd>(_mm512_fmadd_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), reinterpret_cast<__m512d>(c))); }
inline vf sqrt(vf a) { return reinterpret_cast<vf>(_mm512_sqrt_ps(reinterpret_cast<__m512>(a))); }
inline vd sqrt(vd a) { return reinterpret_cast<vd>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(a))); }
inline vi to_int(vf a) { return reinterpret_cast<vi>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(a))); }  ///< to nearest even
inline vf select(vi mask, vf a, vf b) { return reinterpret_cast<vf>(_mm512_mask_blend_ps(_mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a))); }
#elif defined(__AVX2__)
inline vf fma(vf a, vf b, vf c) { return reinterpret_cast<vf>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c))); }
inline vd fma(vd a, vd b, vd c) { return reinterpret_cast<vd>(_mm256_fmadd_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b), reinterpret_cast<__m256d>(c))); }
inline vf sqrt(vf a) { return reinterpret_cast<vf>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a))); }
inline vd sqrt(vd a) { return reinterpret_cast<vd>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(a))); }
inline vi to_int(vf a) { return reinterpret_cast<vi>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(a))); }
inline vf select(vi mask, vf a, vf b) { return reinterpret_cast<vf>(_mm256_blendv_ps(reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(mask))); }
#else
inline vf fma(vf a, vf b, vf c) { return a * b + c; }
inline vd fma(vd a, vd b, vd c) { return a * b + c; }
inline vf sqrt(vf a) { return reinterpret_cast<vf>(_mm_sqrt_ps(reinterpret_cast<__m128>(a))); }
inline vd sqrt(vd a) { return reinterpret_cast<vd>(_mm_sqrt_pd(reinterpret_cast<__m128d>(a))); }
inline vi to_int(vf a) { return reinterpret_cast<vi>(_mm_cvtps_epi32(reinterpret_cast<__m128>(a))); }
inline vf select(vi mask, vf a, vf b) { return reinterpret_cast<vf>((mask & reinterpret_cast<vi>(a)) | (~mask & reinterpret_cast<vi>(b))); }
#endif
inline vd select(vl mask, vd a, vd b) { return reinterpret_cast<vd>((mask & reinterpret_cast<vl>(a)) | (~mask & reinterpret_cast<vl>(b))); }
inline vf to_float(vi a) { return __builtin_convertvector(a, vf); }
inline vf abs(vf a) { return bits_to_float(bits_of(a) & 0x7fffffff); }
inline vf copy_sign(vf magnitude, vf sign) { return bits_to_float((bits_of(magnitude) & 0x7fffffff) | (bits_of(sign) & static_cast<int32_t>(0x80000000U))); }
// As the machine's instruction: the second operand where either is NaN.
inline vf max(vf a, vf b) { return select(a > b, a, b); }
inline vf min(vf a, vf b) { return select(a < b, a, b); }
inline vd max(vd a, vd b) { return select(a > b, a, b); }
inline vd min(vd a, vd b) { return select(a < b, a, b); }

// Over the lanes: halves are combined until one is left, so the tree is fixed for a set.
inline float sum(vf x) {
  float t[kLanes];
  memcpy(t, &x, sizeof t);
  for (int n = kLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) t[i] += t[i + n];
  return t[0];
}
inline double sum(vd x) {
  double t[kDoubleLanes];
  memcpy(t, &x, sizeof t);
  for (int n = kDoubleLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) t[i] += t[i + n];
  return t[0];
}
inline float max_of(vf x) { float m = x[0]; for (int i = 1; i < kLanes; ++i) m = x[i] > m ? x[i] : m; return m; }
inline float min_of(vf x) { float m = x[0]; for (int i = 1; i < kLanes; ++i) m = x[i] < m ? x[i] : m; return m; }
inline double max_of(vd x) { double m = x[0]; for (int i = 1; i < kDoubleLanes; ++i) m = x[i] > m ? x[i] : m; return m; }

/// What a kernel over storage type T computes with.
template <class T> struct Compute { using Scalar = float; using Vector = vf; static constexpr int kLanes = CAMBIUM_ISA::kLanes; };
template <> struct Compute<double> { using Scalar = double; using Vector = vd; static constexpr int kLanes = kDoubleLanes; };

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
