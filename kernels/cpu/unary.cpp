// Unary pointwise functions and their backward, for every element type and any strides.
#include <cmath>
#include <limits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/isa/pointwise.h"
#include "kernels/cpu/pointwise.h"
#include "kernels/cpu/rows.h"
#include "kernels/integer.h"

namespace cambium::kernels::cpu {
namespace {

template <class Function, class T>
void forward_row(T* out, const T* x, std::int64_t n, T p, T q) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = Function::f(x[i], p, q);
}

template <class Function, class T>
void backward_row(T* dx, const T* g, const T* value, std::int64_t n, T p, T q) {
  for (std::int64_t i = 0; i < n; ++i) dx[i] = g[i] * Function::d(value[i], p, q);
}

// The vector code of the chosen instruction set for the functions that it has; nullptr for the others.
UnaryRow<float> vector_row(UnaryFunction function) {
  const auto& table = isa().pointwise->unary;
  switch (function) {
    case UnaryFunction::neg: return table.neg;
    case UnaryFunction::abs: return table.abs;
    case UnaryFunction::exp: return table.exp;
    case UnaryFunction::log: return table.log;
    case UnaryFunction::sqrt: return table.sqrt;
    case UnaryFunction::rsqrt: return table.rsqrt;
    case UnaryFunction::reciprocal: return table.reciprocal;
    case UnaryFunction::square: return table.square;
    case UnaryFunction::tanh: return table.tanh;
    case UnaryFunction::sigmoid: return table.sigmoid;
    case UnaryFunction::relu: return table.relu;
    case UnaryFunction::erf: return table.erf;
    case UnaryFunction::gelu_erf: return table.gelu_erf;
    case UnaryFunction::gelu_tanh: return table.gelu_tanh;
    case UnaryFunction::quick_gelu: return table.quick_gelu;
    case UnaryFunction::silu: return table.silu;
    case UnaryFunction::add_scalar: return table.add_scalar;
    case UnaryFunction::mul_scalar: return table.mul_scalar;
    case UnaryFunction::rsub_scalar: return table.rsub_scalar;
    case UnaryFunction::rdiv_scalar: return table.rdiv_scalar;
    default: return nullptr;
  }
}

UnaryBackwardRow<float> vector_backward_row(UnaryFunction function) {
  const auto& table = isa().pointwise->unary_backward;
  switch (function) {
    case UnaryFunction::neg: return table.neg;
    case UnaryFunction::exp: return table.exp;
    case UnaryFunction::log: return table.log;
    case UnaryFunction::sqrt: return table.sqrt;
    case UnaryFunction::rsqrt: return table.rsqrt;
    case UnaryFunction::reciprocal: return table.reciprocal;
    case UnaryFunction::square: return table.square;
    case UnaryFunction::tanh: return table.tanh;
    case UnaryFunction::sigmoid: return table.sigmoid;
    case UnaryFunction::relu: return table.relu;
    case UnaryFunction::gelu_erf: return table.gelu_erf;
    case UnaryFunction::gelu_tanh: return table.gelu_tanh;
    case UnaryFunction::quick_gelu: return table.quick_gelu;
    case UnaryFunction::silu: return table.silu;
    case UnaryFunction::add_scalar: return table.add_scalar;
    case UnaryFunction::mul_scalar: return table.mul_scalar;
    case UnaryFunction::rsub_scalar: return table.rsub_scalar;
    default: return nullptr;
  }
}

template <class T>
UnaryRow<T> unary_row(UnaryFunction function) {
  if constexpr (std::is_same_v<T, float>)
    if (const UnaryRow<float> row = vector_row(function)) return row;
  switch (function) {
#define CAMBIUM_ROW(name, needs, value, derivative) case UnaryFunction::name: return &forward_row<name##_function, T>;
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  fail<DTypeError>("unary: no such function");
}

template <class T>
UnaryBackwardRow<T> unary_backward_row(UnaryFunction function) {
  if constexpr (std::is_same_v<T, float>)
    if (const UnaryBackwardRow<float> row = vector_backward_row(function)) return row;
  switch (function) {
#define CAMBIUM_ROW(name, needs, value, derivative) case UnaryFunction::name: return &backward_row<name##_function, T>;
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  fail<DTypeError>("unary_backward: no such function");
}

template <class F>
void map(Integer* out, const Integer* x, Integer n, F&& f) {
  for (Integer i = 0; i < n; ++i) out[i] = f(x[i]);
}

// The scalar argument of an integer function; bounds of clamp may be infinite.
Integer integer_argument(double value, bool saturate) {
  constexpr double kLimit = 0x1p63;
  if (saturate && value >= kLimit) return std::numeric_limits<Integer>::max();
  if (saturate && value < -kLimit) return std::numeric_limits<Integer>::min();
  check<DTypeError>(value == std::floor(value) && std::fabs(value) < kLimit, "unary: expected an integral scalar for an integer tensor, found ",
                    value, ": convert the tensor to a floating type first");
  return static_cast<Integer>(value);
}

UnaryRow<Integer> integer_row(UnaryFunction function) {
  using I = Integer;
  switch (function) {
    case UnaryFunction::neg: return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return wrapped(0 - bits(v)); }); };
    case UnaryFunction::abs: return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return v < 0 ? wrapped(0 - bits(v)) : v; }); };
    case UnaryFunction::sign: return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return I{v > 0} - I{v < 0}; }); };
    case UnaryFunction::relu: return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return v > 0 ? v : 0; }); };
    case UnaryFunction::square: return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return wrapped(bits(v) * bits(v)); }); };
    case UnaryFunction::floor: case UnaryFunction::ceil: case UnaryFunction::round:
      return [](I* o, const I* x, I n, I, I) { map(o, x, n, [](I v) { return v; }); };
    case UnaryFunction::add_scalar: return [](I* o, const I* x, I n, I p, I) { map(o, x, n, [=](I v) { return wrapped(bits(v) + bits(p)); }); };
    case UnaryFunction::mul_scalar: return [](I* o, const I* x, I n, I p, I) { map(o, x, n, [=](I v) { return wrapped(bits(v) * bits(p)); }); };
    case UnaryFunction::rsub_scalar: return [](I* o, const I* x, I n, I p, I) { map(o, x, n, [=](I v) { return wrapped(bits(p) - bits(v)); }); };
    case UnaryFunction::pow_scalar:
      return [](I* o, const I* x, I n, I p, I) {
        check<DTypeError>(p >= 0, "pow: integer tensors take no negative exponent, found ", p, ": convert to a floating type first");
        map(o, x, n, [=](I v) { return integer_power(v, p); });
      };
    case UnaryFunction::clamp: return [](I* o, const I* x, I n, I p, I q) { map(o, x, n, [=](I v) { return v < p ? p : v > q ? q : v; }); };
    default: fail<DTypeError>("unary: this function takes floating types only, found an integer tensor: convert it first");
  }
}

}  // namespace

