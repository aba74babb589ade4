// The pointwise functions: value and derivative of each, written once for all devices, in double and in float.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/host_device.h"
#include "kernels/integer.h"

namespace cambium::kernels {

/// What the derivative of a unary function is computed from.
enum class Needs { nothing, input, output };

// One row per unary function: name, what its derivative needs, value f(x, p, q), derivative d(v, p, q) with v the input or the output.
// p and q are the scalar arguments of functions that have some (add_scalar: p, clamp: p and q, …).
#define CAMBIUM_UNARY_FUNCTIONS(ROW)                                                                                      \
  ROW(neg, nothing, -x, T(-1))                                                                                            \
  ROW(abs, input, std::fabs(x), T((v > T(0)) - (v < T(0))))                                                               \
  ROW(exp, output, std::exp(x), v)                                                                                        \
  ROW(expm1, output, std::expm1(x), v + T(1))                                                                             \
  ROW(log, input, std::log(x), T(1) / v)                                                                                  \
  ROW(log1p, input, std::log1p(x), T(1) / (T(1) + v))                                                                     \
  ROW(sqrt, output, std::sqrt(x), T(0.5) / v)                                                                             \
  ROW(rsqrt, output, T(1) / std::sqrt(x), T(-0.5) * v * v * v)                                                            \
  ROW(reciprocal, output, T(1) / x, -v * v)                                                                               \
  ROW(square, input, x * x, T(2) * v)                                                                                     \
  ROW(sin, input, std::sin(x), std::cos(v))                                                                               \
  ROW(cos, input, std::cos(x), -std::sin(v))                                                                              \
  ROW(tanh, output, std::tanh(x), T(1) - v * v)                                                                           \
  ROW(sigmoid, output, T(1) / (T(1) + std::exp(-x)), v * (T(1) - v))                                                      \
  ROW(relu, output, x > T(0) ? x : T(0), v > T(0) ? T(1) : T(0))                                                          \
  ROW(erf, input, std::erf(x), T(1.1283791670955126) * std::exp(-v * v))                                                  \
  ROW(gelu_erf, input, gelu_erf_value(x), gelu_erf_derivative(v))                                                         \
  ROW(gelu_tanh, input, gelu_tanh_value(x), gelu_tanh_derivative(v))                                                      \
  ROW(quick_gelu, input, x / (T(1) + std::exp(T(-1.702) * x)), scaled_silu_derivative(v, T(1.702)))                       \
  ROW(silu, input, x / (T(1) + std::exp(-x)), scaled_silu_derivative(v, T(1)))                                            \
  ROW(softplus, input, (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::fabs(x))), T(1) / (T(1) + std::exp(-v)))         \
  ROW(floor, nothing, std::floor(x), T(0))                                                                                \
  ROW(ceil, nothing, std::ceil(x), T(0))                                                                                  \
  ROW(round, nothing, std::nearbyint(x), T(0))                                                                            \
  ROW(sign, nothing, T((x > T(0)) - (x < T(0))), T(0))                                                                    \
  ROW(add_scalar, nothing, x + p, T(1))                                                                                   \
  ROW(mul_scalar, nothing, x * p, p)                                                                                      \
  ROW(rsub_scalar, nothing, p - x, T(-1))                                                                                 \
  ROW(rdiv_scalar, input, p / x, -p / (v * v))                                                                            \
  ROW(pow_scalar, input, std::pow(x, p), p == T(0) ? T(0) : p * std::pow(v, p - T(1)))                                    \
  ROW(clamp, input, x < p ? p : (x > q ? q : x), v >= p && v <= q ? T(1) : T(0))

#define CAMBIUM_ROW(name, needs, value, derivative) name,
enum class UnaryFunction { CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW) };
#undef CAMBIUM_ROW

// One row per function of two arguments: name, value of a and b in floating point, value of int64. Integers wrap around, their quotients are truncated.
#define CAMBIUM_BINARY_FUNCTIONS(ROW)                                                                             \
  ROW(add, a + b, wrapped(bits(a) + bits(b)))                                                                     \
  ROW(sub, a - b, wrapped(bits(a) - bits(b)))                                                                     \
  ROW(mul, a * b, wrapped(bits(a) * bits(b)))                                                                     \
  ROW(div, a / b, b == -1 ? wrapped(0 - bits(a)) : a / b)                                                         \
  ROW(pow, std::pow(a, b), integer_power(a, b))                                                                   \
  ROW(maximum, a > b || a != a ? a : b, a > b ? a : b)                                                            \
  ROW(minimum, a < b || a != a ? a : b, a < b ? a : b)                                                            \
  ROW(atan2, std::atan2(a, b), a /* refused by kernels */)                                                        \
  ROW(remainder, remainder_of(a, b), remainder_of(a, b))
