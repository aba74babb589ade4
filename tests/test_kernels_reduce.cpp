// Reductions, positions of extrema and cumulative sums against double arithmetic, over all sets of dimensions.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel_arrays.h"

using namespace cambium;
using namespace cambium::test;
using kernels::Reduction;

namespace {

const Reduction kReductions[] = {Reduction::sum, Reduction::product, Reduction::maximum, Reduction::minimum};

Shape reduced_shape(Shape shape, unsigned dims) {
  for (std::size_t i = 0; i < shape.size(); ++i)
    if ((dims >> i) & 1U) shape[i] = 1;
  return shape;
}

// Row-major number of the result that element i of `shape` belongs to.
std::int64_t result_of(const Shape& shape, const Shape& reduced, std::int64_t i) {
  std::int64_t result = 0, step = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    result += reduced[d] == 1 ? 0 : i % shape[d] * step;
    step *= reduced[d];
    i /= shape[d];
  }
  return result;
}

double join(Reduction reduction, double a, double b) {
  switch (reduction) {
    case Reduction::sum: return a + b;
    case Reduction::product: return a * b;
    case Reduction::maximum: return std::max(a, b);
    default: return std::min(a, b);
  }
}

void check_reduction(Reduction reduction, DType dtype, DType out_dtype, const Shape& shape, unsigned dims, Lay lay) {
  const Shape small = reduced_shape(shape, dims);
  Array x(dtype, shape, lay), out(out_dtype, small, lay);
  if (reduction == Reduction::product) x.random(3, is_float(dtype) ? 0.9 : 1, is_float(dtype) ? 1.1 : 2);
  else x.random(3, dtype == DType::u8 || dtype == DType::boolean ? 0 : -2, dtype == DType::boolean ? 2 : 3);
  std::vector<double> expected(static_cast<std::size_t>(out.count()), reduction == Reduction::product ? 1 : reduction == Reduction::sum ? 0
                                   : reduction == Reduction::maximum ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity());
  std::vector<double> magnitude(expected.size());
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const auto at = static_cast<std::size_t>(result_of(shape, small, i));
    expected[at] = join(reduction, expected[at], x[i]);
    magnitude[at] += std::fabs(x[i]);
  }
  table().reduce(cpu(), reduction, out, x);
  const double unit = epsilon(is_float(dtype) ? (dtype == DType::f64 ? DType::f64 : DType::f32) : DType::f64);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    INFO(dtype, " ", shape, " dims ", dims, " lay ", static_cast<int>(lay), " reduction ", static_cast<int>(reduction), " element ", i, ": ", out[i], " expected ", expected[at]);
    // A tree of additions: the error is that of its depth, at most 80 here, times the sum of magnitudes.
    const double bound = reduction == Reduction::sum ? 80 * unit * magnitude[at] : reduction == Reduction::product ? unit * static_cast<double>(x.count()) * expected[at] : 0;
    REQUIRE(close(out[i], expected[at], 0.51 * epsilon(out_dtype), bound));
  }
  REQUIRE(out.gaps_untouched());
}

}  // namespace

TEST_CASE("reductions over every set of dimensions, in every layout and type") {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{37}, Shape{5, 33}, Shape{3, 1, 7}, Shape{2, 3, 4, 5}})
    for (unsigned dims = 0; dims < (1U << shape.size()); ++dims)
      for (const Lay lay : kLays)
        for (const Reduction reduction : kReductions)
          for (const DType dtype : kAll) check_reduction(reduction, dtype, is_float(dtype) ? dtype : DType::i64, shape, dims, lay);
}

TEST_CASE("large reductions cut into pieces") {
  for (const Lay lay : {Lay::dense, Lay::transposed, Lay::sliced}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32}) {
      const DType out = is_float(dtype) ? dtype : DType::i64;
      for (unsigned dims = 0; dims < 4; ++dims) {
        check_reduction(Reduction::sum, dtype, out, {1300, 70}, dims, lay);
        check_reduction(Reduction::maximum, dtype, out, {3, 40000}, dims, lay);
        check_reduction(Reduction::sum, dtype, out, {40000, 3}, dims, lay);
      }
      check_reduction(Reduction::sum, dtype, out, {5, 200, 1030}, 2, lay);
      check_reduction(Reduction::sum, dtype, out, {5, 200, 103}, 5, lay);
    }
  }
}

TEST_CASE("sums of repeated elements") {
  Array x(DType::f32, {1, 3}), out(DType::f32, {1, 3}), total(DType::f32, {1, 1});
  x.generate([](std::int64_t i) { return static_cast<double>(i + 1); });
  table().reduce(cpu(), Reduction::sum, out, expand(x.view(), {50000, 3}));
  CHECK(out.values() == std::vector<double>{50000, 100000, 150000});
  table().reduce(cpu(), Reduction::sum, total, expand(x.view(), {50000, 3}));
  CHECK(total[0] == 300000);
}

TEST_CASE("a float sum of a million equal numbers stays exact to pairwise error") {
  Array x(DType::f32, {1000000}), out(DType::f32, {1});
  table().fill(cpu(), x, 0.1);
  table().reduce(cpu(), Reduction::sum, out, x);
  CHECK(close(out[0], 1e6 * static_cast<double>(0.1F), 20 * 0x1p-24));  // adding one by one is off by 1e-2
}

