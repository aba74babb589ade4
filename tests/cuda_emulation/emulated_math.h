// CUDA's mathematical functions and bit intrinsics. Functions that are not exact on a GPU go through `off_by`, which moves a result by up to their
// documented error (CUDA C++ Programming Guide, Mathematical Functions) when the settings ask for it.
#pragma once

namespace kemu {

extern bool perturbing;
/// The result moved by -ulp … ulp units in the last place, drawn from its bits and the seed.
float moved(float value, float ulp);
inline float off_by(float value, float ulp) { return perturbing ? moved(value, ulp) : value; }
/// For functions with a bound on the absolute error.
float moved_absolutely(float value, float bound);
inline float off_absolutely(float value, float bound) { return perturbing ? moved_absolutely(value, bound) : value; }

inline float fast_exp(float x) { return off_by(std::exp(x), 2.0F + std::floor(std::fabs(1.173F * x))); }
inline float fast_exp10(float x) { return off_by(std::exp2(x * 3.321928095F), 2.0F + std::floor(std::fabs(2.97F * x))); }
inline float fast_log_kind(float exact, float x) { return x >= 0.5F && x <= 2.0F ? off_absolutely(exact, 0x1p-21F) : off_by(exact, 3.0F); }
inline float fast_log(float x) { return fast_log_kind(std::log(x), x); }
inline float fast_log2(float x) { return fast_log_kind(std::log2(x), x); }
inline float fast_log10(float x) { return fast_log_kind(std::log10(x), x); }
inline float fast_sin(float x) { return off_absolutely(std::sin(x), 0x1p-21F); }
inline float fast_cos(float x) { return off_absolutely(std::cos(x), 0x1p-21F); }
inline void fast_sincos(float x, float* s, float* c) { *s = fast_sin(x); *c = fast_cos(x); }
inline float fast_tan(float x) { return fast_sin(x) / fast_cos(x); }
inline float fast_pow(float x, float y) { return fast_exp(y * fast_log2(x) * 0.69314718F); }
inline float gpu_exp(float x) { return off_by(std::exp(x), 1.0F); }
inline float gpu_exp2(float x) { return off_by(std::exp2(x), 2.0F); }
inline float gpu_expm1(float x) { return off_by(std::expm1(x), 1.0F); }
inline float gpu_log(float x) { return off_by(std::log(x), 1.0F); }
inline float gpu_log2(float x) { return off_by(std::log2(x), 1.0F); }
inline float gpu_log10(float x) { return off_by(std::log10(x), 2.0F); }
inline float gpu_log1p(float x) { return off_by(std::log1p(x), 1.0F); }
inline float gpu_sin(float x) { return off_by(std::sin(x), 2.0F); }
inline float gpu_cos(float x) { return off_by(std::cos(x), 2.0F); }
inline float gpu_tan(float x) { return off_by(std::tan(x), 4.0F); }
inline float gpu_tanh(float x) { return off_by(std::tanh(x), 2.0F); }
inline float gpu_sinh(float x) { return off_by(std::sinh(x), 3.0F); }
inline float gpu_cosh(float x) { return off_by(std::cosh(x), 2.0F); }
inline float gpu_erf(float x) { return off_by(std::erf(x), 2.0F); }
inline float gpu_erfc(float x) { return off_by(std::erfc(x), 4.0F); }
inline float gpu_pow(float x, float y) { return off_by(std::pow(x, y), 4.0F); }
inline float gpu_atan(float x) { return off_by(std::atan(x), 2.0F); }
inline float gpu_cbrt(float x) { return off_by(std::cbrt(x), 1.0F); }
inline float gpu_hypot(float x, float y) { return off_by(std::hypot(x, y), 3.0F); }
inline void gpu_sincos(float x, float* s, float* c) { *s = gpu_sin(x); *c = gpu_cos(x); }

template <class To, class From>
To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &value, sizeof(To));
  return to;
}

}  // namespace kemu

// The C library declares some of these names itself, hence macros. As functions with arguments, so that an enumerator or a member of such a name stays what it is.
#define __expf(x) ::kemu::fast_exp(x)
#define __exp10f(x) ::kemu::fast_exp10(x)
#define __logf(x) ::kemu::fast_log(x)
#define __log2f(x) ::kemu::fast_log2(x)
#define __log10f(x) ::kemu::fast_log10(x)
#define __sinf(x) ::kemu::fast_sin(x)
#define __cosf(x) ::kemu::fast_cos(x)
#define __tanf(x) ::kemu::fast_tan(x)
#define __sincosf(x, s, c) ::kemu::fast_sincos(x, s, c)
#define __powf(x, y) ::kemu::fast_pow(x, y)

