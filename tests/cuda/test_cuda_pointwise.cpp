// Copies, fills and pointwise functions on the device against the CPU's.
#include <limits>

#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

const double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
// One pack and less, whole packs and a rest, several blocks; many dimensions, some of size 1 and none.
const Shape kShapes[] = {{}, {1}, {3}, {16}, {1037}, {5, 32}, {3, 1, 7}, {2, 3, 4, 5}, {0}, {4, 0, 3}};

// CPU and CUDA compute in float (double for float64): each has a few units in the last place from its functions, and both round once to the element type. The
// documented bounds of CUDA's functions end at 4 ulp (pow); the formulas add a few roundings relative to their largest term.
double relative_of(DType dtype) { return epsilon(dtype) + 16 * epsilon(dtype == DType::f64 ? dtype : DType::f32); }
double absolute_of(DType dtype) { return 16 * epsilon(dtype == DType::f64 ? dtype : DType::f32) + (dtype == DType::f16 ? 0x1p-24 : 0); }

// Random numbers in which zeros of both signs, infinities and NaN lie.
Array special(DType dtype, const Shape& shape, unsigned seed, Lay lay = Lay::dense) {
  Array x(dtype, shape, lay);
  x.random(seed, -3, 3);
  if (!is_float(dtype)) return x;
  const double values[] = {0.0, -0.0, kInfinity, -kInfinity, kNan, 0.5, 2.5, -1.5};
  for (std::int64_t i = 0; i < x.count(); ++i)
    if (i % 5 == 3) x.set(i, values[i / 5 % 8]);
  return x;
}

struct Function {
  UnaryFunction function;
  const char* name;
  double low, high;
};
const Function kUnary[] = {
#define CAMBIUM_ROW(name, ...) {UnaryFunction::name, #name, -3, 3},
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
};
bool positive_only(UnaryFunction f) {
  return f == UnaryFunction::log || f == UnaryFunction::log1p || f == UnaryFunction::sqrt || f == UnaryFunction::rsqrt || f == UnaryFunction::pow_scalar;
}
bool divides(UnaryFunction f) { return f == UnaryFunction::reciprocal || f == UnaryFunction::rdiv_scalar || f == UnaryFunction::rsqrt; }

}  // namespace

TEST_CASE("copy converts between all types as on the CPU") {
  for (const DType to : kAll) {
    for (const DType from : kAll) {
      for (const Shape& shape : kShapes) {
        if (shape.size() == 1 && shape[0] == 16) continue;
        same_on_devices(Array(to, shape), [](const Kernels& k, Context& c, Strided out, Strided x) { k.copy(c, out, x); }, special(from, shape, 1));
      }
      for (const Lay lay : kLays)
        same_on_devices(Array(to, {3, 5, 4}, lay), [](const Kernels& k, Context& c, Strided out, Strided x) { k.copy(c, out, x); },
                        special(from, {3, 5, 4}, 2, lay == Lay::transposed ? Lay::sliced : Lay::transposed));
    }
  }
}

TEST_CASE("copy of transposed, repeated and moved elements") {
  const auto copy = [](const Kernels& k, Context& c, Strided out, Strided x) { k.copy(c, out, x); };
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::u8}) {
    for (const Shape& shape : {Shape{8, 8}, Shape{33, 70}, Shape{2, 31, 40}, Shape{40, 3, 65}}) {
      Array x(dtype, shape, Lay::transposed);
      x.random(3, 0, 100);
      same_on_devices(Array(dtype, shape), copy, x);
      same_on_devices(Array(dtype, shape, Lay::sliced), copy, x);
    }
    Array row(dtype, {48});
    row.random(4, 0, 100);
    same_on_devices(Array(dtype, {6, 48}), [&](const Kernels& k, Context& c, Strided out, Strided x) { k.copy(c, out, expand(x, {6, 48})); }, row);
    Array column(dtype, {6, 1});
    column.random(5, 0, 100);
    same_on_devices(Array(dtype, {6, 48}), [&](const Kernels& k, Context& c, Strided out, Strided x) { k.copy(c, out, expand(x, {6, 48})); }, column);
    // From the second element on nothing is aligned.
    Array long_row(dtype, {200});
    long_row.random(6, 0, 100);
    same_on_devices(Array(dtype, {200}), [&](const Kernels& k, Context& c, Strided out, Strided x) {
      for (Strided* s : {&out, &x}) {
        s->shape[0] = 199;
        s->data = s->as<std::byte>() + item_size(s->dtype);
      }
      k.fill(c, out, 1);
      k.copy(c, out, x);
      out.data = out.as<std::byte>() - item_size(out.dtype);
      out.shape[0] = 1;
      k.fill(c, out, 7);
    }, long_row);
  }
}

