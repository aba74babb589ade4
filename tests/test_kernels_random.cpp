// Philox against its published answers, and the distributions made from it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "kernel_arrays.h"
#include "kernels/philox.h"

using namespace cambium;
using namespace cambium::test;
using kernels::philox;
using kernels::PhiloxWords;

namespace {

void check_words(const PhiloxWords& words, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  CHECK(words.word[0] == a);
  CHECK(words.word[1] == b);
  CHECK(words.word[2] == c);
  CHECK(words.word[3] == d);
}

}  // namespace

// Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, answer.
TEST_CASE("Philox4x32-10 gives the known answers") {
  check_words(philox(0, 0, 0), 0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U);
  check_words(philox(~0ULL, ~0ULL, ~0ULL), 0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU);
  check_words(philox(0x299f31d0a4093822ULL, 0x0370734413198a2eULL, 0x85a308d3243f6a88ULL), 0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U);
}

TEST_CASE("uniform numbers take word i % 4 of block i / 4") {
  const std::uint64_t seed = 0x123456789abcdefULL, offset = 42;
  for (const std::int64_t n : {0, 1, 3, 256, 20001}) {
    Array out(DType::f32, {n}), wide(DType::f64, {n}), half(DType::bf16, {n});
    table().random_uniform(cpu(), out, seed, offset, 0, 1);
    table().random_uniform(cpu(), wide, seed, offset, 0, 1);
    table().random_uniform(cpu(), half, seed, offset, -1, 3);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint32_t word = philox(seed, offset, static_cast<std::uint64_t>(i / 4)).word[i % 4];
      REQUIRE(out[i] == static_cast<double>(word >> 8) * 0x1p-24);
      REQUIRE(wide[i] == static_cast<double>(word) * 0x1p-32);
      REQUIRE(half[i] == static_cast<double>(static_cast<float>(bfloat16(-1.0F + 4.0F * static_cast<float>(out[i])))));
    }
    CHECK(out.gaps_untouched());
  }
}

TEST_CASE("normal numbers are Box and Muller's to float precision") {
  const std::uint64_t seed = 7, offset = 3;
  Array out(DType::f32, {40001}), scaled(DType::f64, {40001});
  table().random_normal(cpu(), out, seed, offset, 0, 1);
  table().random_normal(cpu(), scaled, seed, offset, 5, 0.25);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const PhiloxWords words = philox(seed, offset, static_cast<std::uint64_t>(i / 4));
    const double u1 = static_cast<double>((words.word[i % 4 / 2 * 2] >> 8) + 1) * 0x1p-24, u2 = static_cast<double>(words.word[i % 4 / 2 * 2 + 1] >> 8) * 0x1p-24;
    const double radius = std::sqrt(-2 * std::log(u1)), angle = 2 * 3.14159265358979323846 * u2;
    const double expected = radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
    REQUIRE(close(out[i], expected, 4e-7, 4e-7));
    REQUIRE(scaled[i] == 5 + 0.25 * out[i]);
  }
}

TEST_CASE("the portable logarithm and turn over many arguments") {
  double worst_log = 0, worst_turn = 0;
  for (std::uint32_t k = 1; k <= (1U << 24); k += 251) {
    const float u = static_cast<float>(k) * 0x1p-24F;
    const double exact = std::log(static_cast<double>(u));
    if (exact != 0) worst_log = std::max(worst_log, std::fabs(static_cast<double>(kernels::portable_log(u)) - exact) / std::fabs(exact));
    else CHECK(kernels::portable_log(u) == 0.0F);
    float cosine, sine;
    const float turn = static_cast<float>(k - 1) * 0x1p-24F;
    kernels::portable_turn(turn, cosine, sine);
    const double angle = 2 * 3.14159265358979323846 * static_cast<double>(turn);
    worst_turn = std::max({worst_turn, std::fabs(static_cast<double>(cosine) - std::cos(angle)), std::fabs(static_cast<double>(sine) - std::sin(angle))});
  }
  CHECK(kernels::portable_log(1.0F) == 0.0F);
  CHECK(worst_log < 2e-7);
  CHECK(worst_turn < 1.5e-7);
}

// Five standard errors of n samples.
TEST_CASE("moments of the distributions") {
  const std::int64_t n = 200000;
  Array uniform(DType::f32, {n}), normal(DType::f32, {n});
  table().random_uniform(cpu(), uniform, 1, 0, -1, 1);
  table().random_normal(cpu(), normal, 1, 1, 0, 1);
  double mean_u = 0, square_u = 0, mean_n = 0, square_n = 0, fourth_n = 0, neighbours = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    mean_u += uniform[i];
    square_u += uniform[i] * uniform[i];
    mean_n += normal[i];
    square_n += normal[i] * normal[i];
    fourth_n += std::pow(normal[i], 4);
    neighbours += i % 2 == 1 ? normal[i] * normal[i - 1] : 0;
  }
  const double samples = static_cast<double>(n), error = 5 / std::sqrt(samples);
  CHECK(std::fabs(mean_u / samples) < error * std::sqrt(1.0 / 3));
  CHECK(std::fabs(square_u / samples - 1.0 / 3) < error * std::sqrt(4.0 / 45));
  CHECK(std::fabs(mean_n / samples) < error);
  CHECK(std::fabs(square_n / samples - 1) < error * std::sqrt(2.0));
  CHECK(std::fabs(fourth_n / samples - 3) < error * std::sqrt(96.0));
  CHECK(std::fabs(neighbours / (samples / 2)) < error * std::sqrt(2.0));
}

TEST_CASE("random numbers are the same for any number of threads and differ by seed and offset") {
  const Array fresh(DType::f32, {100003});
  CHECK(same_bits_for_threads([](Array& out) { table().random_normal(cpu(), out, 5, 6, 0, 1); }, fresh));
  Array a(fresh), b(fresh), c(fresh);
  table().random_uniform(cpu(), a, 5, 6, 0, 1);
  table().random_uniform(cpu(), b, 5, 7, 0, 1);
  table().random_uniform(cpu(), c, 4, 6, 0, 1);
  std::int64_t equal = 0;
  for (std::int64_t i = 0; i < a.count(); ++i) equal += (a[i] == b[i]) + (a[i] == c[i]);
  CHECK(equal < 5);
}