// Global names for kernels; std::expf and its like stay the C library's.
#define KEMU_FUNCTION(name, call) \
  inline float kemu_##name(float x) { return ::kemu::call(x); }
KEMU_FUNCTION(expf, gpu_exp)
KEMU_FUNCTION(exp2f, gpu_exp2)
KEMU_FUNCTION(expm1f, gpu_expm1)
KEMU_FUNCTION(logf, gpu_log)
KEMU_FUNCTION(log2f, gpu_log2)
KEMU_FUNCTION(log10f, gpu_log10)
KEMU_FUNCTION(log1pf, gpu_log1p)
KEMU_FUNCTION(sinf, gpu_sin)
KEMU_FUNCTION(cosf, gpu_cos)
KEMU_FUNCTION(tanf, gpu_tan)
KEMU_FUNCTION(tanhf, gpu_tanh)
KEMU_FUNCTION(sinhf, gpu_sinh)
KEMU_FUNCTION(coshf, gpu_cosh)
KEMU_FUNCTION(erff, gpu_erf)
KEMU_FUNCTION(erfcf, gpu_erfc)
KEMU_FUNCTION(atanf, gpu_atan)
KEMU_FUNCTION(cbrtf, gpu_cbrt)
#undef KEMU_FUNCTION
inline float kemu_powf(float x, float y) { return ::kemu::gpu_pow(x, y); }
inline float kemu_hypotf(float x, float y) { return ::kemu::gpu_hypot(x, y); }
namespace std {
using ::kemu_expf, ::kemu_exp2f, ::kemu_expm1f, ::kemu_logf, ::kemu_log2f, ::kemu_log10f, ::kemu_log1pf, ::kemu_sinf, ::kemu_cosf, ::kemu_tanf, ::kemu_tanhf, ::kemu_sinhf,
    ::kemu_coshf, ::kemu_erff, ::kemu_erfcf, ::kemu_atanf, ::kemu_cbrtf, ::kemu_powf, ::kemu_hypotf;
}
#define expf kemu_expf
#define exp2f kemu_exp2f
#define expm1f kemu_expm1f
#define logf kemu_logf
#define log2f kemu_log2f
#define log10f kemu_log10f
#define log1pf kemu_log1pf
#define sinf kemu_sinf
#define cosf kemu_cosf
#define tanf kemu_tanf
#define tanhf kemu_tanhf
#define sinhf kemu_sinhf
#define coshf kemu_coshf
#define erff kemu_erff
#define erfcf kemu_erfcf
#define atanf kemu_atanf
#define cbrtf kemu_cbrtf
#define powf kemu_powf
#define hypotf kemu_hypotf

inline float rsqrtf(float x) { return ::kemu::off_by(1.0F / std::sqrt(x), 2.0F); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float exp10f_gpu(float x) { return ::kemu::off_by(static_cast<float>(std::pow(10.0, static_cast<double>(x))), 2.0F); }
inline void sincosf_gpu(float x, float* s, float* c) { ::kemu::gpu_sincos(x, s, c); }
#define exp10f exp10f_gpu
#define sincosf sincosf_gpu
inline float __fdividef(float a, float b) { return std::fabs(b) > 0x1p126F && std::isfinite(b) ? 0.0F * a : ::kemu::off_by(a / b, 2.0F); }
inline float __saturatef(float x) { return x > 0.0F ? std::min(x, 1.0F) : 0.0F; }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __frcp_rn(float x) { return 1.0F / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> void __stcg(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T> void __stcs(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T> void __stwb(T* p, std::type_identity_t<T> v) { *p = v; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x != 0 ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x != 0 ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1U) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<std::int64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(y) << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> (4 * i) & 0xFU;
    unsigned byte = static_cast<unsigned>(both >> (8 * (s & 7U))) & 0xFFU;
    if (s & 8U) byte = byte & 0x80U ? 0xFFU : 0;
    r |= byte << (8 * i);
  }
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) { return static_cast<unsigned>(((static_cast<std::uint64_t>(high) << 32 | low) << (shift & 31U)) >> 32); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) { return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (shift & 31U)); }
inline float __int_as_float(int x) { return ::kemu::same_bits<float>(x); }
inline int __float_as_int(float x) { return ::kemu::same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return ::kemu::same_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return ::kemu::same_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return ::kemu::same_bits<double>(x); }
inline long long __double_as_longlong(double x) { return ::kemu::same_bits<long long>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
using std::max;
using std::min;
