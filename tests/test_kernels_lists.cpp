// Work over lists of tensors, counting of entries that are not finite, and the completeness of the CPU's table.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "kernel_arrays.h"
#include "kernels/complete.h"

using namespace cambium;
using namespace cambium::test;

TEST_CASE("a missing kernel makes a table incomplete") {
  CHECK(kernels::is_complete(table()));
  kernels::Kernels broken = table();
  broken.svd = nullptr;
  CHECK_FALSE(kernels::is_complete(broken));
  broken = table();
  broken.copy = nullptr;
  CHECK_FALSE(kernels::is_complete(broken));
  CHECK(&kernels::kernels_for({}) == &table());
  CHECK_THROWS_AS(kernels::kernels_for({DeviceType::cuda, 99}), DeviceError);
}

TEST_CASE("sums of squares over tensors of several types") {
  const Array empty(DType::f32, {0});
  Array a(DType::f32, {3, 7}), b(DType::bf16, {40000}), c(DType::f64, {1}), d(DType::f16, {513}), out(DType::f64, {1});
  a.random(1);
  b.random(2);
  c.random(3);
  d.random(4);
  const kernels::Strided list[] = {a, empty, b, c, d};
  table().sum_of_squares(cpu(), out, list, 5);
  double expected = 0;
  for (const Array* x : {&a, &b, &c, &d})
    for (const double v : x->values()) expected += v * v;
  CHECK(close(out[0], expected, 1e-12));
  table().sum_of_squares(cpu(), out, list, 0);
  CHECK(out[0] == 0);
  Array big(DType::f32, {300001});
  big.random(5);
  const kernels::Strided one[] = {big, a};
  CHECK(same_bits_for_threads([&](Array& sum) { table().sum_of_squares(cpu(), sum, one, 2); }, Array(DType::f64, {1})));
}

TEST_CASE("a sum of squares does not overflow where floats would") {
  Array x(DType::f32, {2}), out(DType::f64, {1});
  table().fill(cpu(), x, 1e30);
  const kernels::Strided list[] = {x};
  table().sum_of_squares(cpu(), out, list, 1);
  CHECK(close(out[0], 2e60, 1e-6));
}

TEST_CASE("scaling a list") {
  for (const DType dtype : kFloats) {
    Array a(dtype, {1001}), b(dtype, {20000});
    a.random(1);
    b.random(2);
    const std::vector<double> before_a = a.values(), before_b = b.values();
    const kernels::Strided list[] = {a, b};
    table().scale_all(cpu(), list, 2, 0.3);
    for (std::int64_t i = 0; i < a.count(); ++i) REQUIRE(close(a[i], before_a[static_cast<std::size_t>(i)] * 0.3, 0.51 * epsilon(dtype) + 0x1p-22, 0x1p-24));
    for (std::int64_t i = 0; i < b.count(); ++i) REQUIRE(close(b[i], before_b[static_cast<std::size_t>(i)] * 0.3, 0.51 * epsilon(dtype) + 0x1p-22, 0x1p-24));
    CHECK(a.gaps_untouched());
  }
}

TEST_CASE("entries that are not finite are counted in every type and layout") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const DType dtype : kAll) {
    for (const Lay lay : kLays) {
      Array x(dtype, {70, 301}, lay), out(DType::i64, {1});
      x.random(1, 0, 2);
      x.set(11, is_float(dtype) && dtype != DType::f16 ? 3e38 : 1);
      table().count_not_finite(cpu(), out, x);
      CHECK(out[0] == 0);
      if (!is_float(dtype)) continue;
      x.set(0, std::nan(""));
      x.set(1234, infinity);
      x.set(70 * 301 - 1, -infinity);
      table().count_not_finite(cpu(), out, x);
      CHECK(out[0] == 3);
    }
  }
  Array none(DType::f32, {0}), out(DType::i64, {1});
  table().count_not_finite(cpu(), out, none);
  CHECK(out[0] == 0);
}