// Comparisons and logic give bool.
#define CAMBIUM_COMPARISONS(ROW)                 \
  ROW(equal, a == b)                             \
  ROW(not_equal, a != b)                         \
  ROW(less, a < b)                               \
  ROW(less_equal, a <= b)                        \
  ROW(greater, a > b)                            \
  ROW(greater_equal, a >= b)                     \
  ROW(logical_and, a != T(0) && b != T(0))       \
  ROW(logical_or, a != T(0) || b != T(0))        \
  ROW(logical_xor, (a != T(0)) != (b != T(0)))
#define CAMBIUM_ROW(name, ...) name,
/// Functions of two arguments whose gradients are composed of others in autograd/ops/pointwise.cpp.
enum class BinaryFunction { CAMBIUM_BINARY_FUNCTIONS(CAMBIUM_ROW) };
enum class Comparison { CAMBIUM_COMPARISONS(CAMBIUM_ROW) };
#undef CAMBIUM_ROW

template <class T> CAMBIUM_HOST_DEVICE T gelu_erf_value(T x) { return T(0.5) * x * (T(1) + std::erf(x * T(0.7071067811865476))); }
template <class T> CAMBIUM_HOST_DEVICE T gelu_erf_derivative(T x) {
  return T(0.5) * (T(1) + std::erf(x * T(0.7071067811865476))) + x * T(0.3989422804014327) * std::exp(T(-0.5) * x * x);
}
// Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
template <class T> CAMBIUM_HOST_DEVICE T gelu_tanh_value(T x) {
  return T(0.5) * x * (T(1) + std::tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x)));
}
template <class T> CAMBIUM_HOST_DEVICE T gelu_tanh_derivative(T x) {
  const T t = std::tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x));
  return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * T(0.7978845608028654) * (T(1) + T(0.134145) * x * x);
}
/// Derivative of x sigmoid(s x).
template <class T> CAMBIUM_HOST_DEVICE T scaled_silu_derivative(T x, T s) {
  const T sigma = T(1) / (T(1) + std::exp(-s * x));
  return sigma * (T(1) + s * x * (T(1) - sigma));
}

#define CAMBIUM_ROW(name, needs_, value, derivative)                                     \
  struct name##_function {                                                               \
    static constexpr Needs needs = Needs::needs_;                                        \
    template <class T> CAMBIUM_HOST_DEVICE static T f([[maybe_unused]] T x, [[maybe_unused]] T p, [[maybe_unused]] T q) { return value; } \
    template <class T> CAMBIUM_HOST_DEVICE static T d([[maybe_unused]] T v, [[maybe_unused]] T p, [[maybe_unused]] T q) { return derivative; } \
  };
CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW

/// The sign of a remainder is the divisor's, as in Python. Integer division by zero is the caller's to refuse.
template <class T>
CAMBIUM_HOST_DEVICE T remainder_of(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == -1) return 0;
    const T r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
  } else {
    const T r = std::fmod(a, b);
    return r != T(0) && (r < T(0)) != (b < T(0)) ? r + b : r;
  }
}

#define CAMBIUM_ROW(name, float_value, integer_value)             \
  struct name##_function {                                        \
    template <class T> CAMBIUM_HOST_DEVICE static T f(T a, T b) { \
      if constexpr (std::is_integral_v<T>) { return integer_value; } \
      else { return float_value; }                                \
    }                                                             \
  };
CAMBIUM_BINARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW

#define CAMBIUM_ROW(name, value)                                               \
  struct name##_comparison {                                                   \
    template <class T> CAMBIUM_HOST_DEVICE static bool f(T a, T b) { return value; } \
  };
CAMBIUM_COMPARISONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW

constexpr Needs needs_of(UnaryFunction function) {
  switch (function) {
#define CAMBIUM_ROW(name, needs, value, derivative) case UnaryFunction::name: return Needs::needs;
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  return Needs::input;
}

}  // namespace cambium::kernels
