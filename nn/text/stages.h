// The stages around the model of a tokenizer, each a function built from its section of a tokenizer.json. Internal.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/regex.h"
#include "nn/text/text.h"
#include "tensor/json.h"

namespace cambium::detail {

/// Rewrites a text before it is cut. Empty function: nothing to do (so for all stages).
using Normalizer = std::function<void(Text&)>;

struct Piece {
  Text text;
  bool at_start = false;  ///< begins with what the first character of the original text became
};
/// Cuts pieces into smaller ones and may rewrite them; empty pieces are left out.
using PreTokenizer = std::function<void(std::vector<Piece>&)>;

/// What stands in the ids of one text or of two: special tokens, or a text.
struct TemplateItem {
  std::int64_t sequence = -1;  ///< 0 or 1: that text; -1: `id`
  std::int64_t id = 0;
  std::int64_t type_id = 0;
};

/// Puts special tokens around and between texts.
struct PostProcessor {
  std::vector<TemplateItem> single{{.sequence = 0}};
  std::vector<TemplateItem> pair{{.sequence = 0}, {.sequence = 1, .type_id = 1}};
  bool trims_origins = false;  ///< white space at a token's ends does not count to its origin
};

/// Turns the texts of tokens into those that, joined, are the decoded text. Byte-level decoders leave bytes that need not be
/// valid UTF-8.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// What a split does with the matches of its pattern.
enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// From JSON: null gives an empty stage; ConfigError names a type that is not supported, and what is.
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

struct BertNormalizerOptions {
  bool clean_text = true;            ///< drops control characters, makes every white space a blank
  bool handle_chinese_chars = true;  ///< blanks around each ideograph
  bool strip_accents = true;
  bool lowercase = true;
};
/// Devlin et al. 2019, tokenization.py.
Normalizer bert_normalizer(const BertNormalizerOptions& options);
/// Cuts at white space, which goes, and around each punctuation mark.
PreTokenizer bert_pre_tokenizer();
/// [CLS] a [SEP] b [SEP]
PostProcessor bert_post_processor(std::int64_t cls, std::int64_t sep);
/// Each text between BOS and EOS, as far as they are given.
PostProcessor begin_end_post_processor(std::optional<std::int64_t> bos, std::optional<std::int64_t> eos);
/// A token without the prefix begins a word. `cleanup` closes up punctuation and English contractions.
Decoder word_piece_decoder(std::string prefix, bool cleanup);

/// "pattern": {"String": …} or {"Regex": …}; nothing if the string is empty, which never matches.
std::vector<Regex> read_pattern(const Json& section, const std::string& where);
/// A member that has to be exactly one character.
std::string character_of(const Json& section, const char* key, std::string_view otherwise, const std::string& where);

}  // namespace cambium::detail
