// Gather, scatter-add, index_select, index_add, sort and topk against plain loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernel_arrays.h"

using namespace cambium;
using namespace cambium::test;

namespace {

// Row-major number in `shape` of element i of `from`, with the entry of dimension `dim` replaced.
std::int64_t moved(const Shape& from, const Shape& shape, std::int64_t i, int dim, std::int64_t entry) {
  std::int64_t result = 0, step = 1;
  for (std::size_t d = from.size(); d-- > 0;) {
    const std::int64_t at = static_cast<int>(d) == dim ? entry : i % from[d];
    result += at * step;
    step *= shape[d];
    i /= from[d];
  }
  return result;
}
std::int64_t entry_of(const Shape& shape, std::int64_t i, int dim) {
  for (std::size_t d = shape.size() - 1; static_cast<int>(d) > dim; --d) i /= shape[d];
  return i % shape[static_cast<std::size_t>(dim)];
}
Shape with(Shape shape, int dim, std::int64_t size) {
  shape[static_cast<std::size_t>(dim)] = size;
  return shape;
}

}  // namespace

TEST_CASE("gather and index_select") {
  const Shape shape{4, 5, 6};
  for (const DType dtype : kAll) {
    for (const DType index_dtype : {DType::i64, DType::i32}) {
      for (const Lay lay : kLays) {
        for (int dim = 0; dim < 3; ++dim) {
          for (const std::int64_t n : {0, 1, 9}) {
            const double size = static_cast<double>(shape[static_cast<std::size_t>(dim)]);
            Array x(dtype, shape, lay), out(dtype, with(shape, dim, n), lay), index(index_dtype, with(shape, dim, n), lay);
            x.random(1, 0, 100);
            index.random(2, 0, size);
            for (std::int64_t i = 0; i < index.count(); ++i) index.set(i, std::floor(index[i]));
            table().gather(cpu(), out, x, index, dim);
            for (std::int64_t i = 0; i < out.count(); ++i)
              REQUIRE(out[i] == x[moved(out.shape(), shape, i, dim, static_cast<std::int64_t>(index[i]))]);
            CHECK(out.gaps_untouched());

            Array list(index_dtype, {n}, lay), chosen(dtype, with(shape, dim, n), lay);
            list.random(3, 0, size);
            table().index_select(cpu(), chosen, x, list, dim);
            for (std::int64_t i = 0; i < chosen.count(); ++i)
              REQUIRE(chosen[i] == x[moved(chosen.shape(), shape, i, dim, static_cast<std::int64_t>(list[entry_of(chosen.shape(), i, dim)]))]);
            CHECK(chosen.gaps_untouched());
          }
        }
      }
    }
  }
}

TEST_CASE("gather over part of the other dimensions") {
  Array x(DType::f32, {4, 6}), index(DType::i64, {2, 3}), out(DType::f32, {2, 3});
  x.random(1);
  index.generate([](std::int64_t i) { return static_cast<double>(i); });
  table().gather(cpu(), out, x, index, 1);
  for (std::int64_t i = 0; i < 6; ++i) CHECK(out[i] == x[i / 3 * 6 + i]);
}

TEST_CASE("scatter_add and index_add are the adjoints") {
  const Shape shape{4, 5, 6};
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i8}) {
    for (const Lay lay : kLays) {
      for (int dim = 0; dim < 3; ++dim) {
        for (const std::int64_t n : {0, 1, 9}) {
          const double size = static_cast<double>(shape[static_cast<std::size_t>(dim)]);
          const Shape source_shape = with(shape, dim, n);
          Array out(dtype, shape, lay), index(DType::i64, source_shape, lay), source(dtype, source_shape, lay);
          out.random(1);
          index.random(2, 0, size);
          source.random(3);
          std::vector<double> expected = out.values();
          for (std::int64_t i = 0; i < source.count(); ++i)
            expected[static_cast<std::size_t>(moved(source_shape, shape, i, dim, static_cast<std::int64_t>(index[i])))] += source[i];
          table().scatter_add(cpu(), out, index, source, dim);
          for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(close(out[i], expected[static_cast<std::size_t>(i)], 5 * epsilon(dtype), 20 * epsilon(dtype)));
          CHECK(out.gaps_untouched());

          Array sum(dtype, shape, lay), list(DType::i32, {n}, lay);
          sum.random(4);
          list.random(5, 0, size);
          expected = sum.values();
          for (std::int64_t i = 0; i < source.count(); ++i)
            expected[static_cast<std::size_t>(moved(source_shape, shape, i, dim, static_cast<std::int64_t>(list[entry_of(source_shape, i, dim)])))] += source[i];
          table().index_add(cpu(), sum, list, source, dim);
          // All additions to one place are rounded once.
          for (std::int64_t i = 0; i < sum.count(); ++i)
            REQUIRE(close(sum[i], expected[static_cast<std::size_t>(i)], 0.51 * epsilon(dtype), 64 * epsilon(dtype == DType::f64 ? dtype : DType::f32)));
          CHECK(sum.gaps_untouched());
        }
      }
    }
  }
}

