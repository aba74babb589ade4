// Checks gradients of any function of tensors against central differences along random directions, in double.
#pragma once

#include <functional>
#include <span>

#include "autograd/random.h"
#include "tensor/tensor.h"

namespace cambium {

struct GradcheckOptions {
  int seeds = 3;              ///< random directions tried
  double step = 1e-3;         ///< of the five-point difference, whose error is step^4 times the fifth derivative
  bool second_order = false;  ///< check the derivative of the gradient instead of the gradient
  RandomKey key = {};
};

/// Largest |gradient . v - difference quotient along v| / max(1, |difference quotient|) over the directions v. `function` may return any shape: its
/// result is projected on random weights. The float64 inputs that require a gradient are varied together; the others are constants.
/// StateError when none does, DTypeError when one that does is not float64. The idea: HIPS/autograd's check by one direction.
double gradcheck(const std::function<Tensor(std::span<const Tensor>)>& function, std::span<const Tensor> inputs, const GradcheckOptions& options = {});

}  // namespace cambium
