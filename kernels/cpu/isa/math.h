// Vector exp, log, tanh, erf, sigmoid and the activations made of them; the errors stated are maxima measured by tests/test_simd.cpp.
#pragma once

#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

inline constexpr float kInfinity = __builtin_inff();
inline constexpr double kDoubleInfinity = __builtin_inf();

/// 2^n for -126 <= n <= 127.
inline vf power_of_two(vi n) { return bits_to_float((n + 127) << 23); }

/// e^x, 0.96 ulp. Rounds to 0 below -103.97 and to infinity above 88.72, subnormal results included.
inline vf vexp(vf x) {
  const vf bounded = max(set(-110.0F), min(set(90.0F), x));
  const vi n = to_int(bounded * 1.44269504F);
  const vf k = to_float(n);
  vf r = fma(k, set(-0.693359375F), bounded);     // ln 2 in two parts, the first exact for all k
  r = fma(k, set(2.12194440e-4F), r);
  vf p = set(1.98910805e-4F);
  p = fma(p, r, set(1.39337307e-3F));
  p = fma(p, r, set(8.33331084e-3F));
  p = fma(p, r, set(4.16664642e-2F));
  p = fma(p, r, set(1.66666667e-1F));
  p = fma(p, r, set(0.5F));
  p = fma(p, r * r, r) + 1.0F;
  const vi half = n >> 1;                           // in two steps, so that neither factor over- or underflows
  const vf y = p * power_of_two(half) * power_of_two(n - half);
  return select(x != x, x, y);
}

/// 5e-16 relative.
/// e^x for x below 1, as softmax needs it: exactly 0 for x < -87, also for -infinity. NaN stays.
inline vf exp_negative(vf x) {
  const vf bounded = max(set(-87.0F), x);  // e^-88 would be subnormal, which costs a hundred cycles
#if defined(__AVX512F__)
  const vf k = reinterpret_cast<vf>(_mm512_roundscale_ps(reinterpret_cast<__m512>(bounded * 1.44269504F), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const vi n = to_int(bounded * 1.44269504F);
  const vf k = to_float(n);
#endif
  vf r = fma(k, set(-0.693359375F), bounded);
  r = fma(k, set(2.12194440e-4F), r);
  vf p = set(1.98910805e-4F);
  p = fma(p, r, set(1.39337307e-3F));
  p = fma(p, r, set(8.33331084e-3F));
  p = fma(p, r, set(4.16664642e-2F));
  p = fma(p, r, set(1.66666667e-1F));
  p = fma(p, r, set(0.5F));
  p = fma(p, r * r, r) + 1.0F;
#if defined(__AVX512F__)
  const vf y = reinterpret_cast<vf>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(k)));
#else
  const vf y = bits_to_float(bits_of(p) + (n << 23));
#endif
  return select(x < -87.0F, vf{}, y);
}

inline vd vexp(vd x) {
  const vd bounded = max(set(-750.0), min(set(710.0), x));
  const double magic = 0x1.8p52;
  const vd shifted = fma(bounded, set(1.4426950408889634), set(magic)), k = shifted - magic;
  const vl n = reinterpret_cast<vl>(shifted) - reinterpret_cast<vl>(set(magic));
  vd r = fma(k, set(-6.93145751953125e-1), bounded);
  r = fma(k, set(-1.42860682030941723212e-6), r);
  vd p = set(2.0914755325893202e-09);
  p = fma(p, r, set(2.5105312729622103e-08));
  p = fma(p, r, set(2.7557273478718582e-07));
  p = fma(p, r, set(2.7557255170000888e-06));
  p = fma(p, r, set(2.4801587325677461e-05));
  p = fma(p, r, set(1.9841269875002279e-04));
  p = fma(p, r, set(1.3888888888883711e-03));
  p = fma(p, r, set(8.3333333333260838e-03));
  p = fma(p, r, set(4.1666666666666671e-02));
  p = fma(p, r, set(1.6666666666666671e-01));
  p = fma(p, r, set(0.5));
  p = fma(p, r * r, r) + 1.0;
  // n / 2 towards minus infinity by the same trick: there is no 64-bit arithmetic shift before AVX-512.
  const vl half = reinterpret_cast<vl>((k - 0.5) * 0.5 + magic) - reinterpret_cast<vl>(set(magic)), rest = n - half;
  const vd y = p * reinterpret_cast<vd>((half + 1023) << 52) * reinterpret_cast<vd>((rest + 1023) << 52);
  return select(reinterpret_cast<vl>(x != x), x, y);
}

