// Unary and binary functions, comparisons, selection and gates against the same formulas in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernel_arrays.h"

using namespace cambium;
using namespace cambium::test;
using kernels::BinaryFunction;
using kernels::Comparison;
using kernels::Needs;
using kernels::UnaryFunction;

namespace {

struct UnaryRow {
  std::string name;
  UnaryFunction function;
  Needs needs;
  double (*f)(double, double, double);
  double (*d)(double, double, double);
};

const UnaryRow kUnary[] = {
#define CAMBIUM_ROW(name, needs_, value, derivative) \
  {#name, UnaryFunction::name, kernels::name##_function::needs, &kernels::name##_function::f<double>, &kernels::name##_function::d<double>},
    CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
};

bool positive_only(UnaryFunction f) {
  return f == UnaryFunction::log || f == UnaryFunction::log1p || f == UnaryFunction::sqrt || f == UnaryFunction::rsqrt ||
         f == UnaryFunction::pow_scalar || f == UnaryFunction::reciprocal || f == UnaryFunction::rdiv_scalar;
}

const Shape kShapes[] = {{}, {0}, {1}, {531}, {3, 7}, {2, 1, 65}, {5, 2, 3}};

}  // namespace

TEST_CASE("unary functions: value and backward") {
  for (const UnaryRow& row : kUnary) {
    for (const DType dtype : kFloats) {
      for (const Lay lay : kLays) {
        for (const Shape& shape : kShapes) {
          Array x(dtype, shape, lay), g(dtype, shape, lay), out(dtype, shape, lay), dx(dtype, shape);
          x.random(11, positive_only(row.function) ? 0.1 : -3, 3);
          g.random(12);
          const double p = 0.75, q = 1.5;
          table().unary(cpu(), row.function, out, x, p, q);
          Array kept(dtype, shape, lay);
          kept.generate([&](std::int64_t i) { return row.needs == Needs::output ? out[i] : x[i]; });
          table().unary_backward(cpu(), row.function, dx, g, kept, p, q);
          const double unit = epsilon(dtype == DType::f64 ? DType::f64 : DType::f32), tolerance = 0.51 * epsilon(dtype) + 64 * unit;
          const double absolute = std::max(16 * unit, dtype == DType::f16 ? 0x1p-24 : 0);  // gates cancel; small numbers of f16 are subnormal
          for (std::int64_t i = 0; i < out.count(); ++i) {
            INFO(row.name, " ", dtype, " of ", x[i], ": ", out[i], " expected ", row.f(x[i], p, q), " backward ", dx[i], " expected ",
                 g[i] * row.d(kept[i], p, q));
            REQUIRE(close(out[i], row.f(x[i], p, q), tolerance, absolute));
            REQUIRE(close(dx[i], g[i] * row.d(kept[i], p, q), tolerance, absolute));
          }
          REQUIRE(out.gaps_untouched());
        }
      }
    }
  }
}

TEST_CASE("unary functions at the edges") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const double edges[] = {0.0, -0.0, infinity, -infinity, nan, 1e30, -1e30, 88.0, -88.0, 100.0, -100.0, 1e-30, 20.0, -20.0};
  for (const UnaryRow& row : kUnary) {
    if (row.function == UnaryFunction::pow_scalar || row.function == UnaryFunction::sin || row.function == UnaryFunction::cos) continue;
    Array x(DType::f32, {14}), out(DType::f32, {14});
    x.generate([&](std::int64_t i) { return edges[i]; });
    table().unary(cpu(), row.function, out, x, 0.5, 1.5);
    for (std::int64_t i = 0; i < x.count(); ++i) {
      // The formula in float says what overflows; where it gives NaN for an infinity, the limit is right as well.
      double expected = row.f(x[i], 0.5, 1.5);
      if (std::fabs(expected) > static_cast<double>(std::numeric_limits<float>::max())) expected = std::copysign(infinity, expected);
      INFO(row.name, " of ", x[i], ": ", out[i], " expected ", expected);
      if (std::isnan(expected) && !std::isnan(x[i])) continue;
      CHECK(close(out[i], expected, 1e-5, 1e-37));
    }
  }
}

