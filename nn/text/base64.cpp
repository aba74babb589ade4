// Four letters to three bytes.
#include "nn/text/base64.h"

#include <array>
#include <cstdint>

#include "kernels/error.h"

namespace cambium::detail {

std::string decode_base64(std::string_view text, std::string_view where) {
  static const auto values = [] {
    std::array<std::int8_t, 256> table{};
    table.fill(-1);
    constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t i = 0; i < kLetters.size(); ++i) table[static_cast<unsigned char>(kLetters[i])] = static_cast<std::int8_t>(i);
    return table;
  }();
  check<ConfigError>(text.size() % 4 == 0, where, ": expected base 64 in groups of four letters, found ", text.size(), " letters");
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int value = i < text.size() - padding ? values[static_cast<unsigned char>(text[i])] : 0;
    check<ConfigError>(value >= 0, where, ": expected base 64, found another character at ", i);
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift & 0xFFU);
  }
  bytes.erase(bytes.size() - padding);
  return bytes;
}

}  // namespace cambium::detail
