// Arithmetic and functions of one tensor: one line each through the table of kernels/pointwise.h.
#include <cmath>

#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;
using kernels::BinaryFunction;

namespace {

bool takes_integers(UnaryFunction f) {
  switch (f) {
    case UnaryFunction::neg: case UnaryFunction::abs: case UnaryFunction::sign: case UnaryFunction::add_scalar: case UnaryFunction::mul_scalar:
    case UnaryFunction::rsub_scalar: return true;
    default: return false;
  }
}

// While the backward pass is recorded the gradient is made of public ops; otherwise by one kernel.
Tensor gradient(UnaryFunction f, const Tensor& g, const Tensor& v, double p, double q) {
  if (grad_enabled()) return detail::unary_derivative(f, g, v, p, q);
  Tensor dx = empty(g.shape(), g.dtype(), g.device());
  Run run(g);
  run->unary_backward(run.context, f, dx.view(), g.view(), v.defined() ? v.view() : kernels::Strided{}, p, q);
  return dx;
}

Tensor unary(std::string_view name, UnaryFunction f, const Tensor& x, double p = 0.0, double q = 0.0) {
  detail::check_defined(name, x);
  check<DTypeError>(is_float(x.dtype()) || (takes_integers(f) && x.dtype() != DType::boolean), name, ": expected a floating type, found ", x.dtype());
  check<DTypeError>(is_float(x.dtype()) || (std::floor(p) == p && std::fabs(p) <= 0x1p53), name, ": ", p, " is no ", x.dtype());
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Run run(x);
  run->unary(run.context, f, out.view(), x.view(), p, q);
  switch (kernels::needs_of(f)) {
    case kernels::Needs::nothing:
      return record(name, std::move(out)).wrt(x, [=](const Tensor& g) { return gradient(f, g, {}, p, q); });
    case kernels::Needs::input:
      return record(name, std::move(out)).wrt(x, [=, x = saved(x)](const Tensor& g) { return gradient(f, g, x.get(), p, q); });
    case kernels::Needs::output: break;
  }
  return record(name, std::move(out)).wrt(x, [=](const Tensor& g, const Tensor& y) { return gradient(f, g, y, p, q); });
}

// Operands of one shape; the caller broadcast them.
Tensor binary(BinaryFunction f, const Tensor& a, const Tensor& b) {
  Tensor out = empty(a.shape(), a.dtype(), a.device());
  Run run(a);
  run->binary(run.context, f, out.view(), a.view(), b.view());
  return out;
}

struct Pair { Tensor a, b; };
Pair broadcast(std::string_view name, const Tensor& a, const Tensor& b) {
  detail::check_alike(name, a, b);
  check<DTypeError>(a.dtype() != DType::boolean, name, ": bool tensors have no arithmetic: use logical_and, logical_or or to_dtype");
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  return {broadcast_to(a, shape), broadcast_to(b, shape)};
}

void check_divisor(std::string_view name, const Tensor& b) {
  if (!is_float(b.dtype())) check<StateError>(!any(equal(b, 0.0)), name, ": division of integers by zero");
}

// g where x is the larger (smaller) operand, half of it where both are equal.
Tensor winner_gradient(const Tensor& g, const Tensor& loses, const Tensor& ties) { return where(ties, mul(g, 0.5), masked_fill(g, loses, 0.0)); }

}  // namespace

Tensor add(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("add", left, right);
  return record("add", binary(BinaryFunction::add, a, b))
      .wrt(a, [](const Tensor& g) { return g; })
      .wrt(b, [](const Tensor& g) { return g; });
}

Tensor sub(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("sub", left, right);
  return record("sub", binary(BinaryFunction::sub, a, b))
      .wrt(a, [](const Tensor& g) { return g; })
      .wrt(b, [](const Tensor& g) { return neg(g); });
}

Tensor mul(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("mul", left, right);
  return record("mul", binary(BinaryFunction::mul, a, b))
      .wrt(a, [b = saved(b)](const Tensor& g) { return mul(g, b.get()); })
      .wrt(b, [a = saved(a)](const Tensor& g) { return mul(g, a.get()); });
}

Tensor div(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("div", left, right);
  check_divisor("div", right);
  return record("div", binary(BinaryFunction::div, a, b))
      .wrt(a, [b = saved(b)](const Tensor& g) { return div(g, b.get()); })
      .wrt(b, [b = saved(b)](const Tensor& g, const Tensor& out) { return neg(div(mul(g, out), b.get())); });
}

Tensor pow(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("pow", left, right);
  detail::check_float("pow", a);
  return record("pow", binary(BinaryFunction::pow, a, b))
      .wrt(a, [a = saved(a), b = saved(b)](const Tensor& g) {
        // b = 0 gives 0, also at a = 0 where a^(b-1) is infinite.
        return masked_fill(mul(g, mul(b.get(), pow(a.get(), sub(b.get(), 1.0)))), equal(b.get(), 0.0), 0.0);
      })
      .wrt(b, [a = saved(a)](const Tensor& g, const Tensor& out) {
        const Tensor zero = equal(a.get(), 0.0);
        return masked_fill(mul(g, mul(out, log(masked_fill(a.get(), zero, 1.0)))), zero, 0.0);
      });
}

Tensor maximum(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("maximum", left, right);
  return record("maximum", binary(BinaryFunction::maximum, a, b))
      .wrt(a, [a = saved(a), b = saved(b)](const Tensor& g) { return winner_gradient(g, less(a.get(), b.get()), equal(a.get(), b.get())); })
      .wrt(b, [a = saved(a), b = saved(b)](const Tensor& g) { return winner_gradient(g, less(b.get(), a.get()), equal(a.get(), b.get())); });
}