TEST_CASE("unary backward without a value") {
  Array g(DType::f32, {3}), dx(DType::f32, {3});
  g.random(1);
  table().unary_backward(cpu(), UnaryFunction::mul_scalar, dx, g, {}, 3, 0);
  for (std::int64_t i = 0; i < 3; ++i) CHECK(dx[i] == static_cast<double>(static_cast<float>(g[i]) * 3.0F));
}

TEST_CASE("unary functions of integers") {
  for (const DType dtype : {DType::i64, DType::i32, DType::i8}) {
    Array x(dtype, {4, 3}, Lay::transposed), out(dtype, {4, 3});
    x.generate([](std::int64_t i) { return static_cast<double>(i - 6); });
    const auto expect = [&](UnaryFunction f, double p, double q, auto&& reference) {
      table().unary(cpu(), f, out, x, p, q);
      for (std::int64_t i = 0; i < x.count(); ++i) CHECK(out[i] == reference(x[i]));
    };
    expect(UnaryFunction::neg, 0, 0, [](double v) { return -v; });
    expect(UnaryFunction::abs, 0, 0, [](double v) { return std::fabs(v); });
    expect(UnaryFunction::sign, 0, 0, [](double v) { return (v > 0) - (v < 0); });
    expect(UnaryFunction::square, 0, 0, [](double v) { return v * v; });
    expect(UnaryFunction::add_scalar, 5, 0, [](double v) { return v + 5; });
    expect(UnaryFunction::mul_scalar, -3, 0, [](double v) { return v * -3; });
    expect(UnaryFunction::rsub_scalar, 2, 0, [](double v) { return 2 - v; });
    expect(UnaryFunction::pow_scalar, 2, 0, [](double v) { return v * v; });
    expect(UnaryFunction::clamp, -2, std::numeric_limits<double>::infinity(), [](double v) { return std::max(v, -2.0); });
    CHECK_THROWS_AS(table().unary(cpu(), UnaryFunction::exp, out, x, 0, 0), DTypeError);
    CHECK_THROWS_AS(table().unary(cpu(), UnaryFunction::mul_scalar, out, x, 0.5, 0), DTypeError);
    CHECK_THROWS_AS(table().unary(cpu(), UnaryFunction::pow_scalar, out, x, -1, 0), DTypeError);
  }
}

TEST_CASE("binary functions of floats") {
  const auto remainder = [](double a, double b) { return a - b * std::floor(a / b); };
  const struct { BinaryFunction function; std::function<double(double, double)> f; } rows[] = {
      {BinaryFunction::add, [](double a, double b) { return a + b; }},
      {BinaryFunction::sub, [](double a, double b) { return a - b; }},
      {BinaryFunction::mul, [](double a, double b) { return a * b; }},
      {BinaryFunction::div, [](double a, double b) { return a / b; }},
      {BinaryFunction::pow, [](double a, double b) { return std::pow(a, b); }},
      {BinaryFunction::maximum, [](double a, double b) { return std::fmax(a, b); }},
      {BinaryFunction::minimum, [](double a, double b) { return std::fmin(a, b); }},
      {BinaryFunction::atan2, [](double a, double b) { return std::atan2(a, b); }},
      {BinaryFunction::remainder, remainder}};
  for (const auto& row : rows) {
    for (const DType dtype : kFloats) {
      for (const Lay lay : kLays) {
        for (const Shape& shape : kShapes) {
          Array a(dtype, shape, lay), b(dtype, shape), out(dtype, shape, lay);
          a.random(21, row.function == BinaryFunction::pow ? 0.1 : -3, 3);
          b.random(22, row.function == BinaryFunction::remainder ? 0.5 : -3, 3);
          table().binary(cpu(), row.function, out, a, b);
          const double tolerance = 0.51 * epsilon(dtype) + 8 * epsilon(dtype == DType::f64 ? DType::f64 : DType::f32);
          for (std::int64_t i = 0; i < out.count(); ++i) {
            INFO(static_cast<int>(row.function), " ", dtype, " of ", a[i], ", ", b[i], ": ", out[i]);
            REQUIRE(close(out[i], row.f(a[i], b[i]), tolerance, tolerance));
          }
          REQUIRE(out.gaps_untouched());
        }
      }
    }
  }
}