TEST_CASE("reductions of nothing") {
  Array x(DType::f32, {3, 0}), out(DType::f32, {3, 1}), none(DType::f32, {1, 0});
  table().reduce(cpu(), Reduction::sum, out, x);
  CHECK(out.values() == std::vector<double>{0, 0, 0});
  table().reduce(cpu(), Reduction::product, out, x);
  CHECK(out.values() == std::vector<double>{1, 1, 1});
  table().reduce(cpu(), Reduction::maximum, out, x);
  CHECK(out[0] == -std::numeric_limits<double>::infinity());
  table().reduce(cpu(), Reduction::sum, none, x);
}

TEST_CASE("NaN passes through extrema") {
  for (const std::int64_t place : {0, 5, 40, 2000}) {
    Array x(DType::f32, {3000}), columns(DType::f32, {3000, 2}), out(DType::f32, {1}), out_columns(DType::f32, {1, 2});
    x.random(1);
    columns.random(1);
    x.set(place, std::nan(""));
    columns.set(2 * place, std::nan(""));
    for (const Reduction reduction : {Reduction::maximum, Reduction::minimum}) {
      table().reduce(cpu(), reduction, out, x);
      CHECK(std::isnan(out[0]));
      table().reduce(cpu(), reduction, out_columns, columns);
      CHECK(std::isnan(out_columns[0]));
      CHECK_FALSE(std::isnan(out_columns[1]));
    }
  }
}

TEST_CASE("reductions give the same bits for any number of threads") {
  Array x(DType::f32, {700, 513});
  x.random(7);
  for (unsigned dims = 0; dims < 4; ++dims)
    CHECK(same_bits_for_threads([&](Array& out) { table().reduce(cpu(), Reduction::sum, out, x); }, Array(DType::f32, reduced_shape({700, 513}, dims))));
}

TEST_CASE("positions of extrema") {
  for (const DType dtype : kAll) {
    for (const Lay lay : kLays) {
      for (int dim = 0; dim < 2; ++dim) {
        for (const Shape& shape : {Shape{5, 1300}, Shape{1300, 5}, Shape{1, 1}, Shape{0, 4}}) {
          Shape small = shape;
          small[static_cast<std::size_t>(dim)] = 1;
          if (shape[static_cast<std::size_t>(dim)] == 0) continue;
          Array x(dtype, shape, lay), out(DType::i64, small, lay);
          x.random(5, 0, dtype == DType::boolean ? 2 : 100);
          for (const Reduction reduction : {Reduction::maximum, Reduction::minimum}) {
            table().arg_reduce(cpu(), reduction, out, x, dim);
            const std::int64_t n = shape[static_cast<std::size_t>(dim)];
            for (std::int64_t r = 0; r < out.count(); ++r) {
              std::int64_t best = 0;
              const auto at = [&](std::int64_t i) { return dim == 1 ? x[r * n + i] : x[i * shape[1] + r]; };
              for (std::int64_t i = 1; i < n; ++i)
                if (reduction == Reduction::maximum ? at(i) > at(best) : at(i) < at(best)) best = i;
              REQUIRE(out[r] == static_cast<double>(best));
            }
          }
        }
      }
    }
  }
  Array x(DType::f32, {5}), out(DType::i64, {1});
  x.generate([](std::int64_t i) { return i == 2 || i == 3 ? std::nan("") : static_cast<double>(i); });
  table().arg_reduce(cpu(), Reduction::maximum, out, x, 0);
  CHECK(out[0] == 2);
  x.set(0, std::nan(""));
  table().arg_reduce(cpu(), Reduction::minimum, out, x, 0);
  CHECK(out[0] == 0);
}

TEST_CASE("cumulative sums") {
  for (const DType dtype : kAll) {
    const DType out_dtype = is_float(dtype) ? dtype : DType::i64;
    for (const Lay lay : kLays) {
      for (int dim = 0; dim < 2; ++dim) {
        for (const bool reverse : {false, true}) {
          for (const Shape& shape : {Shape{3, 2500}, Shape{7, 4}, Shape{0, 3}, Shape{3, 0}}) {
            Array x(dtype, shape, lay), out(out_dtype, shape, lay);
            x.random(6, 0, 2);
            table().cumsum(cpu(), out, x, dim, reverse);
            const std::int64_t rows = shape[0], columns = shape[1];
            const auto index = [&](std::int64_t line, std::int64_t i) { return dim == 1 ? line * columns + i : i * columns + line; };
            const std::int64_t n = dim == 1 ? columns : rows, lines = dim == 1 ? rows : columns;
            for (std::int64_t line = 0; line < lines; ++line) {
              double sum = 0;
              for (std::int64_t j = 0; j < n; ++j) {
                const std::int64_t i = index(line, reverse ? n - 1 - j : j);
                sum += x[i];
                REQUIRE(close(out[i], sum, 0.51 * epsilon(out_dtype), 1e-12 * sum));
              }
            }
            CHECK(out.gaps_untouched());
          }
        }
      }
    }
  }
}
