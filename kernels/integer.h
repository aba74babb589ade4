// Arithmetic of integer elements, which are computed as int64 and wrap around as their unsigned counterparts do.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace cambium::kernels {

using Integer = std::int64_t;

CAMBIUM_HOST_DEVICE inline std::uint64_t bits(Integer value) { return static_cast<std::uint64_t>(value); }
CAMBIUM_HOST_DEVICE inline Integer wrapped(std::uint64_t value) { return static_cast<Integer>(value); }

/// base to the power of exponent >= 0.
CAMBIUM_HOST_DEVICE inline Integer integer_power(Integer base, Integer exponent) {
  std::uint64_t result = 1, square = bits(base);
  for (; exponent > 0; exponent >>= 1, square *= square)
    if (exponent & 1) result *= square;
  return wrapped(result);
}

}  // namespace cambium::kernels
