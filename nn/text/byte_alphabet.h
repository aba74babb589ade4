// GPT-2's printable stand-ins for the 256 byte values (Radford et al. 2019, encoder.py). Internal.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace cambium::detail {

class Text;

/// Appends each byte of `bytes` as its printable character.
void append_byte_alphabet(std::string& out, std::string_view bytes);
/// Every byte of a text as its printable character, which stands for the whole character that the byte is of.
void to_byte_alphabet(Text& text);
/// Appends the bytes that `token` stands for; a token with a character outside of the alphabet stands for itself.
void append_from_byte_alphabet(std::string& out, std::string_view token);

}  // namespace cambium::detail