/// Natural logarithm, 0.81 ulp. 0 gives -infinity, negative numbers NaN.
inline vf vlog(vf x) {
  const vi tiny = x < 0x1p-126F;
  const vf scaled = select(tiny, x * 0x1p24F, x);
  const vi u = reinterpret_cast<vi>(reinterpret_cast<vu>(scaled) - 0x3f3504f3U);  // sqrt(1/2): the mantissa falls into [sqrt(1/2), sqrt(2))
  const vi e = u >> 23;
  const vf m = bits_to_float((u & 0x7fffff) + 0x3f3504f3), f = m - 1.0F;
  const vf k = to_float(e) - select(tiny, set(24.0F), vf{});
  vf q = set(6.97161147e-2F);
  q = fma(q, f, set(-1.14797338e-1F));
  q = fma(q, f, set(1.16854199e-1F));
  q = fma(q, f, set(-1.24256873e-1F));
  q = fma(q, f, set(1.42490576e-1F));
  q = fma(q, f, set(-1.66678023e-1F));
  q = fma(q, f, set(2.00007157e-1F));
  q = fma(q, f, set(-2.49999970e-1F));
  q = fma(q, f, set(3.33333312e-1F));
  const vf s = f * f;
  vf y = fma(q * f, s, k * -2.12194440e-4F);
  y = fma(s, set(-0.5F), y) + f;
  y = fma(k, set(0.693359375F), y);
  y = select(x < 0.0F, set(__builtin_nanf("")), y);
  y = select(x == 0.0F, set(-kInfinity), y);
  y = select(x == kInfinity, x, y);
  return select(x != x, x, y);
}

/// 1.26 ulp.
inline vf vtanh(vf x) {
  const vf a = abs(x), s = x * x;
  vf p = set(2.29274482e-3F);
  p = fma(p, s, set(-8.34394552e-3F));
  p = fma(p, s, set(2.17689187e-2F));
  p = fma(p, s, set(-5.39592596e-2F));
  p = fma(p, s, set(1.33333036e-1F));
  p = fma(p, s, set(-3.33333332e-1F));
  const vf small = fma(p * s, x, x);
  const vf large = 1.0F - 2.0F / (vexp(a + a) + 1.0F);
  return select(a < 0.625F, small, copy_sign(large, x));
}

/// 1.13 ulp.
inline vf verf(vf x) {
  const vf a = min(set(4.0F), abs(x)), s = a * a;   // erf(4) rounds to 1
  vf p = set(8.34969578e-5F);
  p = fma(p, s, set(-8.13827047e-4F));
  p = fma(p, s, set(5.20068363e-3F));
  p = fma(p, s, set(-2.68592787e-2F));
  p = fma(p, s, set(1.12836938e-1F));
  p = fma(p, s, set(-3.76126337e-1F));
  p = fma(p, s, set(1.28379167e-1F));
  const vf small = fma(p, x, x);
  vf q = set(1.64306366e-6F);                       // logarithm of erfc
  q = fma(q, a, set(-4.61638586e-5F));
  q = fma(q, a, set(5.97585770e-4F));
  q = fma(q, a, set(-4.76262583e-3F));
  q = fma(q, a, set(2.64276372e-2F));
  q = fma(q, a, set(-1.10087166e-1F));
  q = fma(q, a, set(-6.31823918e-1F));
  q = fma(q, a, set(-1.13023106F));
  q = fma(q, a, set(3.18539662e-4F));
  const vf y = select(a < 0.9277F, small, copy_sign(1.0F - vexp(q), x));
  return select(x != x, x, y);
}

/// 2.2 ulp.
inline vf vsigmoid(vf x) {
  const vf e = vexp(-abs(x)), r = 1.0F / (1.0F + e);
  return select(x < 0.0F, e * r, r);
}

// Activations as pointwise.h defines them.
inline vf vrelu(vf x) { return select(x <= 0.0F, vf{}, x); }  // NaN stays
inline vf vsilu(vf x) { return x * vsigmoid(x); }
inline vf vgelu_erf(vf x) { return 0.5F * x * (1.0F + verf(x * 0.70710678F)); }
inline vf vgelu_tanh(vf x) {
  const vf u = 0.79788456F * fma(x * x, 0.044715F * x, x);
  return x * vsigmoid(u + u);                       // (1 + tanh u) / 2, without the cancellation
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
