// RandomKey: where random numbers come from. A value, so that a run can be repeated, stopped and resumed bit for bit.
#pragma once

#include <cstdint>
#include <string_view>

namespace cambium {

/// Key and counter of the Philox generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
struct RandomKey {
  std::uint64_t seed = 0, offset = 0;
  /// A key for something named inside this one (a step, a module's path): independent of the other names and of their order.
  RandomKey fold(std::string_view name) const;
  RandomKey fold(std::uint64_t number) const;
};

}  // namespace cambium