TEST_CASE("binary functions of repeated operands") {
  for (const DType dtype : kFloats) {
    Array matrix(dtype, {5, 700}), row(dtype, {700}), column(dtype, {5, 1}), one(dtype, {}), out(dtype, {5, 700});
    matrix.random(1);
    row.random(2);
    column.random(3);
    one.random(4);
    const Shape shape{5, 700};
    for (const kernels::Strided& b : {expand(row.view(), shape), expand(column.view(), shape), expand(one.view(), shape)}) {
      table().binary(cpu(), BinaryFunction::sub, out, matrix, b);
      for (std::int64_t i = 0; i < out.count(); ++i) {
        const double right = visit_float(dtype, "test", [&](auto tag) { return convert<double>(b.as<typename decltype(tag)::type>()[kernels::offset_of(b, i)]); });
        REQUIRE(close(out[i], matrix[i] - right, epsilon(dtype), 1e-9));
      }
    }
    table().binary(cpu(), BinaryFunction::add, matrix, matrix, expand(row.view(), shape));  // in place
    table().binary(cpu(), BinaryFunction::sub, matrix, matrix, expand(row.view(), shape));
  }
}

TEST_CASE("maximum and minimum keep NaN, remainder takes the divisor's sign") {
  Array a(DType::f32, {4}), b(DType::f32, {4}), out(DType::f32, {4});
  const double left[] = {std::nan(""), 1, -5, 5}, right[] = {1, std::nan(""), 3, -3};
  a.generate([&](std::int64_t i) { return left[i]; });
  b.generate([&](std::int64_t i) { return right[i]; });
  for (const BinaryFunction f : {BinaryFunction::maximum, BinaryFunction::minimum}) {
    table().binary(cpu(), f, out, a, b);
    CHECK(std::isnan(out[0]));
    CHECK(std::isnan(out[1]));
  }
  table().binary(cpu(), BinaryFunction::remainder, out, a, b);
  CHECK(out[2] == 1);
  CHECK(out[3] == -1);
}

TEST_CASE("binary functions of integers") {
  for (const DType dtype : {DType::i64, DType::i32, DType::i8}) {
    Array a(dtype, {9, 9}), b(dtype, {9, 9}, Lay::transposed), out(dtype, {9, 9});
    a.generate([](std::int64_t i) { return static_cast<double>(i % 9 - 4); });
    b.generate([](std::int64_t i) { return i / 9 == 4 ? 7 : static_cast<double>(i / 9 - 4); });
    const auto expect = [&](BinaryFunction f, auto&& reference) {
      table().binary(cpu(), f, out, a, b);
      for (std::int64_t i = 0; i < a.count(); ++i) CHECK(out[i] == reference(a[i], b[i]));
    };
    expect(BinaryFunction::add, [](double x, double y) { return x + y; });
    expect(BinaryFunction::mul, [](double x, double y) { return x * y; });
    expect(BinaryFunction::div, [](double x, double y) { return std::trunc(x / y); });
    expect(BinaryFunction::remainder, [](double x, double y) { return x - y * std::floor(x / y); });
    expect(BinaryFunction::maximum, [](double x, double y) { return std::max(x, y); });
    expect(BinaryFunction::minimum, [](double x, double y) { return std::min(x, y); });
    CHECK_THROWS_AS(table().binary(cpu(), BinaryFunction::atan2, out, a, b), DTypeError);
    table().fill(cpu(), b, 0);
    CHECK_THROWS_WITH_AS(table().binary(cpu(), BinaryFunction::div, out, a, b), "div: integer division by zero", Error);
    CHECK_THROWS_AS(table().binary(cpu(), BinaryFunction::remainder, out, a, b), Error);
  }
  // The one quotient that does not fit wraps around instead of trapping.
  Array low(DType::i64, {1}), minus(DType::i64, {1}), out(DType::i64, {1});
  low.view().as<std::int64_t>()[0] = std::numeric_limits<std::int64_t>::min();
  minus.set(0, -1);
  table().binary(cpu(), BinaryFunction::div, out, low, minus);
  CHECK(out.view().as<std::int64_t>()[0] == std::numeric_limits<std::int64_t>::min());
  table().binary(cpu(), BinaryFunction::remainder, out, low, minus);
  CHECK(out[0] == 0);
}

