// Byte-pair encoding (Sennrich et al. 2016) with merges by rank, as the `tokenizers` library does it. Internal.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/model.h"

namespace cambium::detail {

/// Pairs of ids with their rank and what they merge into: open addressing, 16 bytes a slot.
class MergeTable {
 public:
  struct Merge { std::uint32_t rank = kNoToken; TokenId result = kNoToken; };
  explicit MergeTable(std::size_t expected = 0);
  /// The later of two equal pairs wins, as in the reference.
  void insert(TokenId left, TokenId right, Merge merge);
  /// rank == kNoToken if the pair does not merge.
  Merge find(TokenId left, TokenId right) const;

 private:
  struct Slot { TokenId left = kNoToken, right = kNoToken; Merge merge; };
  std::size_t slot_of(TokenId left, TokenId right) const;
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

struct BpeOptions {
  std::string unknown_token;              ///< empty: characters without a token are dropped
  std::string continuing_subword_prefix;  ///< put before every character but the first
  std::string end_of_word_suffix;         ///< put behind the last character
  bool fuse_unknown = false;
  bool byte_fallback = false;   ///< a character without a token becomes <0xHH> tokens
  bool ignore_merges = false;   ///< a piece that is a token stays whole
};

class BpeModel : public TokenModel {
 public:
  BpeModel(Vocabulary vocabulary, BpeOptions options, const std::string& where);
  /// Rank: the number of merges so far. ConfigError if a part or the whole is no token.
  void add_merge(std::string_view left, std::string_view right, const std::string& where);

  void encode(std::string_view piece, std::vector<ModelToken>& tokens) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  void split(std::string_view piece, std::vector<ModelToken>& symbols) const;
  void merge_short(std::vector<ModelToken>& symbols) const;
  void merge_long(std::vector<ModelToken>& symbols) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  MergeTable merges_;
  std::uint32_t merge_count_ = 0;
  TokenId unknown_ = kNoToken;
  std::vector<TokenId> byte_tokens_;  // <0x00> … <0xFF> for byte_fallback
};

/// Splits "left right"; ConfigError if there is not exactly one blank with something on both sides.
std::pair<std::string_view, std::string_view> parse_merge(std::string_view line, const std::string& where);

}  // namespace cambium::detail
