// Conversion of 16-bit floats and vector functions over arrays.
#include "kernels/cpu/isa/elementwise.h"

#include "kernels/cpu/isa/math.h"
#include "kernels/cpu/isa/table.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

template <class Out, class In, class F>
inline void map(Out* out, const In* x, int64_t n, F f) {
  constexpr int lanes = Compute<In>::kLanes;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, f(load(x + i)));
  if (i < n) store_partial(out + i, f(load_partial(x + i, static_cast<int>(n - i))), static_cast<int>(n - i));
}

template <class Out, class In>
void convert(Out* out, const In* x, int64_t n) {
  map(out, x, n, [](vf v) { return v; });
}

}  // namespace

extern const ElementwiseTable elementwise_table;
constinit const ElementwiseTable elementwise_table = {
    .bf16_to_float = [](float* out, const uint16_t* x, int64_t n) { convert(out, reinterpret_cast<const bf16*>(x), n); },
    .f16_to_float = [](float* out, const uint16_t* x, int64_t n) { convert(out, reinterpret_cast<const f16*>(x), n); },
    .float_to_bf16 = [](uint16_t* out, const float* x, int64_t n) { convert(reinterpret_cast<bf16*>(out), x, n); },
    .float_to_f16 = [](uint16_t* out, const float* x, int64_t n) { convert(reinterpret_cast<f16*>(out), x, n); },
    .exp = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vexp(v); }); },
    .log = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vlog(v); }); },
    .tanh = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vtanh(v); }); },
    .erf = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return verf(v); }); },
    .sigmoid = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vsigmoid(v); }); },
    .silu = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vsilu(v); }); },
    .gelu_erf = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vgelu_erf(v); }); },
    .gelu_tanh = [](float* out, const float* x, int64_t n) { map(out, x, n, [](vf v) { return vgelu_tanh(v); }); },
    .exp_double = [](double* out, const double* x, int64_t n) { map(out, x, n, [](vd v) { return vexp(v); }); },
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
