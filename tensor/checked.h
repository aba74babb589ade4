// Arithmetic on sizes that come from files: overflow is a result to look at, never a value.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace cambium {

constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  std::uint64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t out = 0;
  return __builtin_add_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}

/// Number of elements of a shape, or nothing when the product of its sizes other than zero is above 2^62, more than Shape takes.
template <class Sizes>
constexpr std::optional<std::uint64_t> checked_count(const Sizes& sizes) {
  std::uint64_t product = 1;
  bool empty = false;
  for (const auto signed_size : sizes) {
    const auto size = static_cast<std::uint64_t>(signed_size);
    if (size == 0) empty = true;
    else if (const auto next = checked_mul(product, size); next && *next <= std::uint64_t{1} << 62) product = *next;
    else return std::nullopt;
  }
  return empty ? 0 : product;
}

}  // namespace cambium
