// Rotary embedding: sines and cosines of many angles in double, and rotation of heads.
#include "kernels/cpu/isa/element_visit.h"
#include "kernels/cpu/isa/streams.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

void rotary_sincos(float* cosines, float* sines, const float* frequencies, int64_t pairs, double position, double scale);
void rotary_rotate(Element, void* out, const void* x, const float* cosines, const float* sines, int64_t pairs, bool interleaved);

namespace {

typedef float half_vf __attribute__((vector_size(4 * kDoubleLanes)));

// The angle less a multiple k of pi/2, in three parts whose products with k are exact, then the polynomials of FDLIBM's k_sin.c and k_cos.c.
inline void sine_cosine(vd angle, vd& sine, vd& cosine) {
  const double magic = 0x1.8p52;
  const vd shifted = angle * 0.63661977236758134 + magic, k = shifted - magic;
  const vl n = reinterpret_cast<vl>(shifted);
  vd r = angle - k * 1.57079632673412561417e+00;
  r = r - k * 6.07710050630396597660e-11;
  r = r - k * 2.02226624879595063154e-21;
  const vd z = r * r;
  vd s = set(1.58969099521155010221e-10);
  s = fma(s, z, set(-2.50507602534068634195e-08));
  s = fma(s, z, set(2.75573137070700676789e-06));
  s = fma(s, z, set(-1.98412698298579493134e-04));
  s = fma(s, z, set(8.33333333332248946124e-03));
  s = fma(s, z, set(-1.66666666666666324348e-01));
  s = fma(s * z, r, r);
  vd c = set(-1.13596475577881948265e-11);
  c = fma(c, z, set(2.08757232129817482790e-09));
  c = fma(c, z, set(-2.75573143513906633035e-07));
  c = fma(c, z, set(2.48015872894767294178e-05));
  c = fma(c, z, set(-1.38888888888741095749e-03));
  c = fma(c, z, set(4.16666666666666019037e-02));
  c = fma(c * z, z, 1.0 - 0.5 * z);
  const vl one = vl{} + 1, two = vl{} + 2;
  const vl swapped = (n & one) == one;
  const vd a = select(swapped, c, s), b = select(swapped, s, c);
  sine = select((n & two) == two, -a, a);
  cosine = select(((n + one) & two) == two, -b, b);
}

template <class T>
void rotate_halves(T* out, const T* x, const float* cosines, const float* sines, int64_t pairs) {
  for (int64_t j = 0; j < pairs; j += kLanes) {
    const int lanes = pairs - j < kLanes ? static_cast<int>(pairs - j) : kLanes;
    const vf a = load_partial(x + j, lanes), b = load_partial(x + pairs + j, lanes), c = load_partial(cosines + j, lanes), s = load_partial(sines + j, lanes);
    store_partial(out + j, a * c - b * s, lanes);
    store_partial(out + pairs + j, b * c + a * s, lanes);
  }
}

inline vf swap_neighbours(vf x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_permute_ps(reinterpret_cast<__m512>(x), 0xb1));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_permute_ps(reinterpret_cast<__m256>(x), 0xb1));
#else
  return reinterpret_cast<vf>(_mm_shuffle_ps(reinterpret_cast<__m128>(x), reinterpret_cast<__m128>(x), 0xb1));
#endif
}

// Cosines and signed sines come doubled: (c0, c0, c1, c1, ...) and (-s0, s0, -s1, s1, ...).
template <class T>
void rotate_neighbours(T* out, const T* x, const float* cosines, const float* sines, int64_t pairs) {
  for (int64_t j = 0; j < 2 * pairs; j += kLanes) {
    const int lanes = 2 * pairs - j < kLanes ? static_cast<int>(2 * pairs - j) : kLanes;
    const vf v = load_partial(x + j, lanes);
    store_partial(out + j, v * load_partial(cosines + j, lanes) + swap_neighbours(v) * load_partial(sines + j, lanes), lanes);
  }
}

}  // namespace

void rotary_sincos(float* cosines, float* sines, const float* frequencies, int64_t pairs, double position, double scale) {
  for (int64_t j = 0; j < pairs; j += kDoubleLanes) {
    const int lanes = pairs - j < kDoubleLanes ? static_cast<int>(pairs - j) : kDoubleLanes;
    float t[kDoubleLanes] = {};
    for (int i = 0; i < lanes; ++i) t[i] = frequencies[j + i];
    half_vf f;
    memcpy(&f, t, sizeof f);
    vd sine, cosine;
    sine_cosine(__builtin_convertvector(f, vd) * position, sine, cosine);
    const half_vf c = __builtin_convertvector(cosine * scale, half_vf), s = __builtin_convertvector(sine * scale, half_vf);
    for (int i = 0; i < lanes; ++i) {
      cosines[j + i] = c[i];
      sines[j + i] = s[i];
    }
  }
}

void rotary_rotate(Element type, void* out, const void* x, const float* cosines, const float* sines, int64_t pairs, bool interleaved) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if (interleaved) rotate_neighbours(static_cast<T*>(out), static_cast<const T*>(x), cosines, sines, pairs);
    else rotate_halves(static_cast<T*>(out), static_cast<const T*>(x), cosines, sines, pairs);
  });
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
