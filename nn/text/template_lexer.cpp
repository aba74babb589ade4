// Cutting templates and lexing their code.
#include "nn/text/template_lexer.h"

#include "kernels/error.h"

namespace cambium::detail {

std::vector<TemplateToken> lex(std::string_view code) {
  std::vector<TemplateToken> out;
  const auto is_name = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; };
  for (std::size_t i = 0; i < code.size();) {
    const char c = code[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++i;
    } else if (c == '\'' || c == '"') {
      std::string text;
      std::size_t j = i + 1;
      for (; j < code.size() && code[j] != c; ++j) {
        if (code[j] != '\\' || j + 1 == code.size()) {
          text += code[j];
          continue;
        }
        const char e = code[++j];
        constexpr std::string_view kNames = "ntr\\'\"", kValues = "\n\t\r\\'\"";
        const std::size_t known = kNames.find(e);
        check<ConfigError>(std::string_view("xuUN01234567").find(e) == std::string_view::npos, "chat template: the escape \\", e, " is not supported");
        if (known != std::string_view::npos) text += kValues[known];
        else (text += '\\') += e;
      }
      check<ConfigError>(j < code.size(), "chat template: a text without its closing quote: ", code.substr(i, 40));
      out.push_back({TemplateToken::Kind::string, text});
      i = j + 1;
    } else if (c >= '0' && c <= '9') {
      std::size_t j = i;
      while (j < code.size() && ((code[j] >= '0' && code[j] <= '9') || code[j] == '.')) ++j;
      out.push_back({TemplateToken::Kind::number, std::string(code.substr(i, j - i))});
      i = j;
    } else if (is_name(c)) {
      std::size_t j = i;
      while (j < code.size() && is_name(code[j])) ++j;
      out.push_back({TemplateToken::Kind::name, std::string(code.substr(i, j - i))});
      i = j;
    } else {
      const std::string_view two = code.substr(i, 2);
      const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//";
      check<ConfigError>(pair || std::string_view("+-*/%~<>()[]{}.,:|=").find(c) != std::string_view::npos, "chat template: unexpected character '", c, "' in ", code.substr(0, 60));
      out.push_back({TemplateToken::Kind::symbol, std::string(code.substr(i, pair ? 2 : 1))});
      i += pair ? 2 : 1;
    }
  }
  out.push_back({});
  return out;
}

std::vector<TemplatePiece> cut(std::string_view text) {
  std::vector<TemplatePiece> out;
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  bool strip_left = false, after_block = false, line_start = true;
  std::size_t at = 0;
  const auto add_text = [&](std::string_view piece, bool strip_right, bool before_block) {
    if (after_block && !strip_left && piece.starts_with('\n')) {
      piece.remove_prefix(1);
      line_start = true;
    }
    if (strip_left) while (!piece.empty() && is_space(piece.front())) piece.remove_prefix(1);
    if (strip_right) {
      while (!piece.empty() && is_space(piece.back())) piece.remove_suffix(1);
    } else if (before_block) {  // blanks between the start of the line and a block
      std::size_t end = piece.size();
      while (end > 0 && (piece[end - 1] == ' ' || piece[end - 1] == '\t')) --end;
      if (end > 0 ? piece[end - 1] == '\n' : line_start) piece = piece.substr(0, end);
    }
    line_start = false;
    if (!piece.empty()) out.push_back({TemplatePiece::Kind::text, std::string(piece)});
  };
  for (;;) {
    std::size_t open = at;
    while ((open = text.find('{', open)) != std::string_view::npos && (open + 1 == text.size() || std::string_view("{%#").find(text[open + 1]) == std::string_view::npos)) ++open;
    if (open == std::string_view::npos) {
      add_text(text.substr(at), false, false);
      return out;
    }
    const char kind = text[open + 1];
    const std::string closing = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    const bool minus = open + 2 < text.size() && text[open + 2] == '-';
    add_text(text.substr(at, open - at), minus, kind != '{');
    // Quoted closings do not end the tag.
    std::size_t close = open + 2;
    char quote = 0;
    for (; close < text.size(); ++close) {
      if (quote != 0) {
        if (text[close] == '\\') ++close;
        else if (text[close] == quote) quote = 0;
      } else if (kind != '#' && (text[close] == '\'' || text[close] == '"')) {
        quote = text[close];
      } else if (text.substr(close, 2) == closing) {
        break;
      }
    }
    check<ConfigError>(close < text.size(), "chat template: a tag without its closing ", closing);
    std::string_view inside = text.substr(open + 2, close - open - 2);
    if (minus) inside.remove_prefix(1);
    strip_left = !inside.empty() && inside.back() == '-';
    if (strip_left) inside.remove_suffix(1);
    after_block = kind != '{';
    if (kind != '#') out.push_back({kind == '{' ? TemplatePiece::Kind::output : TemplatePiece::Kind::tag, std::string(inside)});
    at = close + 2;
  }
}

}  // namespace cambium::detail
