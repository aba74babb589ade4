// Binary pointwise functions, comparisons and where, for every element type and any strides.
#include <cmath>

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
void binary_row_of(T* out, const T* a, const T* b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = Function::f(a[i], b[i]);
}

// The vector code of the chosen instruction set for the functions that it has; nullptr for the others.
BinaryRow<float> vector_row(BinaryFunction function) {
  const auto& table = isa().pointwise->binary;
  switch (function) {
    case BinaryFunction::add: return table.add;
    case BinaryFunction::sub: return table.sub;
    case BinaryFunction::mul: return table.mul;
    case BinaryFunction::div: return table.div;
    case BinaryFunction::maximum: return table.maximum;
    case BinaryFunction::minimum: return table.minimum;
    default: return nullptr;
  }
}

template <class T>
BinaryRow<T> float_row(BinaryFunction function) {
  if constexpr (std::is_same_v<T, float>)
    if (const BinaryRow<float> row = vector_row(function)) return row;
  switch (function) {
#define CAMBIUM_ROW(name, float_value, integer_value) case BinaryFunction::name: return &binary_row_of<name##_function, T>;
    CAMBIUM_BINARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  fail<DTypeError>("binary: no such function");
}

// Functions of integers that not every argument has a value of.
struct checked_quotient {
  static Integer f(Integer a, Integer b) {
    check<Error>(b != 0, "div: integer division by zero");
    return div_function::f(a, b);
  }
};
struct checked_remainder {
  static Integer f(Integer a, Integer b) {
    check<Error>(b != 0, "remainder: integer division by zero");
    return remainder_function::f(a, b);
  }
};
struct checked_power {
  static Integer f(Integer a, Integer b) {
    check<Error>(b >= 0, "pow: integer tensors take no negative exponent, found ", b, ": convert to a floating type first");
    return pow_function::f(a, b);
  }
};

BinaryRow<Integer> integer_row(BinaryFunction function) {
  switch (function) {
    case BinaryFunction::add: return &binary_row_of<add_function, Integer>;
    case BinaryFunction::sub: return &binary_row_of<sub_function, Integer>;
    case BinaryFunction::mul: return &binary_row_of<mul_function, Integer>;
    case BinaryFunction::div: return &binary_row_of<checked_quotient, Integer>;
    case BinaryFunction::pow: return &binary_row_of<checked_power, Integer>;
    case BinaryFunction::maximum: return &binary_row_of<maximum_function, Integer>;
    case BinaryFunction::minimum: return &binary_row_of<minimum_function, Integer>;
    case BinaryFunction::remainder: return &binary_row_of<checked_remainder, Integer>;
    case BinaryFunction::atan2: break;
  }
  fail<DTypeError>("atan2: expected a floating type, found an integer tensor: convert it first");
}

template <class T>
BinaryRow<T> binary_row(BinaryFunction function) {
  if constexpr (std::is_same_v<T, Integer>) return integer_row(function);
  else return float_row<T>(function);
}

template <class T> using CompareRow = void (*)(bool* out, const T* a, const T* b, std::int64_t n);

template <class Function, class T>
void compare_row_of(bool* out, const T* a, const T* b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = Function::f(a[i], b[i]);
}

template <class T>
CompareRow<T> compare_row(Comparison comparison) {
  switch (comparison) {
#define CAMBIUM_ROW(name, value) case Comparison::name: return &compare_row_of<name##_comparison, T>;
    CAMBIUM_COMPARISONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  fail<DTypeError>("compare: no such comparison");
}

// Brings pieces of both inputs into contiguous values of T and hands them to `row(result, a, b, n)`, which writes values of R.
template <class T, class R, class Row>
void run(Strided out, Strided a, Strided b, Row row) {
  const ConvertRow load_a = convert_row(dtype_of<T>, a.dtype), load_b = convert_row(dtype_of<T>, b.dtype),
                   store = convert_row(out.dtype, dtype_of<R>);
  for_each_row<3>({out, a, b}, [&](const auto& pointers, const auto& strides, std::int64_t count) {
    T a_buffer[kRowBlock], b_buffer[kRowBlock];
    R out_buffer[kRowBlock];
    const bool direct_out = out.dtype == dtype_of<R> && strides[0] == 1, direct_a = a.dtype == dtype_of<T> && strides[1] == 1,
               direct_b = b.dtype == dtype_of<T> && strides[2] == 1;
    for (std::int64_t begin = 0; begin < count; begin += kRowBlock) {
      const std::int64_t n = std::min(kRowBlock, count - begin);
      std::byte* o = pointers[0] + begin * strides[0] * item_size(out.dtype);
      const std::byte* a_in = pointers[1] + begin * strides[1] * item_size(a.dtype);
      const std::byte* b_in = pointers[2] + begin * strides[2] * item_size(b.dtype);
      if (!direct_a && (begin == 0 || strides[1] != 0)) load_a(a_buffer, 1, a_in, strides[1], strides[1] != 0 ? n : std::min(kRowBlock, count));
      if (!direct_b && (begin == 0 || strides[2] != 0)) load_b(b_buffer, 1, b_in, strides[2], strides[2] != 0 ? n : std::min(kRowBlock, count));
      row(direct_out ? reinterpret_cast<R*>(o) : out_buffer, direct_a ? reinterpret_cast<const T*>(a_in) : a_buffer,
          direct_b ? reinterpret_cast<const T*>(b_in) : b_buffer, n);
      if (!direct_out) store(o, strides[0], out_buffer, 1, n);
    }
  });
}

}  // namespace

void binary(Context&, BinaryFunction function, Strided out, Strided a, Strided b) {
  visit_compute(a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run<T, T>(out, a, b, binary_row<T>(function));
  });
}

void compare(Context&, Comparison comparison, Strided out, Strided a, Strided b) {
  visit_compute(a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run<T, bool>(out, a, b, compare_row<T>(comparison));
  });
}

void where(Context&, Strided out, Strided condition, Strided a, Strided b) {
  const auto select = [&]<class T>(TypeTag<T>) {
    for_each_row<4>({out, condition, a, b}, [&](const auto& p, const auto& s, std::int64_t count) {
      T* o = reinterpret_cast<T*>(p[0]);
      const bool* c = reinterpret_cast<const bool*>(p[1]);
      const T *x = reinterpret_cast<const T*>(p[2]), *y = reinterpret_cast<const T*>(p[3]);
      if (s[0] == 1 && s[1] == 1 && s[2] == 1 && s[3] == 1) {
        for (std::int64_t i = 0; i < count; ++i) {  // masks, not branches: conditions may be random
          const T mask = static_cast<T>(T{0} - T{c[i]});
          o[i] = static_cast<T>((x[i] & mask) | (y[i] & ~mask));
        }
      } else {
        for (std::int64_t i = 0; i < count; ++i) o[i * s[0]] = c[i * s[1]] ? x[i * s[2]] : y[i * s[3]];
      }
    });
  };
  switch (item_size(out.dtype)) {
    case 8: return select(TypeTag<std::uint64_t>{});
    case 4: return select(TypeTag<std::uint32_t>{});
    case 2: return select(TypeTag<std::uint16_t>{});
    default: return select(TypeTag<std::uint8_t>{});
  }
}

}  // namespace cambium::kernels::cpu
