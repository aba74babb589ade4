// Unary pointwise functions and their backward, for every element type and any strides.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"
#include "kernels/integer.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class Function, class T>
struct Forward {
  acc_t<T> p, q;
  __device__ T operator()(T x) const { return convert_to<T>(Function::f(convert_to<acc_t<T>>(x), p, q)); }
};
template <class Function, class T>
struct Backward {
  acc_t<T> p, q;
  __device__ T operator()(T g, T value) const { return convert_to<T>(convert_to<acc_t<T>>(g) * Function::d(convert_to<acc_t<T>>(value), p, q)); }
};

// Calls `f(Function{})` for the struct of a function.
template <class F>
__host__ __device__ __forceinline__ auto visit_function(UnaryFunction function, F&& f) {
  switch (function) {
#define CAMBIUM_ROW(name, needs, value, derivative) case UnaryFunction::name: return f(name##_function{});
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  return f(neg_function{});
}

__device__ Integer integer_function(UnaryFunction function, Integer v, Integer p, Integer q) {
  switch (function) {
    case UnaryFunction::neg: return wrapped(0 - bits(v));
    case UnaryFunction::abs: return v < 0 ? wrapped(0 - bits(v)) : v;
    case UnaryFunction::sign: return Integer{v > 0} - Integer{v < 0};
    case UnaryFunction::relu: return v > 0 ? v : 0;
    case UnaryFunction::square: return wrapped(bits(v) * bits(v));
    case UnaryFunction::add_scalar: return wrapped(bits(v) + bits(p));
    case UnaryFunction::mul_scalar: return wrapped(bits(v) * bits(p));
    case UnaryFunction::rsub_scalar: return wrapped(bits(p) - bits(v));
    case UnaryFunction::pow_scalar: return integer_power(v, p);
    case UnaryFunction::clamp: return v < p ? p : v > q ? q : v;
    default: return v;  // floor, ceil, round
  }
}
bool takes_integers(UnaryFunction function) {
  switch (function) {
    case UnaryFunction::neg: case UnaryFunction::abs: case UnaryFunction::sign: case UnaryFunction::relu: case UnaryFunction::square: case UnaryFunction::floor:
    case UnaryFunction::ceil: case UnaryFunction::round: case UnaryFunction::add_scalar: case UnaryFunction::mul_scalar: case UnaryFunction::rsub_scalar:
    case UnaryFunction::pow_scalar: case UnaryFunction::clamp: return true;
    default: return false;
  }
}

// Any strides and element types; A is the type that is computed in.
template <class A>
__global__ void __launch_bounds__(kThreads) unary_strided_kernel(Layout<2> layout, UnaryFunction function, Elements out, Elements x, A p, A q) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[2];
    layout.locate(i, at);
    const A v = x.load<A>(at[1]);
    if constexpr (std::is_integral_v<A>) out.store(at[0], integer_function(function, v, p, q));
    else out.store(at[0], visit_function(function, [&](auto f) { return decltype(f)::template f<A>(v, p, q); }));
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads) unary_backward_strided_kernel(Layout<3> layout, UnaryFunction function, Elements dx, Elements g, Elements value, A p, A q) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    const A upstream = g.load<A>(at[1]), v = value.load<A>(at[2]);
    dx.store(at[0], upstream * visit_function(function, [&](auto f) { return decltype(f)::template d<A>(v, p, q); }));
  }
}

// The scalar argument of an integer function; bounds of clamp may be infinite.
Integer integer_argument(double value, bool saturate) {
  constexpr double kLimit = 0x1p63;
  if (saturate && value >= kLimit) return std::numeric_limits<Integer>::max();
  if (saturate && value < -kLimit) return std::numeric_limits<Integer>::min();
  check<DTypeError>(value == std::floor(value) && std::fabs(value) < kLimit, "unary: expected an integral scalar for an integer tensor, found ", value,
                    ": convert the tensor to a floating type first");
  return static_cast<Integer>(value);
}

template <class A>
void run_strided(Context& context, UnaryFunction function, const std::array<Strided, 2>& part, A p, A q) {
  const Layout<2> layout(part);
  launch(KERNEL(unary_strided_kernel<A>), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, function, Elements(part[0]), Elements(part[1]), p, q);
}

void run_integer(Context& context, UnaryFunction function, Strided out, Strided x, double p, double q) {
  check<DTypeError>(takes_integers(function), "unary: this function takes floating types only, found an integer tensor: convert it first");
  const Integer first = integer_argument(p, function == UnaryFunction::clamp), second = integer_argument(q, function == UnaryFunction::clamp);
  check<DTypeError>(function != UnaryFunction::pow_scalar || first >= 0, "pow: integer tensors take no negative exponent, found ", first, ": convert to a floating type first");
  for_each_part<2>({out, x}, [&](const std::array<Strided, 2>& part) { run_strided<Integer>(context, function, part, first, second); });
}

}  // namespace

void unary(Context& context, UnaryFunction function, Strided out, Strided x, double p, double q) {
  if (!is_float(x.dtype)) return run_integer(context, function, out, x, p, q);
  visit_float(x.dtype, "unary", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const A first = static_cast<A>(p), second = static_cast<A>(q);
    for_each_part<2>({out, x}, [&](const std::array<Strided, 2>& part) {
      const bool done = out.dtype == x.dtype && visit_function(function, [&](auto f) {
        return map_part<T, T>(context, Forward<decltype(f), T>{first, second}, part);
      });
      if (!done) run_strided<A>(context, function, part, first, second);
    });
  });
}

void unary_backward(Context& context, UnaryFunction function, Strided dx, Strided g, Strided value, double p, double q) {
  // A derivative that needs nothing may come without a value: any operand of the right shape stands in.
  if (!value) value = g;
  visit_float(g.dtype, "unary_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const A first = static_cast<A>(p), second = static_cast<A>(q);
    for_each_part<3>({dx, g, value}, [&](const std::array<Strided, 3>& part) {
      const bool done = dx.dtype == g.dtype && value.dtype == g.dtype && visit_function(function, [&](auto f) {
        return map_part<T, T, T>(context, Backward<decltype(f), T>{first, second}, part);
      });
      if (done) return;
      const Layout<3> layout(part);
      launch(KERNEL(unary_backward_strided_kernel<A>), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, function, Elements(part[0]),
             Elements(part[1]), Elements(part[2]), first, second);
    });
  });
}

}  // namespace cambium::kernels::cuda
