// A chat template cut into texts and tags, and the code of a tag into tokens. Internal: not installed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cambium::detail {

struct TemplateToken {
  enum class Kind { end, name, string, number, symbol };
  Kind kind = Kind::end;
  std::string text;
};

/// Tokens of an expression or a tag, with one of kind `end` behind them. ConfigError for a character outside the subset.
std::vector<TemplateToken> lex(std::string_view code);

/// The template cut into texts and tags, with the white space removed that '-' and the customs of Hugging Face (trim_blocks, lstrip_blocks) remove.
struct TemplatePiece {
  enum class Kind { text, output, tag } kind;
  std::string text;
};

std::vector<TemplatePiece> cut(std::string_view text);

}  // namespace cambium::detail
