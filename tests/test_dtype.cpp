// Conversions of 16-bit floats against double arithmetic over all bit patterns, and conversion between element types.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "kernels/dtype.h"

using namespace cambium;

namespace {

// The value of a pattern with `exponent` and `mantissa` bits, straight from the definition.
double decode(std::uint32_t bits, int exponent, int mantissa) {
  const int bias = (1 << (exponent - 1)) - 1;
  const double sign = (bits >> (exponent + mantissa)) & 1U ? -1 : 1;
  const int e = static_cast<int>((bits >> mantissa) & ((1U << exponent) - 1));
  const auto m = static_cast<double>(bits & ((1U << mantissa) - 1));
  if (e == (1 << exponent) - 1) return m != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return e == 0 ? sign * std::ldexp(m, 1 - bias - mantissa) : sign * std::ldexp(m + std::ldexp(1.0, mantissa), e - bias - mantissa);
}

template <class T, int kExponent, int kMantissa>
void check_all() {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    T half;
    half.bits = static_cast<std::uint16_t>(bits);
    const float value = static_cast<float>(half);
    const double expected = decode(bits, kExponent, kMantissa);
    if (std::isnan(expected)) {
      wrong += !std::isnan(value) || !std::isnan(static_cast<float>(T(value)));
      continue;
    }
    wrong += static_cast<double>(value) != expected || std::signbit(value) != std::signbit(expected) || T(value).bits != bits;
  }
  CHECK(wrong == 0);
}

// Between two neighbours: what lies below the middle goes down, above goes up, and the middle to the even pattern.
template <class T, int kExponent, int kMantissa>
void check_rounding() {
  int wrong = 0;
  const std::uint32_t infinity = ((1U << kExponent) - 1) << kMantissa;
  for (std::uint32_t bits = 0; bits < infinity; ++bits) {
    const double low = decode(bits, kExponent, kMantissa);
    const double high = bits + 1 == infinity ? low + (low - decode(bits - 1, kExponent, kMantissa)) : decode(bits + 1, kExponent, kMantissa);
    const float middle = static_cast<float>((low + high) / 2);
    if (static_cast<double>(middle) != (low + high) / 2) continue;  // below the smallest float
    const std::uint32_t even = (bits & 1U) ? bits + 1 : bits;
    for (const float sign : {1.0F, -1.0F}) {
      const std::uint32_t s = sign < 0 ? 0x8000U : 0U;
      wrong += T(sign * middle).bits != (s | even);
      wrong += T(sign * std::nextafter(middle, 0.0F)).bits != (s | bits);
      wrong += T(sign * std::nextafter(middle, std::numeric_limits<float>::infinity())).bits != (s | (bits + 1));
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("every bfloat16 pattern") { check_all<bfloat16, 8, 7>(); }
TEST_CASE("every float16 pattern") { check_all<float16, 5, 10>(); }
TEST_CASE("rounding to bfloat16 between all neighbours") { check_rounding<bfloat16, 8, 7>(); }
TEST_CASE("rounding to float16 between all neighbours") { check_rounding<float16, 5, 10>(); }

TEST_CASE("16-bit extremes") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(float16(65504.0F).bits == 0x7bff);
  CHECK(float16(1e30F).bits == 0x7c00);
  CHECK(float16(-infinity).bits == 0xfc00);
  CHECK(float16(-0.0F).bits == 0x8000);
  CHECK(float16(1e-30F).bits == 0);
  CHECK(bfloat16(infinity).bits == 0x7f80);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  // A NaN whose payload sits in the lower half only must not become infinity.
  CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0x7f800001U)))));
  CHECK(std::isnan(static_cast<float>(float16(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE("conversion to integers saturates and maps NaN to 0") {
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(convert<std::int8_t>(127.9) == 127);
  CHECK(convert<std::int8_t>(1000.0F) == 127);
  CHECK(convert<std::int8_t>(-1000.0F) == -128);
  CHECK(convert<std::int8_t>(-128.0) == -128);
  CHECK(convert<std::uint8_t>(-1.0F) == 0);
  CHECK(convert<std::uint8_t>(255.0F) == 255);
  CHECK(convert<std::uint8_t>(256.0F) == 255);
  CHECK(convert<std::int32_t>(std::nan("")) == 0);
  CHECK(convert<std::int32_t>(2147483648.0F) == 2147483647);
  CHECK(convert<std::int64_t>(infinity) == std::numeric_limits<std::int64_t>::max());
  CHECK(convert<std::int64_t>(-infinity) == std::numeric_limits<std::int64_t>::min());
  CHECK(convert<std::int64_t>(bfloat16(3.0F)) == 3);
  CHECK(convert<bool>(0.5F));
  CHECK(convert<bool>(std::nanf("")));
  CHECK_FALSE(convert<bool>(-0.0));
  CHECK(static_cast<float>(convert<float16>(true)) == 1.0F);
  CHECK(convert<std::uint8_t>(std::int64_t{257}) == 1);
}

TEST_CASE("names, sizes and visitors") {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    visit_all(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      CHECK(dtype_of<T> == dtype);
      CHECK(static_cast<std::int64_t>(sizeof(T)) == item_size(dtype));
      CHECK(is_float_v<T> == is_float(dtype));
    });
  }
  CHECK(name_of(DType::bf16) == "bfloat16");
  CHECK_THROWS_WITH_AS(visit_float(DType::i32, "tanh", [](auto) {}), "tanh: expected a floating type, found int32", DTypeError);
  CHECK_THROWS_WITH_AS(visit_index(DType::f32, "gather", [](auto) {}), "gather: expected int64 or int32 indices, found float32", DTypeError);
}
