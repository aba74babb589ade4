// Pointwise functions over contiguous floats; the formulas are those of kernels/pointwise.h.
#include "kernels/cpu/isa/pointwise.h"

#include "kernels/cpu/isa/element_visit.h"
#include "kernels/cpu/isa/math.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

// f and its derivative: f(x, p, q), d(v, p, q) with v the input or the output as pointwise.h says.
struct Neg { static vf f(vf x, vf, vf) { return -x; } static vf d(vf, vf, vf) { return set(-1.0F); } };
struct Abs { static vf f(vf x, vf, vf) { return abs(x); } };
struct Exp { static vf f(vf x, vf, vf) { return vexp(x); } static vf d(vf v, vf, vf) { return v; } };
struct Log { static vf f(vf x, vf, vf) { return vlog(x); } static vf d(vf v, vf, vf) { return 1.0F / v; } };
struct Sqrt { static vf f(vf x, vf, vf) { return sqrt(x); } static vf d(vf v, vf, vf) { return 0.5F / v; } };
struct Rsqrt { static vf f(vf x, vf, vf) { return 1.0F / sqrt(x); } static vf d(vf v, vf, vf) { return -0.5F * v * v * v; } };
struct Reciprocal { static vf f(vf x, vf, vf) { return 1.0F / x; } static vf d(vf v, vf, vf) { return -v * v; } };
struct Square { static vf f(vf x, vf, vf) { return x * x; } static vf d(vf v, vf, vf) { return 2.0F * v; } };
struct Tanh { static vf f(vf x, vf, vf) { return vtanh(x); } static vf d(vf v, vf, vf) { return 1.0F - v * v; } };
struct Sigmoid { static vf f(vf x, vf, vf) { return vsigmoid(x); } static vf d(vf v, vf, vf) { return v * (1.0F - v); } };
struct Relu {
  static vf f(vf x, vf, vf) { return select(x > 0.0F, x, vf{}); }
  static vf d(vf v, vf, vf) { return select(v > 0.0F, set(1.0F), vf{}); }
};
struct Erf { static vf f(vf x, vf, vf) { return verf(x); } };
struct GeluErf {
  static vf f(vf x, vf, vf) { return vgelu_erf(x); }
  static vf d(vf x, vf, vf) { return 0.5F * (1.0F + verf(x * 0.70710678F)) + x * 0.39894228F * vexp(-0.5F * x * x); }
};
struct GeluTanh {
  static vf f(vf x, vf, vf) { return vgelu_tanh(x); }
  // (1 + tanh u) / 2 = s and (1 - tanh^2 u) / 2 = 2 s (1 - s) with s = sigmoid(2 u).
  static vf d(vf x, vf, vf) {
    const vf u = 0.79788456F * fma(x * x, 0.044715F * x, x), s = vsigmoid(u + u);
    return s + x * (s * (1.0F - s)) * (1.5957691F * fma(x * x, set(0.134145F), set(1.0F)));
  }
};
struct QuickGelu {
  static vf f(vf x, vf, vf) { return x * vsigmoid(1.702F * x); }
  static vf d(vf x, vf, vf) { const vf s = vsigmoid(1.702F * x); return s * (1.0F + 1.702F * x * (1.0F - s)); }
};
struct Silu {
  static vf f(vf x, vf, vf) { return vsilu(x); }
  static vf d(vf x, vf, vf) { const vf s = vsigmoid(x); return s * (1.0F + x * (1.0F - s)); }
};
struct AddScalar { static vf f(vf x, vf p, vf) { return x + p; } static vf d(vf, vf, vf) { return set(1.0F); } };
struct MulScalar { static vf f(vf x, vf p, vf) { return x * p; } static vf d(vf, vf p, vf) { return p; } };
struct RsubScalar { static vf f(vf x, vf p, vf) { return p - x; } static vf d(vf, vf, vf) { return set(-1.0F); } };
struct RdivScalar { static vf f(vf x, vf p, vf) { return p / x; } };

template <class F>
void unary(float* out, const float* x, int64_t n, float p, float q) {
  const vf vp = set(p), vq = set(q);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, F::f(load(x + i), vp, vq));
  if (i < n) store_partial(out + i, F::f(load_partial(x + i, static_cast<int>(n - i)), vp, vq), static_cast<int>(n - i));
}

template <class F>
void unary_backward(float* dx, const float* g, const float* value, int64_t n, float p, float q) {
  const vf vp = set(p), vq = set(q);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(dx + i, load(g + i) * F::d(load(value + i), vp, vq));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store_partial(dx + i, load_partial(g + i, rest) * F::d(load_partial(value + i, rest), vp, vq), rest);
  }
}

struct Add { static vf f(vf a, vf b) { return a + b; } };
struct Sub { static vf f(vf a, vf b) { return a - b; } };
struct Mul { static vf f(vf a, vf b) { return a * b; } };
struct Div { static vf f(vf a, vf b) { return a / b; } };
struct Maximum { static vf f(vf a, vf b) { return select((a > b) | (a != a), a, b); } };  // NaN in either operand stays
struct Minimum { static vf f(vf a, vf b) { return select((a < b) | (a != a), a, b); } };

