// ALiBi slopes and T5 buckets against values worked out by hand.
#include "nn/position.h"

#include <doctest/doctest.h>

#include "autograd/ops.h"

using namespace cambium;

TEST_CASE("slopes are powers of one number, and every other one of twice as many heads beyond a power of two") {
  CHECK(alibi_slopes(1, DType::f64).to_vector<double>() == std::vector<double>{0x1p-8});
  CHECK(alibi_slopes(4, DType::f64).to_vector<double>() == std::vector<double>{0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8});
  CHECK(alibi_slopes(6).to_vector<double>() == std::vector<double>{0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8, 0x1p-1, 0x1p-3});
  CHECK_THROWS_WITH_AS(alibi_slopes(0), doctest::Contains("expected at least one head, found 0"), ConfigError);
}

TEST_CASE("near positions have buckets of their own, far ones share, the farthest share the last") {
  const Tensor positions = from_vector<std::int64_t>({-1000, -5, -3, -1, 0, 1, 3, 5, 1000}, {9});
  CHECK(t5_relative_position_bucket(positions, false, 8, 16).to_vector<std::int64_t>() == std::vector<std::int64_t>{7, 4, 3, 1, 0, 0, 0, 0, 0});
  CHECK(t5_relative_position_bucket(positions, true, 8, 16).to_vector<std::int64_t>() == std::vector<std::int64_t>{3, 2, 2, 1, 0, 5, 6, 6, 7});
  CHECK_THROWS_WITH_AS(t5_relative_position_bucket(positions, true, 2, 16), doctest::Contains("2 buckets up to distance 16 leave no room"), ConfigError);
  CHECK_THROWS_WITH_AS(t5_relative_position_bucket(ones({2}), true, 8, 16), doctest::Contains("expected int64 positions"), DTypeError);
}

