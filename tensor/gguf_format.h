// Limits and element sizes of the GGUF format, shared by its reader and its writer.
#pragma once

#include <cstring>
#include <span>
#include <string_view>

#include "tensor/gguf.h"

namespace cambium::gguf {

inline constexpr std::uint64_t kLongestString = std::uint64_t{16} << 20;
inline constexpr std::uint64_t kLongestKey = std::uint64_t{64} << 10;
inline constexpr int kDeepestArray = 2;
inline constexpr std::uint64_t kSmallestEntry = 8 + 1 + 4 + 1;              // key of one byte, type, value of one byte
inline constexpr std::uint64_t kSmallestTensor = 8 + 1 + 4 + 8 + 4 + 8;     // name of one byte, one size

/// Bytes of a value in the file; of strings and arrays the smallest possible.
constexpr std::uint64_t size_of(GgufType type) {
  switch (type) {
    case GgufType::u8: case GgufType::i8: case GgufType::boolean: return 1;
    case GgufType::u16: case GgufType::i16: return 2;
    case GgufType::u32: case GgufType::i32: case GgufType::f32: return 4;
    case GgufType::array: return 12;
    default: return 8;
  }
}

template <class T>
T load(std::span<const std::byte> bytes, std::uint64_t position) {
  T value;
  std::memcpy(&value, bytes.data() + position, sizeof(T));
  return value;
}

/// The string whose length stands at `position`, which has been checked before.
inline std::string_view string_at(std::span<const std::byte> bytes, std::uint64_t position) {
  return {reinterpret_cast<const char*>(bytes.data() + position + 8), load<std::uint64_t>(bytes, position)};
}

}  // namespace cambium::gguf
