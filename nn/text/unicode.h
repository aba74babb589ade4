// UTF-8, character classes and normal forms as the tokenizers need them. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cambium::detail {

/// U+FFFD, which stands for bytes that are not text.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Step {
  char32_t character = 0;  ///< meaningless when `valid` is false
  std::size_t size = 0;    ///< bytes of the character or, if it is not valid, of the maximal subpart (Unicode 15, section 3.9)
  bool valid = false;
  bool cut = false;        ///< not valid only because the text ends here
};

/// Decodes what starts at `at` < text.size().
Utf8Step decode_utf8(std::string_view text, std::size_t at);

/// The character at `at` of a text known to be valid; moves `at` behind it.
char32_t next_character(std::string_view text, std::size_t& at);
/// The character that ends at `at` > 0 of a text known to be valid; moves `at` to its start.
char32_t previous_character(std::string_view text, std::size_t& at);

void append_utf8(std::string& out, char32_t character);
bool is_valid_utf8(std::string_view text);
/// One U+FFFD for each maximal subpart of an ill-formed sequence, as Python, Rust and the WHATWG do.
std::string repair_utf8(std::string_view text);
/// Bytes at the end that begin a character and wait for the rest of it.
std::size_t unfinished_utf8(std::string_view text);
std::size_t count_characters(std::string_view text);

bool is_white_space(char32_t character);   ///< property White_Space
bool is_numeric(char32_t character);       ///< Nd, Nl, No
bool is_punctuation(char32_t character);   ///< P* and every ASCII punctuation mark
bool is_word_character(char32_t character);  ///< alphabetic, mark, decimal digit, connector or joiner (UTS 18, \w)

bool is_mark(char32_t character);            ///< Mn, Mc, Me
bool is_nonspacing_mark(char32_t character); ///< Mn
bool is_control(char32_t character);         ///< Cc, Cf, Co, Cs
bool is_ideograph(char32_t character);       ///< what BERT cuts as Chinese characters

/// The end of the extended grapheme cluster (UAX 29) that starts at `at` < text.size().
std::size_t grapheme_end(std::string_view text, std::size_t at);

/// `text` without white space at the chosen ends.
std::string_view trim_white_space(std::string_view text, bool left = true, bool right = true);

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };
struct NormalCharacter {
  char32_t character = 0;
  std::size_t taken = 0;  ///< characters of the source, from where the one before stopped, that it stands for; 0: added to the one before
};
/// Unicode normal form of a valid text, in time linear in its size up to sorting runs of marks.
std::vector<NormalCharacter> normal_characters(std::string_view text, NormalForm form);
std::string normalize_unicode(std::string_view text, NormalForm form);
/// Lower case character by character, without the rules that look at neighbours.
std::string to_lower_case(std::string_view text);
std::string to_upper_case(std::string_view text);

}  // namespace cambium::detail
