// The counter-based random generator and the mapping from its words to values, the same bit for bit on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/pointwise.h"

namespace cambium::kernels {

struct PhiloxWords {
  std::uint32_t word[4];
};

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): counter (block, offset) under key `seed`, each 64-bit
/// number as two words, low one first.
CAMBIUM_DEVICE inline PhiloxWords philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t block) {
  std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32), c2 = static_cast<std::uint32_t>(offset),
                c3 = static_cast<std::uint32_t>(offset >> 32), k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0, p1 = std::uint64_t{0xCD9E8D57U} * c2;
    const std::uint32_t next0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0, next2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = next0;
    c2 = next2;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

/// A multiple of 2^-24 in [0, 1) from the upper 24 bits of a word.
CAMBIUM_DEVICE inline float uniform_of(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24F; }

}  // namespace cambium::kernels
