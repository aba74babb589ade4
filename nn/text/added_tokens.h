// Tokens that are cut out of a text before anything else looks at it. Internal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "nn/text/stages.h"

namespace cambium::detail {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false, rstrip = false;  ///< takes the white space on that side with it
  bool normalized = false;   ///< looked for in the normalized text
  bool matched = true;       ///< its text is looked for in inputs at all
  bool special = false;      ///< left out by decode(ids, true)
  std::string shown;         ///< what decoding shows: the content, normalized if it is looked for so
};

/// A stretch of text, or an added token in it.
struct Segment {
  std::string_view text;
  std::int64_t id = -1;  ///< -1: text
};

/// Finds the longest of several texts that starts at a place.
class TokenMatcher {
 public:
  /// ConfigError if a content is empty or longer than 1024 bytes.
  void add(std::string content, const AddedToken& token, const std::string& where);
  void finish();
  /// Leftmost, longest, not overlapping; then the tokens' flags decide as in the reference.
  std::vector<Segment> split(std::string_view text) const;

 private:
  struct Entry { std::string content; AddedToken token; };
  const Entry* longest_at(std::string_view text, std::size_t at) const;
  std::vector<Entry> entries_;  // sorted by content
  std::vector<std::size_t> first_;  // [byte, byte + 1): entries that begin with this byte
};

class AddedTokens {
 public:
  /// ConfigError: two tokens with one id or one content.
  void add(AddedToken token, const Normalizer& normalizer, const std::string& where);
  void finish() { raw_.finish(), normalized_.finish(); }

  const TokenMatcher& raw() const { return raw_; }
  const TokenMatcher& normalized() const { return normalized_; }
  const AddedToken* find(std::int64_t id) const;
  const AddedToken* find(const std::string& content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int64_t, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  TokenMatcher raw_, normalized_;
};

}  // namespace cambium::detail
