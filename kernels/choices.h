// What a call chooses by a number and every device resolves alike: the function of a gate, the value of an empty reduction.
#pragma once

#include <limits>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace cambium::kernels {

/// Calls f(function{}) for the activation of a gate. Error for any other function.
template <class F>
void visit_gate(UnaryFunction function, F&& f) {
  switch (function) {
    case UnaryFunction::silu: return f(silu_function{});
    case UnaryFunction::gelu_tanh: return f(gelu_tanh_function{});
    case UnaryFunction::gelu_erf: return f(gelu_erf_function{});
    case UnaryFunction::relu: return f(relu_function{});
    default: fail<Error>("gated: expected silu, gelu_tanh, gelu_erf or relu");
  }
}

/// What a reduction of no elements gives.
constexpr double empty_value(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return 0;
    case Reduction::product: return 1;
    case Reduction::maximum: return -std::numeric_limits<double>::infinity();
    case Reduction::minimum: return std::numeric_limits<double>::infinity();
  }
  return 0;
}

}  // namespace cambium::kernels