Tensor minimum(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("minimum", left, right);
  return record("minimum", binary(BinaryFunction::minimum, a, b))
      .wrt(a, [a = saved(a), b = saved(b)](const Tensor& g) { return winner_gradient(g, greater(a.get(), b.get()), equal(a.get(), b.get())); })
      .wrt(b, [a = saved(a), b = saved(b)](const Tensor& g) { return winner_gradient(g, greater(b.get(), a.get()), equal(a.get(), b.get())); });
}

Tensor atan2(const Tensor& left, const Tensor& right) {
  auto [y, x] = broadcast("atan2", left, right);
  detail::check_float("atan2", y);
  return record("atan2", binary(BinaryFunction::atan2, y, x))
      .wrt(y, [y = saved(y), x = saved(x)](const Tensor& g) { return mul(g, div(x.get(), add(square(x.get()), square(y.get())))); })
      .wrt(x, [y = saved(y), x = saved(x)](const Tensor& g) { return neg(mul(g, div(y.get(), add(square(x.get()), square(y.get()))))); });
}

Tensor remainder(const Tensor& left, const Tensor& right) {
  auto [a, b] = broadcast("remainder", left, right);
  check_divisor("remainder", right);
  return record("remainder", binary(BinaryFunction::remainder, a, b))
      .wrt(a, [](const Tensor& g) { return g; })
      .wrt(b, [a = saved(a), b = saved(b)](const Tensor& g) { return neg(mul(g, floor(div(a.get(), b.get())))); });
}

Tensor add(const Tensor& a, double b) { return unary("add", UnaryFunction::add_scalar, a, b); }
Tensor sub(const Tensor& a, double b) { return unary("sub", UnaryFunction::add_scalar, a, -b); }
Tensor rsub(const Tensor& a, double b) { return unary("rsub", UnaryFunction::rsub_scalar, a, b); }
Tensor mul(const Tensor& a, double b) { return unary("mul", UnaryFunction::mul_scalar, a, b); }
Tensor div(const Tensor& a, double b) {
  detail::check_defined("div", a);
  check<DTypeError>(a.dtype() != DType::boolean, "div: expected numbers, found bool");
  check<StateError>(is_float(a.dtype()) || b != 0.0, "div: division of integers by zero");
  // A true division: multiplying by 1 / b would round twice.
  return record("div", binary(BinaryFunction::div, a, detail::repeated_scalar("div", b, a, a.shape())))
      .wrt(a, [b](const Tensor& g) { return div(g, b); });
}
Tensor rdiv(const Tensor& a, double b) { return unary("rdiv", UnaryFunction::rdiv_scalar, a, b); }
Tensor pow(const Tensor& a, double exponent) { return unary("pow", UnaryFunction::pow_scalar, a, exponent); }

Tensor neg(const Tensor& x) { return unary("neg", UnaryFunction::neg, x); }
Tensor abs(const Tensor& x) { return unary("abs", UnaryFunction::abs, x); }
Tensor exp(const Tensor& x) { return unary("exp", UnaryFunction::exp, x); }
Tensor expm1(const Tensor& x) { return unary("expm1", UnaryFunction::expm1, x); }
Tensor log(const Tensor& x) { return unary("log", UnaryFunction::log, x); }
Tensor log1p(const Tensor& x) { return unary("log1p", UnaryFunction::log1p, x); }
Tensor sqrt(const Tensor& x) { return unary("sqrt", UnaryFunction::sqrt, x); }
Tensor rsqrt(const Tensor& x) { return unary("rsqrt", UnaryFunction::rsqrt, x); }
Tensor reciprocal(const Tensor& x) { return unary("reciprocal", UnaryFunction::reciprocal, x); }
Tensor square(const Tensor& x) { return unary("square", UnaryFunction::square, x); }
Tensor sin(const Tensor& x) { return unary("sin", UnaryFunction::sin, x); }
Tensor cos(const Tensor& x) { return unary("cos", UnaryFunction::cos, x); }
Tensor tanh(const Tensor& x) { return unary("tanh", UnaryFunction::tanh, x); }
Tensor sigmoid(const Tensor& x) { return unary("sigmoid", UnaryFunction::sigmoid, x); }
Tensor relu(const Tensor& x) { return unary("relu", UnaryFunction::relu, x); }
Tensor erf(const Tensor& x) { return unary("erf", UnaryFunction::erf, x); }
Tensor gelu_erf(const Tensor& x) { return unary("gelu_erf", UnaryFunction::gelu_erf, x); }
Tensor gelu_tanh(const Tensor& x) { return unary("gelu_tanh", UnaryFunction::gelu_tanh, x); }
Tensor quick_gelu(const Tensor& x) { return unary("quick_gelu", UnaryFunction::quick_gelu, x); }
Tensor silu(const Tensor& x) { return unary("silu", UnaryFunction::silu, x); }
Tensor softplus(const Tensor& x) { return unary("softplus", UnaryFunction::softplus, x); }
Tensor floor(const Tensor& x) { return unary("floor", UnaryFunction::floor, x); }
Tensor ceil(const Tensor& x) { return unary("ceil", UnaryFunction::ceil, x); }
Tensor round(const Tensor& x) { return unary("round", UnaryFunction::round, x); }
Tensor sign(const Tensor& x) { return unary("sign", UnaryFunction::sign, x); }
Tensor clamp(const Tensor& x, double low, double high) {
  check<ConfigError>(low <= high, "clamp: the lower bound ", low, " is above the upper bound ", high);
  return unary("clamp", UnaryFunction::clamp, x, low, high);
}

}  // namespace cambium
