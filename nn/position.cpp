// ALiBi slopes and T5 buckets.
#include "nn/position.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "autograd/ops.h"

namespace cambium {

Tensor alibi_slopes(std::int64_t heads, DType dtype) {
  check<ConfigError>(heads >= 1, "alibi_slopes: expected at least one head, found ", heads);
  const auto below = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  std::vector<double> slopes;
  for (std::int64_t i = 1; i <= below; ++i) slopes.push_back(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(below)));
  for (std::int64_t i = 1; i <= heads - below; ++i) slopes.push_back(std::exp2(-4.0 * static_cast<double>(2 * i - 1) / static_cast<double>(below)));
  return to_dtype(from_vector(slopes, {heads}), dtype);
}

Tensor t5_relative_position_bucket(const Tensor& relative_position, bool bidirectional, std::int64_t buckets, std::int64_t max_distance) {
  check<DTypeError>(relative_position.dtype() == DType::i64, "t5_relative_position_bucket: expected int64 positions, found ", relative_position.dtype());
  const std::int64_t side = bidirectional ? buckets / 2 : buckets, exact = side / 2;
  check<ConfigError>(exact >= 1 && max_distance > exact, "t5_relative_position_bucket: ", buckets, " buckets up to distance ", max_distance, " leave no room");
  std::vector<std::int64_t> out = relative_position.to_vector<std::int64_t>();
  const auto width = static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  for (std::int64_t& p : out) {
    const std::int64_t first = bidirectional && p > 0 ? side : 0, distance = bidirectional ? std::abs(p) : std::max<std::int64_t>(-p, 0);
    std::int64_t bucket = distance;
    if (distance >= exact) {
      const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) / width * static_cast<float>(side - exact);
      bucket = std::min(exact + static_cast<std::int64_t>(ratio), side - 1);
    }
    p = first + bucket;
  }
  return from_vector(out, relative_position.shape(), relative_position.device());
}

}  // namespace cambium