void unary(Context&, UnaryFunction function, Strided out, Strided x, double p, double q) {
  visit_compute(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    UnaryRow<T> row;
    T tp, tq;
    if constexpr (std::is_same_v<T, Integer>) {
      row = integer_row(function);
      tp = integer_argument(p, function == UnaryFunction::clamp);
      tq = integer_argument(q, function == UnaryFunction::clamp);
    } else {
      row = unary_row<T>(function);
      tp = static_cast<T>(p);
      tq = static_cast<T>(q);
    }
    const ConvertRow load = convert_row(dtype_of<T>, x.dtype), store = convert_row(out.dtype, dtype_of<T>);
    const bool typed_in = x.dtype == dtype_of<T>, typed_out = out.dtype == dtype_of<T>;
    const std::int64_t in_size = item_size(x.dtype), out_size = item_size(out.dtype);
    for_each_row<2>({out, x}, [&](const auto& pointers, const auto& strides, std::int64_t count) {
      T buffer[kRowBlock];
      for (std::int64_t begin = 0; begin < count; begin += kRowBlock) {
        const std::int64_t n = std::min(kRowBlock, count - begin);
        std::byte* o = pointers[0] + begin * strides[0] * out_size;
        const std::byte* in = pointers[1] + begin * strides[1] * in_size;
        const bool direct_in = typed_in && strides[1] == 1, direct_out = typed_out && strides[0] == 1;
        if (!direct_in) load(buffer, 1, in, strides[1], n);
        T* result = direct_out ? reinterpret_cast<T*>(o) : buffer;
        row(result, direct_in ? reinterpret_cast<const T*>(in) : buffer, n, tp, tq);
        if (!direct_out) store(o, strides[0], buffer, 1, n);
      }
    });
  });
}

void unary_backward(Context&, UnaryFunction function, Strided dx, Strided g, Strided value, double p, double q) {
  // A derivative that needs nothing may come without a value: any operand of the right shape stands in.
  if (!value) value = g;
  visit_float(g.dtype, "unary_backward", [&](auto tag) {
    using T = acc_t<typename decltype(tag)::type>;
    const UnaryBackwardRow<T> row = unary_backward_row<T>(function);
    const ConvertRow load_g = convert_row(dtype_of<T>, g.dtype), load_value = convert_row(dtype_of<T>, value.dtype),
                     store = convert_row(dx.dtype, dtype_of<T>);
    for_each_row<3>({dx, g, value}, [&](const auto& pointers, const auto& strides, std::int64_t count) {
      T g_buffer[kRowBlock], value_buffer[kRowBlock];
      for (std::int64_t begin = 0; begin < count; begin += kRowBlock) {
        const std::int64_t n = std::min(kRowBlock, count - begin);
        std::byte* o = pointers[0] + begin * strides[0] * item_size(dx.dtype);
        const std::byte* g_in = pointers[1] + begin * strides[1] * item_size(g.dtype);
        const std::byte* v_in = pointers[2] + begin * strides[2] * item_size(value.dtype);
        const bool direct_out = dx.dtype == dtype_of<T> && strides[0] == 1, direct_g = g.dtype == dtype_of<T> && strides[1] == 1,
                   direct_value = value.dtype == dtype_of<T> && strides[2] == 1;
        if (!direct_g) load_g(g_buffer, 1, g_in, strides[1], n);
        if (!direct_value) load_value(value_buffer, 1, v_in, strides[2], n);
        row(direct_out ? reinterpret_cast<T*>(o) : g_buffer, direct_g ? reinterpret_cast<const T*>(g_in) : g_buffer,
            direct_value ? reinterpret_cast<const T*>(v_in) : value_buffer, n, static_cast<T>(p), static_cast<T>(q));
        if (!direct_out) store(o, strides[0], g_buffer, 1, n);
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
