// Printable Latin-1 bytes stand for themselves, the others for U+0100, U+0101, … in order.
#include "nn/text/byte_alphabet.h"

#include "nn/text/text.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

struct Alphabet {
  std::array<std::string, 256> text;
  std::array<std::int16_t, 0x144> byte{};  // by character; -1: none
  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (std::size_t value = 0; value < 256; ++value) {
      const bool printable = (value >= 33 && value <= 126) || (value >= 161 && value <= 172) || value >= 174;
      const char32_t character = printable ? static_cast<char32_t>(value) : next++;
      append_utf8(text[value], character);
      byte[character] = static_cast<std::int16_t>(value);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

void append_byte_alphabet(std::string& out, std::string_view bytes) {
  const Alphabet& table = alphabet();
  for (const char c : bytes) out += table.text[static_cast<unsigned char>(c)];
}

void to_byte_alphabet(Text& text) {
  const Alphabet& table = alphabet();
  Rewriter out(text);
  const std::string_view source = out.source();
  for (std::size_t at = 0; at < source.size();) {
    const std::size_t begin = at;
    at += decode_utf8(source, at).size;
    for (std::size_t i = begin; i < at; ++i) out.put(table.text[static_cast<unsigned char>(source[i])], begin, at);
  }
  out.finish();
}

void append_from_byte_alphabet(std::string& out, std::string_view token) {
  const Alphabet& table = alphabet();
  const std::size_t before = out.size();
  for (std::size_t at = 0; at < token.size();) {
    const char32_t character = next_character(token, at);
    if (character >= table.byte.size() || table.byte[character] < 0) {
      out.resize(before);
      out += token;
      return;
    }
    out += static_cast<char>(table.byte[character]);
  }
}

}  // namespace cambium::detail
