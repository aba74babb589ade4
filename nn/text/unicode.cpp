// UTF-8, character classes and normal forms on top of utf8proc's tables.
#include "nn/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "kernels/error.h"

namespace cambium::detail {

namespace {

unsigned byte_at(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

utf8proc_category_t category(char32_t character) { return utf8proc_category(static_cast<utf8proc_int32_t>(character)); }

utf8proc_propval_t combining_class(char32_t character) { return utf8proc_get_property(static_cast<utf8proc_int32_t>(character))->combining_class; }

// The one character that a and b compose to.
std::optional<char32_t> composed(char32_t a, char32_t b) {
  if (b < 0x300) return std::nullopt;  // no composition ends in one of these
  std::array<utf8proc_int32_t, 2> pair{static_cast<utf8proc_int32_t>(a), static_cast<utf8proc_int32_t>(b)};
  const auto size = utf8proc_normalize_utf32(pair.data(), 2, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  return size == 1 ? std::optional(static_cast<char32_t>(pair[0])) : std::nullopt;
}

// Canonical composition (UAX 15, D117): each character joins the last starter unless a mark of its own class or above stands between.
void compose_in_place(std::vector<NormalCharacter>& characters) {
  std::size_t size = 0, starter = 0;
  bool has_starter = false;
  int between = -1;  // class of the last mark since the starter
  for (const NormalCharacter& c : characters) {
    const int own = combining_class(c.character);
    if (has_starter && between < own) {
      if (const auto whole = composed(characters[starter].character, c.character)) {
        characters[starter].character = *whole;
        characters[starter].taken += c.taken;
        continue;
      }
    }
    if (own == 0) starter = size, has_starter = true, between = -1;
    else between = own;
    characters[size++] = c;
  }
  characters.resize(size);
}

template <class Map>
std::string map_characters(std::string_view text, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) map(out, next_character(text, at));
  return out;
}

}  // namespace

Utf8Step decode_utf8(std::string_view text, std::size_t at) {
  const unsigned lead = byte_at(text, at);
  if (lead < 0x80) return {.character = lead, .size = 1, .valid = true};
  std::size_t length = 0;
  unsigned low = 0x80, high = 0xBF;  // of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  else if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  else if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  else return {.size = 1};
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  char32_t character = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {.size = i, .cut = true};
    const unsigned byte = byte_at(text, at + i);
    if (byte < low || byte > high) return {.size = i};
    character = character << 6 | (byte & 0x3FU);
    low = 0x80, high = 0xBF;
  }
  return {.character = character, .size = length, .valid = true};
}

char32_t next_character(std::string_view text, std::size_t& at) {
  const Utf8Step step = decode_utf8(text, at);
  at += step.size;
  return step.valid ? step.character : U'\uFFFD';
}

char32_t previous_character(std::string_view text, std::size_t& at) {
  do --at;
  while (at > 0 && (byte_at(text, at) & 0xC0U) == 0x80U);
  return decode_utf8(text, at).character;
}

void append_utf8(std::string& out, char32_t character) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes.data());
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) out += static_cast<char>(bytes[i]);
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = decode_utf8(text, at);
    if (!step.valid) return false;
    at += step.size;
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = decode_utf8(text, at);
    out += step.valid ? text.substr(at, step.size) : kReplacementCharacter;
    at += step.size;
  }
  return out;
}

std::size_t unfinished_utf8(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const std::size_t at = text.size() - back;
    if ((byte_at(text, at) & 0xC0U) == 0x80U) continue;
    const Utf8Step step = decode_utf8(text, at);
    return step.cut && step.size == back ? back : 0;
  }
  return 0;
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) at += decode_utf8(text, at).size;
  return count;
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto kind = category(c);
  if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ND) return true;  // letters, marks, decimal digits
  if (kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D) return true;
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);  // letters in circles and squares are Other_Alphabetic
}

bool is_mark(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_MN; }

bool is_control(char32_t c) {
  if (c < 0x80) return c < 0x20 || c == 0x7F;
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_CC && kind <= UTF8PROC_CATEGORY_CO;
}

// Devlin et al. 2019, tokenization.py: the blocks of unified ideographs, not kana or hangul.
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

std::size_t grapheme_end(std::string_view text, std::size_t at) {
  utf8proc_int32_t state = 0;
  char32_t previous = next_character(text, at);
  while (at < text.size()) {
    std::size_t next = at;
    const char32_t character = next_character(text, next);
    if (previous < 0x80 && character < 0x80 ? !(previous == '\r' && character == '\n')
                                            : utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous), static_cast<utf8proc_int32_t>(character), &state)) {
      break;
    }
    previous = character, at = next;
  }
  return at;
}

std::string_view trim_white_space(std::string_view text, bool left, bool right) {
  std::size_t begin = 0, end = text.size();
  while (left && begin < end) {
    std::size_t at = begin;
    if (!is_white_space(next_character(text, at))) break;
    begin = at;
  }
  while (right && end > begin) {
    std::size_t at = end;
    if (!is_white_space(previous_character(text, at))) break;
    end = at;
  }
  return text.substr(begin, end - begin);
}

std::vector<NormalCharacter> normal_characters(std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<NormalCharacter> characters;
  characters.reserve(text.size());
  std::array<utf8proc_int32_t, 32> parts{};  // the longest decomposition has 18
  for (std::size_t at = 0; at < text.size();) {
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next_character(text, at)), parts.data(),
                                               static_cast<utf8proc_ssize_t>(parts.size()), options, nullptr);
    check<Error>(count >= 0 && static_cast<std::size_t>(count) <= parts.size(), "normal_characters: a character that cannot be decomposed");
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) characters.push_back({static_cast<char32_t>(parts[i]), i == 0 ? 1U : 0U});
  }
  // Canonical order. utf8proc's own loop sorts by exchanging neighbours, quadratic on a long run of marks.
  for (auto run = characters.begin(); run != characters.end();) {
    if (combining_class(run->character) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, characters.end(), [](const NormalCharacter& c) { return combining_class(c.character) == 0; });
    std::stable_sort(run, end, [](const NormalCharacter& a, const NormalCharacter& b) { return combining_class(a.character) < combining_class(b.character); });
    run = end;
  }
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose_in_place(characters);
  return characters;
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (const NormalCharacter& c : normal_characters(text, form)) append_utf8(out, c.character);
  return out;
}

std::string to_lower_case(std::string_view text) {
  return map_characters(text, [](std::string& out, char32_t c) {
    if (c == 0x130) out += "i\xCC\x87";  // the one letter whose small form takes two characters
    else append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  });
}

std::string to_upper_case(std::string_view text) {
  return map_characters(text, [](std::string& out, char32_t c) {
    if (c == 0xDF) out += "SS";
    else append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  });
}

}  // namespace cambium::detail
