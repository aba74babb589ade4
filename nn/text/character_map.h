// The character map of a SentencePiece model: rules "these bytes become this text", found by prefix. Internal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cambium::detail {

/// The format of sentencepiece's normalizer.cc: a 32-bit size, a double-array trie as darts-clone lays it out (Yata 2008), and the
/// texts, each ended by a zero byte. Every step of a search is checked against the size of the array, so that no file can lead outside.
class CharacterMap {
 public:
  /// ConfigError starting with `where` if sizes contradict each other or a text is not UTF-8.
  CharacterMap(std::string_view blob, const std::string& where);

  struct Match {
    std::string_view text;  ///< what stands instead
    std::size_t size;       ///< bytes of the prefix that it replaces
  };
  /// The rule for the shortest, or longest, prefix of `bytes`.
  std::optional<Match> shortest(std::string_view bytes) const { return find(bytes, false); }
  std::optional<Match> longest(std::string_view bytes) const { return find(bytes, true); }

 private:
  std::optional<Match> find(std::string_view bytes, bool longest) const;
  std::vector<std::uint32_t> units_;
  std::string texts_;
};

}  // namespace cambium::detail
