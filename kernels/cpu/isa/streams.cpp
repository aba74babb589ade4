// Optimizer steps over long arrays, and the table of such passes.
#include "kernels/cpu/isa/streams.h"

#include "kernels/cpu/isa/element_visit.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

void dropout(Element, void* out, const void* x, int64_t block, int64_t n, float p, float scale, uint64_t seed, uint64_t offset);
void rotary_sincos(float* cosines, float* sines, const float* frequencies, int64_t pairs, double position, double scale);
void rotary_rotate(Element, void* out, const void* x, const float* cosines, const float* sines, int64_t pairs, bool interleaved);

namespace {

template <class F>
inline void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}
template <class T> inline vf load_lanes(const T* p, int lanes) { return lanes == kLanes ? load(p) : load_partial(p, lanes); }
template <class T> inline void store_lanes(T* p, vf x, int lanes) {
  if (lanes == kLanes) store(p, x);
  else store_partial(p, x, lanes);
}

template <class P, class G>
void adamw_rows(P* parameter, const G* gradient, float* m, float* v, int64_t n, const AdamWFactors& f) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const vf g = load_lanes(gradient + i, lanes);
    const vf first = fma(load_lanes(m + i, lanes), set(f.beta1), g * f.one_minus_beta1);
    const vf second = fma(load_lanes(v + i, lanes), set(f.beta2), g * g * f.one_minus_beta2);
    const vf p = load_lanes(parameter + i, lanes) * f.decay - f.step * first / fma(sqrt(second), set(f.root_scale), set(f.epsilon));
    store_lanes(m + i, first, lanes);
    store_lanes(v + i, second, lanes);
    store_lanes(parameter + i, p, lanes);
  });
}

template <class P, class G>
void sgd_rows(P* parameter, const G* gradient, float* buffer, int64_t n, const SgdFactors& f) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const vf p = load_lanes(parameter + i, lanes);
    vf g = fma(p, set(f.weight_decay), load_lanes(gradient + i, lanes));
    if (f.momentum != 0.0F) {
      const vf b = f.first_step ? g : fma(load_lanes(buffer + i, lanes), set(f.momentum), g * f.one_minus_dampening);
      store_lanes(buffer + i, b, lanes);
      g = f.nesterov ? fma(b, set(f.momentum), g) : b;
    }
    store_lanes(parameter + i, p - g * f.learning_rate, lanes);
  });
}

template <class F>
inline void visit_two(Element a, Element b, F f) {
  visit_element(a, [&](auto* x) { visit_element(b, [&](auto* y) { f(x, y); }); });
}

void adamw(Element parameter_type, Element gradient_type, void* parameter, const void* gradient, float* m, float* v, int64_t n, const AdamWFactors& f) {
  visit_two(parameter_type, gradient_type, [&](auto* p, auto* g) {
    adamw_rows(static_cast<Pointee<decltype(p)>*>(parameter), static_cast<const Pointee<decltype(g)>*>(gradient), m, v, n, f);
  });
}
void sgd(Element parameter_type, Element gradient_type, void* parameter, const void* gradient, float* buffer, int64_t n, const SgdFactors& f) {
  visit_two(parameter_type, gradient_type, [&](auto* p, auto* g) {
    sgd_rows(static_cast<Pointee<decltype(p)>*>(parameter), static_cast<const Pointee<decltype(g)>*>(gradient), buffer, n, f);
  });
}

}  // namespace

extern const StreamTable stream_table;
constinit const StreamTable stream_table = {
    .adamw = adamw,
    .sgd = sgd,
    .dropout = dropout,
    .sincos = rotary_sincos,
    .rotate = rotary_rotate,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
