// Base 64, in which tokenizer.json holds the character map of a SentencePiece model. Internal.
#pragma once

#include <string>
#include <string_view>

namespace cambium::detail {

/// RFC 4648 with padding. ConfigError starting with `where` if `text` is not that.
std::string decode_base64(std::string_view text, std::string_view where);

}  // namespace cambium::detail
