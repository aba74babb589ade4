// The counter-based random generator and the mapping from its words to values, the same bit for bit on every device.
//
// Only integer arithmetic and float +, -, *, sqrt are used, all correctly rounded everywhere; no product may be contracted with a sum into a fused
// operation here (-ffp-contract=off on the CPU, rounded_product on CUDA).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/pointwise.h"

namespace cambium::kernels {

struct PhiloxWords {
  std::uint32_t word[4];
};

/// One of the ten rounds of Philox4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
CAMBIUM_HOST_DEVICE inline void philox_round(std::uint32_t& c0, std::uint32_t& c1, std::uint32_t& c2, std::uint32_t& c3, std::uint32_t k0, std::uint32_t k1) {
  const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0, p1 = std::uint64_t{0xCD9E8D57U} * c2;
  c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
  c1 = static_cast<std::uint32_t>(p1);
  c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
  c3 = static_cast<std::uint32_t>(p0);
}
inline constexpr std::uint32_t kPhiloxKeyStep0 = 0x9E3779B9U, kPhiloxKeyStep1 = 0xBB67AE85U;

/// The four words of counter (block, offset) under key `seed`; each 64-bit number is two words, the low one first.
CAMBIUM_HOST_DEVICE inline PhiloxWords philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t block) {
  std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32), c2 = static_cast<std::uint32_t>(offset),
                c3 = static_cast<std::uint32_t>(offset >> 32), k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1) philox_round(c0, c1, c2, c3, k0, k1);
  return {{c0, c1, c2, c3}};
}

/// A multiple of 2^-24 in [0, 1) from the upper 24 bits of a word.
CAMBIUM_HOST_DEVICE inline float uniform_of(std::uint32_t word) { return static_cast<float>(static_cast<std::int32_t>(word >> 8)) * 0x1p-24F; }

/// Natural logarithm of a normal positive float, within 1 ulp or so (polynomial of Cephes' logf).
[[gnu::always_inline]] CAMBIUM_HOST_DEVICE inline float portable_log(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  // Mantissa in [sqrt(1/2), sqrt(2)), exponent to match.
  const std::uint32_t shifted = bits - 0x3f3504f3U;
  const float exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  bits = (shifted & 0x007fffffU) + 0x3f3504f3U;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  x -= 1.0F;
  const float z = rounded_product(x, x);
  float y = 7.0376836292e-2F;
  y = rounded_product(y, x) - 1.1514610310e-1F;
  y = rounded_product(y, x) + 1.1676998740e-1F;
  y = rounded_product(y, x) - 1.2420140846e-1F;
  y = rounded_product(y, x) + 1.4249322787e-1F;
  y = rounded_product(y, x) - 1.6668057665e-1F;
  y = rounded_product(y, x) + 2.0000714765e-1F;
  y = rounded_product(y, x) - 2.4999993993e-1F;
  y = rounded_product(y, x) + 3.3333331174e-1F;
  y = rounded_product(rounded_product(y, x), z);
  y = y - rounded_product(2.12194440e-4F, exponent);
  y = y - rounded_product(0.5F, z);
  return (x + y) + rounded_product(0.693359375F, exponent);
}

/// Cosine and sine of 2 pi `turns` for turns in [0, 1) with at most 24 bits (polynomials of Cephes' sinf and cosf).
[[gnu::always_inline]] CAMBIUM_HOST_DEVICE inline void portable_turn(float turns, float& cosine, float& sine) {
  const std::int32_t quarter = static_cast<std::int32_t>(rounded_product(turns, 4.0F) + 0.5F);  // 0..4
  const float x = rounded_product(rounded_product(turns, 4.0F) - static_cast<float>(quarter), 1.57079632679F), z = rounded_product(x, x);
  float s = -1.9515295891e-4F, c = 2.443315711809948e-5F;
  s = rounded_product(s, z) + 8.3321608736e-3F;
  s = rounded_product(s, z) - 1.6666654611e-1F;
  s = rounded_product(rounded_product(s, z), x) + x;
  c = rounded_product(c, z) - 1.388731625493765e-3F;
  c = rounded_product(c, z) + 4.166664568298827e-2F;
  c = rounded_product(rounded_product(c, z), z) - rounded_product(0.5F, z) + 1.0F;
  const bool swapped = (quarter & 1) != 0;
  const float a = swapped ? s : c, b = swapped ? c : s;
  cosine = ((quarter + 1) & 2) != 0 ? -a : a;
  sine = (quarter & 2) != 0 ? -b : b;
}

/// Two standard normal numbers from two words (Box and Muller 1958): r cos t and r sin t with r = sqrt(-2 ln u1), t = 2 pi u2, where u1 is
/// `uniform_of(word0)` + 2^-24, in (0, 1], and u2 is `uniform_of(word1)`. Elements 2j and 2j + 1 of a tensor share words 2j and 2j + 1.
[[gnu::always_inline]] CAMBIUM_HOST_DEVICE inline void normal_pair_of(std::uint32_t word0, std::uint32_t word1, float& first, float& second) {
  const float radius = std::sqrt(-2.0F * portable_log(uniform_of(word0) + 0x1p-24F));
  float cosine, sine;
  portable_turn(uniform_of(word1), cosine, sine);
  first = radius * cosine;
  second = radius * sine;
}

}  // namespace cambium::kernels