TEST_CASE("fill and arange") {
  for (const DType dtype : kAll) {
    for (const Shape& shape : kShapes)
      for (const Lay lay : kLays) same_on_devices(Array(dtype, shape, lay), [](const Kernels& k, Context& c, Strided out) { k.fill(c, out, 2.75); });
    for (const double value : {-1.0, kInfinity, kNan}) same_on_devices(Array(dtype, {37}), [&](const Kernels& k, Context& c, Strided out) { k.fill(c, out, value); });
    for (const std::int64_t n : {0, 1, 1000}) same_on_devices(Array(dtype, {n}), [](const Kernels& k, Context& c, Strided out) { k.arange(c, out, -7.3, 0.1); });
  }
}

TEST_CASE("unary functions and their derivatives") {
  for (const Function& f : kUnary) {
    CAPTURE(f.name);
    for (const DType dtype : kFloats) {
      const double low = positive_only(f.function) ? 0.1 : divides(f.function) ? 0.2 : -3;
      const auto forward = [&](const Kernels& k, Context& c, Strided out, Strided x) { k.unary(c, f.function, out, x, 0.75, 2.25); };
      const auto backward = [&](const Kernels& k, Context& c, Strided dx, Strided g, Strided v) { k.unary_backward(c, f.function, dx, g, v, 0.75, 2.25); };
      for (const Shape& shape : kShapes) {
        if (shape.size() == 1 && shape[0] == 1037 && dtype != DType::f32) continue;
        Array x(dtype, shape), g(dtype, shape);
        x.random(7, low, 3);
        g.random(8, -2, 2);
        compare_devices(Array(dtype, shape), relative_of(dtype), absolute_of(dtype), forward, x);
        // What lies near a jump or a pole of the derivative is as exact as its input.
        compare_devices(Array(dtype, shape), relative_of(dtype), 64 * absolute_of(dtype), backward, g, x);
      }
      for (const Lay lay : kLays) {
        Array x(dtype, {3, 5, 4}, lay), g(dtype, {3, 5, 4}, Lay::transposed);
        x.random(9, low, 3);
        g.random(10, -2, 2);
        compare_devices(Array(dtype, {3, 5, 4}, Lay::sliced), relative_of(dtype), absolute_of(dtype), forward, x);
        compare_devices(Array(dtype, {3, 5, 4}, lay), relative_of(dtype), 64 * absolute_of(dtype), backward, g, x);
      }
    }
  }
}

TEST_CASE("unary functions of zeros, infinities and NaN, in place and into another type") {
  for (const UnaryFunction f : {UnaryFunction::neg, UnaryFunction::abs, UnaryFunction::relu, UnaryFunction::sign, UnaryFunction::clamp, UnaryFunction::round, UnaryFunction::floor,
                                UnaryFunction::ceil, UnaryFunction::exp, UnaryFunction::reciprocal, UnaryFunction::square, UnaryFunction::sqrt, UnaryFunction::add_scalar}) {
    for (const DType dtype : kFloats) {
      const auto forward = [&](const Kernels& k, Context& c, Strided out, Strided x) { k.unary(c, f, out, x, -0.5, 1.5); };
      compare_devices(Array(dtype, {83}), relative_of(dtype), absolute_of(dtype), forward, special(dtype, {83}, 11));
      compare_devices(special(dtype, {83}, 12), relative_of(dtype), absolute_of(dtype), [&](const Kernels& k, Context& c, Strided x) { k.unary(c, f, x, x, -0.5, 1.5); });
      compare_devices(Array(dtype == DType::f32 ? DType::bf16 : DType::f32, {83}), relative_of(DType::bf16), absolute_of(dtype), forward, special(dtype, {83}, 13));
    }
  }
}

