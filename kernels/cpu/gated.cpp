// Gated activations f(gate) up and their backward.
#include "kernels/choices.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/pointwise.h"
#include "kernels/cpu/rows.h"
#include "kernels/pointwise.h"

namespace cambium::kernels::cpu {
namespace {

Gate gate_of(UnaryFunction function) {
  switch (function) {
    case UnaryFunction::silu: return Gate::silu;
    case UnaryFunction::gelu_tanh: return Gate::gelu_tanh;
    case UnaryFunction::gelu_erf: return Gate::gelu_erf;
    case UnaryFunction::relu: return Gate::relu;
    default: fail<Error>("gated: expected silu, gelu_tanh, gelu_erf or relu");
  }
}

}  // namespace

void gated(Context&, UnaryFunction function, Strided out, Strided gate, Strided up) {
  if (is_vector_type(out.dtype)) {
    const Gate kind = gate_of(function);
    return parallel_ranges(out.count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      isa().pointwise->gated(element_of(out.dtype), kind, element(out, begin), element(gate, begin), element(up, begin), end - begin);
    });
  }
  visit_gate(function, [&](auto f) {
    visit_float(out.dtype, "gated", [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      parallel_ranges(out.count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          out.as<T>()[i] = convert<T>(f.template f<A>(convert<A>(gate.as<T>()[i]), A(0), A(0)) * convert<A>(up.as<T>()[i]));
      });
    });
  });
}

void gated_backward(Context&, UnaryFunction function, Strided dgate, Strided dup, Strided g, Strided gate, Strided up) {
  if (is_vector_type(g.dtype)) {
    const Gate kind = gate_of(function);
    return parallel_ranges(g.count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      isa().pointwise->gated_backward(element_of(g.dtype), kind, element(dgate, begin), element(dup, begin), element(g, begin), element(gate, begin),
                                      element(up, begin), end - begin);
    });
  }
  visit_gate(function, [&](auto f) {
    visit_float(g.dtype, "gated_backward", [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      parallel_ranges(g.count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const A upstream = convert<A>(g.as<T>()[i]), x = convert<A>(gate.as<T>()[i]), u = convert<A>(up.as<T>()[i]);
          const A value = f.template f<A>(x, A(0), A(0));
          // The derivative of relu is computed from its output; that of the others from the input.
          if (dgate) dgate.as<T>()[i] = convert<T>(upstream * u * f.template d<A>(f.needs == Needs::output ? value : x, A(0), A(0)));
          if (dup) dup.as<T>()[i] = convert<T>(upstream * value);
        }
      });
    });
  });
}

}  // namespace cambium::kernels::cpu
