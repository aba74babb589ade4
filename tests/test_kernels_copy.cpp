// Copies between layouts and element types, fills and ranges.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "kernel_arrays.h"

using namespace cambium;
using namespace cambium::test;

namespace {

const Shape kShapes[] = {{}, {0}, {4, 0, 3}, {1}, {37}, {3, 5}, {40, 67}, {2, 3, 4, 5}, {3, 33, 1, 70}};

}  // namespace

TEST_CASE("copy between all element types") {
  for (const DType from : kAll) {
    for (const DType to : kAll) {
      for (const std::int64_t n : {1, 37}) {
        for (const Lay lay : {Lay::dense, Lay::sliced}) {
          Array x(from, {3, n}, lay), out(to, {3, n}, lay);
          x.random(1, is_float(from) && to != DType::u8 ? -9 : 0, from == DType::boolean ? 2 : 9);
          table().copy(cpu(), out, x);
          for (std::int64_t i = 0; i < x.count(); ++i) {
            const double expected = visit_all(to, [&](auto tag) { return convert<double>(convert<typename decltype(tag)::type>(x[i])); });
            INFO(from, " to ", to, " element ", i);
            REQUIRE(out[i] == expected);
          }
          CHECK(out.gaps_untouched());
        }
      }
    }
  }
}

TEST_CASE("copy between all layouts") {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i8}) {
    for (const Shape& shape : kShapes) {
      for (const Lay from : kLays) {
        for (const Lay to : kLays) {
          Array x(dtype, shape, from), out(dtype, shape, to);
          x.random(2, -100, 100);
          table().copy(cpu(), out, x);
          CHECK(out.values() == x.values());
          CHECK(out.gaps_untouched());
        }
      }
    }
  }
}

TEST_CASE("copy of permuted dimensions and of repeated rows") {
  Array x(DType::f32, {3, 40, 5, 36}), out(DType::f32, {3, 36, 5, 40});
  x.random(3);
  kernels::Strided permuted = x;  // (3, 36, 5, 40)
  std::swap(permuted.shape[1], permuted.shape[3]);
  std::swap(permuted.strides[1], permuted.strides[3]);
  table().copy(cpu(), out, permuted);
  for (std::int64_t i = 0; i < out.count(); ++i)
    REQUIRE(static_cast<float>(out[i]) == permuted.as<float>()[kernels::offset_of(permuted, i)]);

  Array row(DType::f32, {7}), rows(DType::f32, {300, 7});
  row.random(4);
  table().copy(cpu(), rows, expand(row.view(), {300, 7}));
  for (std::int64_t i = 0; i < rows.count(); ++i) REQUIRE(rows[i] == row[i % 7]);
}

TEST_CASE("large copies are the same for any number of threads") {
  Array x(DType::f32, {300, 401}, Lay::transposed);
  x.random(5);
  CHECK(same_bits_for_threads([&](Array& out) { table().copy(cpu(), out, x); }, Array(DType::f32, {300, 401})));
  Array out(DType::bf16, {300, 401});
  table().copy(cpu(), out, x);
  for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(out[i] == static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(x[i])))));
}

TEST_CASE("fill") {
  for (const DType dtype : kAll) {
    for (const Lay lay : kLays) {
      Array out(dtype, {3, 50}, lay);
      table().fill(cpu(), out, 1);
      for (std::int64_t i = 0; i < out.count(); ++i) REQUIRE(out[i] == 1);
      CHECK(out.gaps_untouched());
    }
  }
  Array out(DType::f32, {2}), whole(DType::u8, {2});
  table().fill(cpu(), out, std::numeric_limits<double>::infinity());
  CHECK(std::isinf(out[1]));
  table().fill(cpu(), whole, 300);
  CHECK(whole[0] == 255);
}

TEST_CASE("arange") {
  Array out(DType::f32, {5}), whole(DType::i64, {20000});
  table().arange(cpu(), out, 1.5, -0.25);
  CHECK(out.values() == std::vector<double>{1.5, 1.25, 1.0, 0.75, 0.5});
  table().arange(cpu(), whole, 3, 2);
  for (std::int64_t i = 0; i < whole.count(); ++i) REQUIRE(whole[i] == static_cast<double>(3 + 2 * i));
}