TEST_CASE("unary functions of integers") {
  for (const DType dtype : kIntegers) {
    for (const UnaryFunction f : {UnaryFunction::neg, UnaryFunction::abs, UnaryFunction::sign, UnaryFunction::relu, UnaryFunction::square, UnaryFunction::floor, UnaryFunction::ceil,
                                  UnaryFunction::round, UnaryFunction::add_scalar, UnaryFunction::mul_scalar, UnaryFunction::rsub_scalar, UnaryFunction::pow_scalar, UnaryFunction::clamp}) {
      Array x(dtype, {61}, Lay::sliced);
      x.random(14, -100, 100);
      same_on_devices(Array(dtype, {61}), [&](const Kernels& k, Context& c, Strided out, Strided v) { k.unary(c, f, out, v, 3, f == UnaryFunction::clamp ? kInfinity : 0); }, x);
    }
  }
  const DeviceArray x(Array(DType::i64, {4})), out(Array(DType::i64, {4}));
  CHECK_THROWS_AS(cuda::table().unary(gpu(), UnaryFunction::exp, out, x, 0, 0), DTypeError);
  CHECK_THROWS_AS(cuda::table().unary(gpu(), UnaryFunction::add_scalar, out, x, 0.5, 0), DTypeError);
  CHECK_THROWS_AS(cuda::table().unary(gpu(), UnaryFunction::pow_scalar, out, x, -1, 0), DTypeError);
}

TEST_CASE("binary functions, comparisons and where") {
  for (const BinaryFunction f : {BinaryFunction::add, BinaryFunction::sub, BinaryFunction::mul, BinaryFunction::div, BinaryFunction::pow, BinaryFunction::maximum, BinaryFunction::minimum,
                                 BinaryFunction::atan2, BinaryFunction::remainder}) {
    CAPTURE(static_cast<int>(f));
    for (const DType dtype : kFloats) {
      const auto call = [&](const Kernels& k, Context& c, Strided out, Strided a, Strided b) { k.binary(c, f, out, a, b); };
      const auto repeat = [&](const Kernels& k, Context& c, Strided out, Strided a, Strided b) { k.binary(c, f, out, a, expand(b, {6, 32})); };
      const bool power = f == BinaryFunction::pow;
      for (const Shape& shape : kShapes) {
        Array a(dtype, shape), b(dtype, shape);
        a.random(15, power ? 0.1 : -3, 3);
        b.random(16, f == BinaryFunction::div || f == BinaryFunction::remainder ? 0.3 : -3, 3);
        compare_devices(Array(dtype, shape), relative_of(dtype), absolute_of(dtype), call, a, b);
      }
      for (const Lay lay : kLays) {
        Array a(dtype, {3, 5, 4}, lay), b(dtype, {3, 5, 4}, Lay::transposed);
        a.random(17, 0.2, 3);
        b.random(18, 0.2, 3);
        compare_devices(Array(dtype, {3, 5, 4}, lay), relative_of(dtype), absolute_of(dtype), call, a, b);
      }
      Array a(dtype, {6, 32}), row(dtype, {32}), column(dtype, {6, 1});
      a.random(19, 0.2, 3);
      row.random(20, 0.2, 3);
      column.random(21, 0.2, 3);
      compare_devices(Array(dtype, {6, 32}), relative_of(dtype), absolute_of(dtype), repeat, a, row);
      compare_devices(Array(dtype, {6, 32}), relative_of(dtype), absolute_of(dtype), repeat, a, column);
      if (!power && f != BinaryFunction::remainder)
        compare_devices(Array(dtype, {91}), relative_of(dtype), absolute_of(dtype), call, special(dtype, {91}, 22), special(dtype, {91}, 23, Lay::reversed));
      // Types of their own for each operand.
      Array other(dtype == DType::f32 ? DType::f64 : DType::f32, {6, 32});
      other.random(24, 0.2, 3);
      compare_devices(Array(dtype, {6, 32}), relative_of(dtype), absolute_of(dtype), call, a, other);
    }
    for (const DType dtype : kIntegers) {
      if (f == BinaryFunction::atan2) continue;
      Array a(dtype, {77}), b(dtype, {77}, Lay::reversed);
      a.random(25, -100, 100);
      b.random(26, f == BinaryFunction::pow ? 0 : 1, 6);
      same_on_devices(Array(dtype, {77}), [&](const Kernels& k, Context& c, Strided out, Strided x, Strided y) { k.binary(c, f, out, x, y); }, a, b);
    }
  }
  for (int number = 0; number <= static_cast<int>(Comparison::logical_xor); ++number) {
    for (const DType dtype : kAll) {
      const auto call = [&](const Kernels& k, Context& c, Strided out, Strided a, Strided b) { k.compare(c, static_cast<Comparison>(number), out, a, b); };
      Array a = special(dtype, {203}, 27), b = special(dtype, {203}, 28);
      for (std::int64_t i = 0; i < 203; i += 3) b.set(i, a[i]);
      same_on_devices(Array(DType::boolean, {203}), call, a, b);
      same_on_devices(Array(DType::boolean, {7, 5}, Lay::sliced), call, special(dtype, {7, 5}, 29, Lay::transposed), special(dtype, {7, 5}, 30));
    }
  }
  for (const DType dtype : kAll) {
    const auto call = [](const Kernels& k, Context& c, Strided out, Strided condition, Strided a, Strided b) { k.where(c, out, condition, a, b); };
    for (const Shape& shape : {Shape{200}, Shape{5, 32}, Shape{0}, Shape{}}) {
      Array condition(DType::boolean, shape);
      condition.random(31, 0, 2);
      same_on_devices(Array(dtype, shape), call, condition, special(dtype, shape, 32), special(dtype, shape, 33));
      same_on_devices(Array(dtype, shape, Lay::transposed), call, condition, special(dtype, shape, 34, Lay::sliced), special(dtype, shape, 35));
    }
  }
}

