// The stages around the model of a tokenizer, each a function built from its section of a tokenizer.json. Internal.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/regex.h"
#include "tensor/json.h"

namespace cambium::detail {

/// Rewrites a text before it is cut. Empty function: nothing to do (so for all stages).
using Normalizer = std::function<void(std::string&)>;

struct Piece {
  std::string text;
  bool at_start = false;  ///< the original text begins here
};
/// Cuts pieces into smaller ones and may rewrite them; empty pieces are left out.
using PreTokenizer = std::function<void(std::vector<Piece>&)>;

/// Puts special tokens around the ids of one text.
using PostProcessor = std::function<void(std::vector<std::int64_t>&)>;

/// Turns the texts of tokens into those that, joined, are the decoded text. Byte-level decoders leave bytes that need not be
/// valid UTF-8.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// What a split does with the matches of its pattern.
enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// From JSON: null gives an empty function; ConfigError names a type that is not supported, and what is.
Normalizer make_normalizer(const Json& section, const std::string& where);
PreTokenizer make_pre_tokenizer(const Json& section, const std::string& where);
PostProcessor make_post_processor(const Json& section, const std::string& where);
Decoder make_decoder(const Json& section, const std::string& where);

// By hand, for vocabularies that name their rules instead of listing them.
Normalizer unicode_normalizer(std::string_view form);
PreTokenizer split_pre_tokenizer(Regex pattern, SplitBehavior behavior, bool invert = false);
PreTokenizer digits_pre_tokenizer(bool individual);
/// The last step of byte-level models; `use_regex` cuts by GPT-2's pattern first.
PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex);
PreTokenizer pre_tokenizer_sequence(std::vector<PreTokenizer> steps);
Decoder byte_level_decoder();

/// "pattern": {"String": …} or {"Regex": …}; nothing if the string is empty, which never matches.
std::vector<Regex> read_pattern(const Json& section, const std::string& where);
/// A member that has to be exactly one character.
std::string character_of(const Json& section, const char* key, std::string_view otherwise, const std::string& where);

}  // namespace cambium::detail
