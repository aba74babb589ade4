// Walking a double array: a unit holds a label, an offset to its children, and whether a value hangs below it.
#include "nn/text/character_map.h"

#include "kernels/error.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

std::uint32_t little_endian(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1U) != 0; }
std::size_t value(std::uint32_t unit) { return unit & 0x7FFFFFFFU; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FFU; }  // the top bit: a value, which is no label
std::size_t offset(std::uint32_t unit) { return std::size_t{unit >> 10} << ((unit & 0x200U) >> 6); }

}  // namespace

CharacterMap::CharacterMap(std::string_view blob, const std::string& where) {
  check<ConfigError>(blob.size() >= 4, where, ": expected a character map of at least 4 bytes, found ", blob.size());
  const std::size_t size = little_endian(blob, 0);
  check<ConfigError>(size % 4 == 0 && size >= 4 && size <= blob.size() - 4, where, ": expected a trie within its ", blob.size(), " bytes, found one of ", size);
  units_.reserve(size / 4);
  for (std::size_t at = 4; at < 4 + size; at += 4) units_.push_back(little_endian(blob, at));
  texts_ = blob.substr(4 + size);
  check<ConfigError>(texts_.empty() || texts_.back() == '\0', where, ": expected a zero byte after the last text");
  check<ConfigError>(is_valid_utf8(texts_), where, ": expected texts in UTF-8");
}

std::optional<CharacterMap::Match> CharacterMap::find(std::string_view bytes, bool longest) const {
  std::optional<Match> best;
  std::size_t at = offset(units_[0]);
  for (std::size_t i = 0; i < bytes.size() && bytes[i] != '\0'; ++i) {
    const std::uint32_t byte = static_cast<unsigned char>(bytes[i]);
    at ^= byte;
    if (at >= units_.size() || label(units_[at]) != byte) break;
    const std::uint32_t unit = units_[at];
    at ^= offset(unit);
    if (!has_leaf(unit) || at >= units_.size()) continue;
    const std::size_t begin = value(units_[at]);
    // A text that begins within a character would not be UTF-8.
    if (begin >= texts_.size() || (static_cast<unsigned char>(texts_[begin]) & 0xC0U) == 0x80U) continue;
    best = Match{std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin), i + 1};
    if (!longest) break;
  }
  // A rule may end within a character of a damaged map only.
  if (best && best->size < bytes.size() && (static_cast<unsigned char>(bytes[best->size]) & 0xC0U) == 0x80U) return std::nullopt;
  return best;
}

}  // namespace cambium::detail