TEST_CASE("integers without a quotient or a power are refused before anything is written") {
  Array a(DType::i64, {300}), b(DType::i64, {300}), out(DType::i64, {300});
  a.random(36, 1, 9);
  b.random(37, 1, 9);
  out.random(38, 1, 9);
  b.set(299, 0);
  const DeviceArray x(a), zero(b), result(out);
  CHECK_THROWS_WITH(cuda::table().binary(gpu(), BinaryFunction::div, result, x, zero), "div: integer division by zero");
  CHECK_THROWS_WITH(cuda::table().binary(gpu(), BinaryFunction::remainder, result, x, zero), "remainder: integer division by zero");
  CHECK_THROWS_AS(cuda::table().binary(gpu(), BinaryFunction::atan2, result, x, x), DTypeError);
  b.set(299, -1);
  const DeviceArray negative(b);
  CHECK_THROWS_AS(cuda::table().binary(gpu(), BinaryFunction::pow, result, x, negative), Error);
  CHECK(result.fetch().bytes() == out.bytes());
}

TEST_CASE("gated activations") {
  for (const UnaryFunction f : {UnaryFunction::silu, UnaryFunction::gelu_tanh, UnaryFunction::gelu_erf, UnaryFunction::relu}) {
    for (const DType dtype : kFloats) {
      for (const Shape& shape : {Shape{3}, Shape{16}, Shape{5, 401}, Shape{0}}) {
        Array gate(dtype, shape), up(dtype, shape), g(dtype, shape);
        gate.random(40, -4, 4);
        up.random(41);
        g.random(42);
        compare_devices(Array(dtype, shape), relative_of(dtype), absolute_of(dtype), [&](const Kernels& k, Context& c, Strided out, Strided x, Strided u) { k.gated(c, f, out, x, u); }, gate, up);
        compare_devices(Array(dtype, shape), relative_of(dtype), 4 * absolute_of(dtype), [&](const Kernels& k, Context& c, Strided dgate, Strided v, Strided x, Strided u) {
          k.gated_backward(c, f, dgate, {}, v, x, u);
        }, g, gate, up);
        compare_devices(Array(dtype, shape), relative_of(dtype), 4 * absolute_of(dtype), [&](const Kernels& k, Context& c, Strided dup, Strided v, Strided x, Strided u) {
          k.gated_backward(c, f, {}, dup, v, x, u);
        }, g, gate, up);
        // Both at once, from the second element on, over what was there: dgate into up's place is not asked for by anyone, dup into g's is.
        if (gate.count() > 1) {
          compare_devices(g, relative_of(dtype), 4 * absolute_of(dtype), [&](const Kernels& k, Context& c, Strided v, Strided x, Strided u, Strided dgate) {
            for (Strided* s : {&v, &x, &u, &dgate}) {
              s->rank = 1;
              s->shape[0] = gate.count() - 1;
              s->strides[0] = 1;
              s->data = s->as<std::byte>() + item_size(dtype);
            }
            k.gated_backward(c, f, dgate, v, v, x, u);
          }, gate, up, Array(dtype, shape));
        }
      }
    }
  }
  const DeviceArray x(Array(DType::f32, {4}));
  CHECK_THROWS_AS(cuda::table().gated(gpu(), UnaryFunction::exp, x, x, x), Error);
}