TEST_CASE("index_add keeps the order of the index and gives the same bits for any number of threads") {
  Array index(DType::i64, {600}), source(DType::f32, {600, 700}), fresh(DType::f32, {50, 700});
  index.random(1, 0, 50);
  source.random(2);
  table().fill(cpu(), fresh, 0);
  CHECK(same_bits_for_threads([&](Array& out) { table().index_add(cpu(), out, index, source, 0); }, fresh));
  Array out(fresh);
  table().index_add(cpu(), out, index, source, 0);
  std::vector<float> expected(50 * 700);
  for (std::int64_t i = 0; i < source.count(); ++i)
    expected[static_cast<std::size_t>(static_cast<std::int64_t>(index[i / 700]) * 700 + i % 700)] += static_cast<float>(source[i]);
  for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(out[i] == static_cast<double>(expected[static_cast<std::size_t>(i)]));
}

TEST_CASE("sort is stable and counts NaN as the greatest") {
  for (const DType dtype : kAll) {
    for (const bool descending : {false, true}) {
      for (const std::int64_t n : {0, 1, 2, 257, 3001}) {
        Array x(dtype, {3, n}), values(dtype, {3, n}), indices(DType::i64, {3, n});
        x.random(4, is_float(dtype) || dtype == DType::i8 ? -10 : 0, dtype == DType::boolean ? 2 : 10);
        if (is_float(dtype) && n > 100) {
          for (const std::int64_t i : {3, 50}) x.set(i, std::nan(""));
          x.set(7, 0.0);
          x.set(8, -0.0);
          x.set(9, 0.0);
          x.set(20, std::numeric_limits<double>::infinity());
          x.set(21, -std::numeric_limits<double>::infinity());
        }
        table().sort(cpu(), values, indices, x, descending);
        const auto less = [](double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); };
        for (std::int64_t r = 0; r < 3; ++r) {
          std::vector<std::int64_t> order(static_cast<std::size_t>(n));
          std::iota(order.begin(), order.end(), std::int64_t{0});
          std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
            return descending ? less(x[r * n + j], x[r * n + i]) : less(x[r * n + i], x[r * n + j]);
          });
          for (std::int64_t i = 0; i < n; ++i) {
            REQUIRE(indices[r * n + i] == static_cast<double>(order[static_cast<std::size_t>(i)]));
            REQUIRE(close(values[r * n + i], x[r * n + order[static_cast<std::size_t>(i)]], 0));
          }
          for (const std::int64_t k : {std::int64_t{1}, n / 3}) {
            if (!descending || k > n || k == 0) continue;
            Array top(dtype, {3, k}), places(DType::i64, {3, k});
            table().topk(cpu(), top, places, x);
            for (std::int64_t i = 0; i < k; ++i) REQUIRE(places[r * k + i] == static_cast<double>(order[static_cast<std::size_t>(i)]));
          }
        }
      }
    }
  }
}

TEST_CASE("sort of 64-bit integers that no double holds") {
  Array x(DType::i64, {1, 4}), values(DType::i64, {1, 4}), indices(DType::i64, {1, 4});
  const std::int64_t big = (std::int64_t{1} << 60);
  const std::int64_t entries[] = {big + 1, big, -big, std::numeric_limits<std::int64_t>::min()};
  for (int i = 0; i < 4; ++i) x.view().as<std::int64_t>()[i] = entries[i];
  table().sort(cpu(), values, indices, x, false);
  CHECK(indices.values() == std::vector<double>{3, 2, 1, 0});
}
