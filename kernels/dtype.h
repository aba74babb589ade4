// Element types: the closed enum DType, 16-bit storage types, and visit_* to go from a DType to a C++ type.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#include "kernels/error.h"
#include "kernels/host_device.h"

namespace cambium {

enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, i8, u8, boolean };
inline constexpr int kDTypeCount = 9;

/// Upper half of an IEEE float32: 8 exponent bits, 7 mantissa bits. Same layout as CUDA's.
struct bfloat16 {
  std::uint16_t bits = 0;
  bfloat16() = default;
  CAMBIUM_HOST_DEVICE explicit bfloat16(float value) {  // round to nearest, ties to even; NaN stays NaN
    std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    bits = (u & 0x7fffffffU) > 0x7f800000U ? static_cast<std::uint16_t>((u >> 16) | 0x40U)
                                          : static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
  }
  CAMBIUM_HOST_DEVICE explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE binary16: 5 exponent bits, 10 mantissa bits.
struct float16 {
  std::uint16_t bits = 0;
  float16() = default;
  CAMBIUM_HOST_DEVICE explicit float16(float value) : bits(encode(value)) {}
  CAMBIUM_HOST_DEVICE explicit operator float() const { return decode(bits); }

 private:
  CAMBIUM_HOST_DEVICE static std::uint16_t encode(float value) {
    std::uint32_t u = std::bit_cast<std::uint32_t>(value), sign = (u >> 16) & 0x8000U, a = u & 0x7fffffffU;
    if (a > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);           // NaN
    if (a >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);          // rounds to infinity
    if (a < 0x38800000U) {  // subnormal: adding 2^-1 * 2^-13 aligns the mantissa and rounds once
      float aligned = std::bit_cast<float>(a) + 0.5F;
      return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000U));
    }
    return static_cast<std::uint16_t>(sign | ((a - 0x38000000U + 0xfffU + ((a >> 13) & 1U)) >> 13));
  }
  CAMBIUM_HOST_DEVICE static float decode(std::uint16_t h) {
    std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16, e = (h >> 10) & 31U, m = h & 0x3ffU;
    if (e == 0) return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(static_cast<float>(m) * 0x1p-24F));
    if (e == 31) return std::bit_cast<float>(sign | 0x7f800000U | (m << 13));
    return std::bit_cast<float>(sign | ((e + 112U) << 23) | (m << 13));
  }
};

template <class T> inline constexpr bool is_float_v = std::is_floating_point_v<T> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// What sums and transcendental functions of T are computed in: double for double, float for the other floats, int64 for integers.
template <class T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, std::conditional_t<is_float_v<T>, float, std::int64_t>>;

/// Conversion between any two element types, through float for the 16-bit ones. A float outside of an integer type's range becomes the
/// nearest end of it, NaN becomes 0; integers keep their low bits.
template <class To, class From>
CAMBIUM_HOST_DEVICE inline To convert(From value) {
  if constexpr (std::is_same_v<To, From>) return value;
  else if constexpr (std::is_same_v<From, bfloat16> || std::is_same_v<From, float16>) return convert<To>(static_cast<float>(value));
  else if constexpr (std::is_same_v<To, bfloat16> || std::is_same_v<To, float16>) return To(static_cast<float>(value));
  else if constexpr (std::is_same_v<To, bool>) return value != From(0);
  else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    // 2^(bits) is a power of two and so exact in From, unlike the greatest integer itself.
    constexpr From low = static_cast<From>(std::numeric_limits<To>::min()), beyond = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * 2;
    constexpr To least = std::numeric_limits<To>::min(), greatest = std::numeric_limits<To>::max();
    if (value >= beyond) return greatest;
    return value >= low ? static_cast<To>(value) : (value < low ? least : To(0));
  }
  else return static_cast<To>(value);
}

CAMBIUM_HOST_DEVICE constexpr std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::f64: case DType::i64: return 8;
    case DType::f32: case DType::i32: return 4;
    case DType::bf16: case DType::f16: return 2;
    default: return 1;
  }
}
constexpr bool is_float(DType dtype) { return dtype <= DType::f16; }

constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view names[] = {"float64", "float32", "bfloat16", "float16", "int64", "int32", "int8", "uint8", "bool"};
  return names[static_cast<int>(dtype)];
}
inline std::ostream& operator<<(std::ostream& stream, DType dtype) { return stream << name_of(dtype); }

template <class T> inline constexpr DType dtype_of = DType::boolean;
template <> inline constexpr DType dtype_of<double> = DType::f64;
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<bfloat16> = DType::bf16;
template <> inline constexpr DType dtype_of<float16> = DType::f16;
template <> inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <> inline constexpr DType dtype_of<std::int8_t> = DType::i8;
template <> inline constexpr DType dtype_of<std::uint8_t> = DType::u8;

template <class T> struct TypeTag { using type = T; };

/// Calls `f(TypeTag<T>{})` for a float dtype; `what` names the caller in the error for another one.
template <class F>
decltype(auto) visit_float(DType dtype, std::string_view what, F&& f) {
  switch (dtype) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bfloat16>{});
    case DType::f16: return f(TypeTag<float16>{});
    default: fail<DTypeError>(what, ": expected a floating type, found ", dtype);
  }
}

/// Calls `f(TypeTag<T>{})` for i64 and i32, the types that may index.
template <class F>
decltype(auto) visit_index(DType dtype, std::string_view what, F&& f) {
  switch (dtype) {
    case DType::i64: return f(TypeTag<std::int64_t>{});
    case DType::i32: return f(TypeTag<std::int32_t>{});
    default: fail<DTypeError>(what, ": expected int64 or int32 indices, found ", dtype);
  }
}

template <class F>
decltype(auto) visit_all(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bfloat16>{});
    case DType::f16: return f(TypeTag<float16>{});
    case DType::i64: return f(TypeTag<std::int64_t>{});
    case DType::i32: return f(TypeTag<std::int32_t>{});
    case DType::i8: return f(TypeTag<std::int8_t>{});
    case DType::u8: return f(TypeTag<std::uint8_t>{});
    default: return f(TypeTag<bool>{});
  }
}

}  // namespace cambium
