// Derivatives of the unary functions in terms of public ops: what a recorded backward pass is made of.
#include "autograd/ops/helpers.h"

namespace cambium::detail {

namespace {

// 0.5 (1 + t) + 0.5 x (1 - t^2) u', with t = tanh(u), u = sqrt(2/pi) (x + 0.044715 x^3).
Tensor gelu_tanh_slope(const Tensor& x) {
  constexpr double c = 0.7978845608028654;
  const Tensor t = tanh(mul(add(x, mul(mul(square(x), x), 0.044715)), c));
  const Tensor du = mul(add(mul(square(x), 0.134145), 1.0), c);
  return mul(add(add(t, 1.0), mul(mul(x, rsub(square(t), 1.0)), du)), 0.5);
}

// Phi(x) + x phi(x)
Tensor gelu_erf_slope(const Tensor& x) {
  const Tensor cumulative = mul(add(erf(mul(x, 0.7071067811865476)), 1.0), 0.5);
  const Tensor density = mul(exp(mul(square(x), -0.5)), 0.3989422804014327);
  return add(cumulative, mul(x, density));
}

// Derivative of x sigmoid(s x).
Tensor scaled_silu_slope(const Tensor& x, double s) {
  const Tensor sigma = sigmoid(mul(x, s));
  return mul(sigma, add(mul(mul(x, s), rsub(sigma, 1.0)), 1.0));
}

}  // namespace

Tensor unary_derivative(UnaryFunction function, const Tensor& g, const Tensor& v, double p, double q) {
  switch (function) {
    case UnaryFunction::neg: case UnaryFunction::rsub_scalar: return neg(g);
    case UnaryFunction::abs: return mul(g, sign(v));
    case UnaryFunction::exp: return mul(g, v);
    case UnaryFunction::expm1: return mul(g, add(v, 1.0));
    case UnaryFunction::log: return div(g, v);
    case UnaryFunction::log1p: return div(g, add(v, 1.0));
    case UnaryFunction::sqrt: return div(mul(g, 0.5), v);
    case UnaryFunction::rsqrt: return mul(mul(g, -0.5), mul(square(v), v));
    case UnaryFunction::reciprocal: return neg(mul(g, square(v)));
    case UnaryFunction::square: return mul(g, mul(v, 2.0));
    case UnaryFunction::sin: return mul(g, cos(v));
    case UnaryFunction::cos: return neg(mul(g, sin(v)));
    case UnaryFunction::tanh: return mul(g, rsub(square(v), 1.0));
    case UnaryFunction::sigmoid: return mul(g, mul(v, rsub(v, 1.0)));
    case UnaryFunction::relu: return masked_fill(g, less_equal(v, 0.0), 0.0);
    case UnaryFunction::erf: return mul(g, mul(exp(neg(square(v))), 1.1283791670955126));
    case UnaryFunction::gelu_erf: return mul(g, gelu_erf_slope(v));
    case UnaryFunction::gelu_tanh: return mul(g, gelu_tanh_slope(v));
    case UnaryFunction::quick_gelu: return mul(g, scaled_silu_slope(v, 1.702));
    case UnaryFunction::silu: return mul(g, scaled_silu_slope(v, 1.0));
    case UnaryFunction::softplus: return mul(g, sigmoid(v));
    case UnaryFunction::floor: case UnaryFunction::ceil: case UnaryFunction::round: case UnaryFunction::sign:
      return zeros(g.shape(), g.dtype(), g.device());
    case UnaryFunction::add_scalar: return g;
    case UnaryFunction::mul_scalar: return mul(g, p);
    case UnaryFunction::rdiv_scalar: return mul(g, mul(square(reciprocal(v)), -p));
    case UnaryFunction::pow_scalar: return p == 0.0 ? zeros(g.shape(), g.dtype(), g.device()) : mul(g, mul(pow(v, p - 1.0), p));
    case UnaryFunction::clamp: return masked_fill(g, logical_or(less(v, p), greater(v, q)), 0.0);
  }
  fail<StateError>("unary_derivative: unknown function");
}

}  // namespace cambium::detail