template <class F>
void binary(float* out, const float* a, const float* b, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, F::f(load(a + i), load(b + i)));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store_partial(out + i, F::f(load_partial(a + i, rest), load_partial(b + i, rest)), rest);
  }
}

template <class F>
inline void visit_gate(Gate gate, F f) {
  switch (gate) {
    case Gate::silu: return f(Silu{});
    case Gate::gelu_tanh: return f(GeluTanh{});
    case Gate::gelu_erf: return f(GeluErf{});
    case Gate::relu: return f(Relu{});
  }
}

template <class A, class T>
void gated_rows(T* out, const T* gate, const T* up, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    if (rest == kLanes) store(out + i, A::f(load(gate + i), vf{}, vf{}) * load(up + i));
    else store_partial(out + i, A::f(load_partial(gate + i, rest), vf{}, vf{}) * load_partial(up + i, rest), rest);
  }
}

template <class A>
inline vf derivative(vf gate) {
  return A::d(gate, vf{}, vf{});  // relu's takes its output, which is positive where the input is
}

template <class A, class T>
void gated_backward_rows(T* dgate, T* dup, const T* g, const T* gate, const T* up, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int rest = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    if (rest == kLanes) {
      const vf vg = load(g + i), x = load(gate + i), u = load(up + i);
      if (dgate) store(dgate + i, vg * u * derivative<A>(x));
      if (dup) store(dup + i, vg * A::f(x, vf{}, vf{}));
    } else {
      const vf vg = load_partial(g + i, rest), x = load_partial(gate + i, rest), u = load_partial(up + i, rest);
      if (dgate) store_partial(dgate + i, vg * u * derivative<A>(x), rest);
      if (dup) store_partial(dup + i, vg * A::f(x, vf{}, vf{}), rest);
    }
  }
}

void gated(Element type, Gate gate, void* out, const void* x, const void* up, int64_t n) {
  visit_element(type, [&](auto* pointer) {
    using T = Pointee<decltype(pointer)>;
    visit_gate(gate, [&](auto f) { gated_rows<decltype(f)>(static_cast<T*>(out), static_cast<const T*>(x), static_cast<const T*>(up), n); });
  });
}

void gated_backward(Element type, Gate gate, void* dgate, void* dup, const void* g, const void* x, const void* up, int64_t n) {
  visit_element(type, [&](auto* pointer) {
    using T = Pointee<decltype(pointer)>;
    visit_gate(gate, [&](auto f) {
      gated_backward_rows<decltype(f)>(static_cast<T*>(dgate), static_cast<T*>(dup), static_cast<const T*>(g), static_cast<const T*>(x), static_cast<const T*>(up), n);
    });
  });
}

}  // namespace

extern const PointwiseTable pointwise_table;
constinit const PointwiseTable pointwise_table = {
    .unary = {.neg = unary<Neg>, .abs = unary<Abs>, .exp = unary<Exp>, .log = unary<Log>, .sqrt = unary<Sqrt>, .rsqrt = unary<Rsqrt>, .reciprocal = unary<Reciprocal>,
              .square = unary<Square>, .tanh = unary<Tanh>, .sigmoid = unary<Sigmoid>, .relu = unary<Relu>, .erf = unary<Erf>, .gelu_erf = unary<GeluErf>,
              .gelu_tanh = unary<GeluTanh>, .quick_gelu = unary<QuickGelu>, .silu = unary<Silu>, .add_scalar = unary<AddScalar>, .mul_scalar = unary<MulScalar>,
              .rsub_scalar = unary<RsubScalar>, .rdiv_scalar = unary<RdivScalar>},
    .unary_backward = {.neg = unary_backward<Neg>, .exp = unary_backward<Exp>, .log = unary_backward<Log>, .sqrt = unary_backward<Sqrt>, .rsqrt = unary_backward<Rsqrt>,
                       .reciprocal = unary_backward<Reciprocal>, .square = unary_backward<Square>, .tanh = unary_backward<Tanh>, .sigmoid = unary_backward<Sigmoid>,
                       .relu = unary_backward<Relu>, .gelu_erf = unary_backward<GeluErf>, .gelu_tanh = unary_backward<GeluTanh>, .quick_gelu = unary_backward<QuickGelu>,
                       .silu = unary_backward<Silu>, .add_scalar = unary_backward<AddScalar>, .mul_scalar = unary_backward<MulScalar>,
                       .rsub_scalar = unary_backward<RsubScalar>},
    .binary = {.add = binary<Add>, .sub = binary<Sub>, .mul = binary<Mul>, .div = binary<Div>, .maximum = binary<Maximum>, .minimum = binary<Minimum>},
    .gated = gated,
    .gated_backward = gated_backward,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