TEST_CASE("comparisons and logic") {
  const struct { Comparison comparison; std::function<bool(double, double)> f; } rows[] = {
      {Comparison::equal, [](double a, double b) { return a == b; }},
      {Comparison::not_equal, [](double a, double b) { return a != b; }},
      {Comparison::less, [](double a, double b) { return a < b; }},
      {Comparison::less_equal, [](double a, double b) { return a <= b; }},
      {Comparison::greater, [](double a, double b) { return a > b; }},
      {Comparison::greater_equal, [](double a, double b) { return a >= b; }},
      {Comparison::logical_and, [](double a, double b) { return a != 0 && b != 0; }},
      {Comparison::logical_or, [](double a, double b) { return a != 0 || b != 0; }},
      {Comparison::logical_xor, [](double a, double b) { return (a != 0) != (b != 0); }}};
  for (const auto& row : rows) {
    for (const DType dtype : kAll) {
      for (const Lay lay : kLays) {
        Array a(dtype, {7, 100}, lay), b(dtype, {7, 100}), out(DType::boolean, {7, 100}, lay);
        a.generate([](std::int64_t i) { return static_cast<double>(i % 2 + (i % 7) % 2); });
        b.generate([](std::int64_t i) { return static_cast<double>(i % 3); });
        if (is_float(dtype)) a.set(5, std::nan(""));
        table().compare(cpu(), row.comparison, out, a, b);
        for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(out[i] == static_cast<double>(row.f(a[i], b[i])));
        CHECK(out.gaps_untouched());
      }
    }
  }
}

TEST_CASE("where") {
  for (const DType dtype : kAll) {
    for (const Lay lay : kLays) {
      Array a(dtype, {5, 30}, lay), b(dtype, {5, 30}), out(dtype, {5, 30}, lay), condition(DType::boolean, {30});
      a.random(1, 0, 2);
      b.random(2, 0, 2);
      condition.generate([](std::int64_t i) { return i % 3 == 0; });
      table().where(cpu(), out, expand(condition.view(), {5, 30}), a, b);
      for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(out[i] == (condition[i % 30] != 0 ? a[i] : b[i]));
      CHECK(out.gaps_untouched());
    }
  }
}

TEST_CASE("pointwise results are the same for any number of threads") {
  Array x(DType::f32, {200, 301}), y(DType::f32, {301});
  x.random(1);
  y.random(2);
  const Array fresh(DType::f32, {200, 301});
  CHECK(same_bits_for_threads([&](Array& out) { table().unary(cpu(), UnaryFunction::gelu_tanh, out, x, 0, 0); }, fresh));
  CHECK(same_bits_for_threads([&](Array& out) { table().unary_backward(cpu(), UnaryFunction::silu, out, x, x, 0, 0); }, fresh));
  CHECK(same_bits_for_threads([&](Array& out) { table().binary(cpu(), BinaryFunction::mul, out, x, expand(y.view(), {200, 301})); }, fresh));
}
