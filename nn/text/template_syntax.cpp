// Lexer and recursive-descent parser of the template subset.
#include "nn/text/template_syntax.h"

#include <array>

#include "kernels/error.h"

namespace cambium::detail {

namespace {

constexpr int kMaxDepth = 100;

struct Token {
  enum class Kind { end, name, string, number, symbol };
  Kind kind = Kind::end;
  std::string text;
};

std::vector<Token> lex(std::string_view code) {
  std::vector<Token> out;
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
      out.push_back({Token::Kind::string, text});
      i = j + 1;
    } else if (c >= '0' && c <= '9') {
      std::size_t j = i;
      while (j < code.size() && ((code[j] >= '0' && code[j] <= '9') || code[j] == '.')) ++j;
      out.push_back({Token::Kind::number, std::string(code.substr(i, j - i))});
      i = j;
    } else if (is_name(c)) {
      std::size_t j = i;
      while (j < code.size() && is_name(code[j])) ++j;
      out.push_back({Token::Kind::name, std::string(code.substr(i, j - i))});
      i = j;
    } else {
      const std::string_view two = code.substr(i, 2);
      const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//";
      check<ConfigError>(pair || std::string_view("+-*/%~<>()[]{}.,:|=").find(c) != std::string_view::npos, "chat template: unexpected character '", c, "' in ", code.substr(0, 60));
      out.push_back({Token::Kind::symbol, std::string(code.substr(i, pair ? 2 : 1))});
      i += pair ? 2 : 1;
    }
  }
  out.push_back({});
  return out;
}

class ExpressionParser {
 public:
  // Chains such as a + b + c nest the tree as deep as they are long, hence the bound.
  explicit ExpressionParser(std::string_view code) : code_(code), tokens_(lex(code)) {
    check<ConfigError>(tokens_.size() <= 1000, "chat template: a tag of more than 1000 words and signs");
  }

  ExpressionPtr parse() { return conditional(); }
  ExpressionPtr parse_without_condition() { return disjunction(); }
  bool take(std::string_view text) {
    if (!sees(text)) return false;
    ++at_;
    return true;
  }
  bool sees(std::string_view text) const { return (tokens_[at_].kind == Token::Kind::symbol || tokens_[at_].kind == Token::Kind::name) && tokens_[at_].text == text; }
  void expect(std::string_view text) {
    if (!take(text)) fail<ConfigError>("chat template: expected '", text, "' in {% ", code_, " %}");
  }
  std::string name() {
    check<ConfigError>(tokens_[at_].kind == Token::Kind::name, "chat template: expected a name in {% ", code_, " %}");
    return tokens_[at_++].text;
  }
  void end() const { check<ConfigError>(tokens_[at_].kind == Token::Kind::end, "chat template: '", tokens_[at_].text, "' is not supported in ", code_); }

 private:
  static ExpressionPtr make(Expression::Kind kind, std::string name = {}) {
    auto e = std::make_unique<Expression>();
    e->kind = kind;
    e->name = std::move(name);
    return e;
  }
  static ExpressionPtr binary(std::string op, ExpressionPtr a, ExpressionPtr b) {
    auto e = make(Expression::Kind::binary, std::move(op));
    e->parts.push_back(std::move(a));
    e->parts.push_back(std::move(b));
    return e;
  }

  ExpressionPtr conditional() {
    check<ConfigError>(++depth_ < kMaxDepth, "chat template: expressions are nested too deeply");
    ExpressionPtr value = disjunction();
    if (take("if")) {
      auto e = make(Expression::Kind::conditional);
      e->parts.push_back(disjunction());
      e->parts.push_back(std::move(value));
      e->parts.push_back(take("else") ? conditional() : nullptr);
      value = std::move(e);
    }
    --depth_;
    return value;
  }
  ExpressionPtr disjunction() {
    ExpressionPtr left = conjunction();
    while (take("or")) left = binary("or", std::move(left), conjunction());
    return left;
  }
  ExpressionPtr conjunction() {
    ExpressionPtr left = negation();
    while (take("and")) left = binary("and", std::move(left), negation());
    return left;
  }
  ExpressionPtr negation() {
    if (!take("not")) return comparison();
    check<ConfigError>(++depth_ < kMaxDepth, "chat template: expressions are nested too deeply");
    auto e = make(Expression::Kind::unary, "not");
    e->parts.push_back(negation());
    --depth_;
    return e;
  }
  ExpressionPtr comparison() {
    ExpressionPtr left = sum();
    for (;;) {
      bool found = false;
      for (const char* op : {"==", "!=", "<=", ">=", "<", ">"})
        if (take(op)) {
          left = binary(op, std::move(left), sum());
          found = true;
          break;
        }
      if (found) continue;
      if (take("in")) {
        left = binary("in", std::move(left), sum());
      } else if (sees("not") && tokens_[at_ + 1].text == "in") {
        at_ += 2;
        left = binary("in", std::move(left), sum());
        left->negated = true;
      } else if (take("is")) {
        auto e = make(Expression::Kind::test);
        e->negated = take("not");
        e->name = name();
        e->parts.push_back(std::move(left));
        left = std::move(e);
      } else {
        return left;
      }
    }
  }
  ExpressionPtr sum() {
    ExpressionPtr left = joined();
    for (;;) {
      if (take("+")) left = binary("+", std::move(left), joined());
      else if (take("-")) left = binary("-", std::move(left), joined());
      else return left;
    }
  }
  ExpressionPtr joined() {
    ExpressionPtr left = product();
    while (take("~")) left = binary("~", std::move(left), product());
    return left;
  }
  ExpressionPtr product() {
    ExpressionPtr left = postfix();
    for (;;) {
      bool found = false;
      for (const char* op : {"*", "//", "/", "%"})
        if (take(op)) {
          left = binary(op, std::move(left), postfix());
          found = true;
          break;
        }
      if (!found) return left;
    }
  }
  void arguments(Expression& e) {
    while (!take(")")) {
      if (tokens_[at_].kind == Token::Kind::name && tokens_[at_ + 1].kind == Token::Kind::symbol && tokens_[at_ + 1].text == "=") {
        std::string key = name();
        expect("=");
        e.keywords.emplace_back(std::move(key), conditional());
      } else {
        e.parts.push_back(conditional());
      }
      if (!sees(")")) expect(",");
    }
  }
  ExpressionPtr postfix() {
    ExpressionPtr left = primary();
    for (;;) {
      if (take(".")) {
        auto e = make(Expression::Kind::attribute, name());
        e->parts.push_back(std::move(left));
        left = std::move(e);
      } else if (take("[")) {
        auto e = make(Expression::Kind::index);
        e->parts.push_back(std::move(left));
        if (!sees(":")) e->parts.push_back(conditional());
        if (sees(":")) {
          e->kind = Expression::Kind::slice;
          if (e->parts.size() == 1) e->parts.push_back(nullptr);
          while (take(":")) e->parts.push_back(sees(":") || sees("]") ? nullptr : conditional());
        }
        expect("]");
        left = std::move(e);
      } else if (take("(")) {
        auto e = make(Expression::Kind::call);
        e->parts.push_back(std::move(left));
        arguments(*e);
        left = std::move(e);
      } else if (take("|")) {
        auto e = make(Expression::Kind::filter, name());
        e->parts.push_back(std::move(left));
        if (take("(")) arguments(*e);
        left = std::move(e);
      } else {
        return left;
      }
    }
  }
  ExpressionPtr literal(Json value) {
    auto e = make(Expression::Kind::literal);
    e->value = std::move(value);
    return e;
  }
  ExpressionPtr primary() {
    const Token token = tokens_[at_];
    if (token.kind == Token::Kind::string) {
      std::string text;
      while (tokens_[at_].kind == Token::Kind::string) text += tokens_[at_++].text;
      return literal(text);
    }
    if (token.kind == Token::Kind::number) {
      ++at_;
      if (token.text.find('.') != std::string::npos) return literal(std::stod(token.text));
      check<ConfigError>(token.text.size() < 18, "chat template: the number ", token.text, " is too large");
      return literal(static_cast<std::int64_t>(std::stoll(token.text)));
    }
    if (take("-")) {
      check<ConfigError>(++depth_ < kMaxDepth, "chat template: expressions are nested too deeply");
      auto e = make(Expression::Kind::unary, "-");
      e->parts.push_back(postfix());
      --depth_;
      return e;
    }
    if (take("(")) {
      ExpressionPtr inner = conditional();
      expect(")");
      return inner;
    }
    if (take("[")) {
      auto e = make(Expression::Kind::list);
      while (!take("]")) {
        e->parts.push_back(conditional());
        if (!sees("]")) expect(",");
      }
      return e;
    }
    if (take("{")) {
      auto e = make(Expression::Kind::dictionary);
      while (!take("}")) {
        check<ConfigError>(tokens_[at_].kind == Token::Kind::string, "chat template: dictionaries need texts as keys in ", code_);
        std::string key = tokens_[at_++].text;
        expect(":");
        e->keywords.emplace_back(std::move(key), conditional());
        if (!sees("}")) expect(",");
      }
      return e;
    }
    if (token.kind == Token::Kind::name) {
      ++at_;
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(nullptr);
      return make(Expression::Kind::name, token.text);
    }
    fail<ConfigError>("chat template: ", token.kind == Token::Kind::end ? "an expression is missing" : "'" + token.text + "' is not supported", " in ", code_);
  }

  std::string_view code_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

/// The template cut into texts and tags, with the white space removed that '-' and the customs of Hugging Face (trim_blocks, lstrip_blocks) remove.
struct Piece {
  enum class Kind { text, output, tag } kind;
  std::string text;
};

std::vector<Piece> cut(std::string_view text) {
  std::vector<Piece> out;
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
    if (!piece.empty()) out.push_back({Piece::Kind::text, std::string(piece)});
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
    if (kind != '#') out.push_back({kind == '{' ? Piece::Kind::output : Piece::Kind::tag, std::string(inside)});
    at = close + 2;
  }
}

class StatementParser {
 public:
  explicit StatementParser(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {}
  std::vector<Statement> parse() {
    return block({});
  }

 private:
  static std::string keyword(const Piece& piece) {
    ExpressionParser parser(piece.text);
    return parser.name();
  }
  std::vector<Statement> block(std::initializer_list<std::string_view> until) {
    check<ConfigError>(++depth_ < kMaxDepth, "chat template: blocks are nested too deeply");
    std::vector<Statement> out;
    for (; at_ < pieces_.size(); ++at_) {
      const Piece& piece = pieces_[at_];
      Statement s;
      if (piece.kind == Piece::Kind::text) {
        s.kind = Statement::Kind::text;
        s.text = piece.text;
      } else if (piece.kind == Piece::Kind::output) {
        s.kind = Statement::Kind::output;
        ExpressionParser parser(piece.text);
        s.expression = parser.parse();
        parser.end();
      } else {
        const std::string word = keyword(piece);
        for (const std::string_view stop : until)
          if (word == stop) {
            --depth_;
            return out;
          }
        s = tag(word);
      }
      out.push_back(std::move(s));
    }
    check<ConfigError>(until.size() == 0, "chat template: a block without its {% ", until.size() == 0 ? "" : *(until.end() - 1), " %}");
    --depth_;
    return out;
  }
  Statement tag(const std::string& word) {
    Statement s;
    ExpressionParser parser(pieces_[at_].text);
    parser.name();
    if (word == "for") {
      s.kind = Statement::Kind::loop;
      do s.variables.push_back(parser.name());
      while (parser.take(","));
      parser.expect("in");
      s.expression = parser.parse_without_condition();
      if (parser.take("if")) s.filter = parser.parse();
      parser.end();
      ++at_;
      s.body = block({"else", "endfor"});
      if (keyword(pieces_[at_]) == "else") {
        ++at_;
        s.otherwise = block({"endfor"});
      }
    } else if (word == "if") {
      s.kind = Statement::Kind::condition;
      ExpressionPtr condition = parser.parse();
      parser.end();
      for (;;) {
        ++at_;
        const bool last = condition == nullptr;
        std::vector<Statement> body = last ? block({"endif"}) : block({"elif", "else", "endif"});
        s.branches.emplace_back(std::move(condition), std::move(body));
        const std::string next = keyword(pieces_[at_]);
        if (next == "endif") break;
        if (next == "elif") {
          ExpressionParser again(pieces_[at_].text);
          again.name();
          condition = again.parse();
          again.end();
        } else {
          condition = nullptr;
        }
      }
    } else if (word == "set") {
      s.kind = Statement::Kind::assignment;
      s.text = parser.name();
      if (parser.take(".")) s.attribute = parser.name();
      parser.expect("=");
      s.expression = parser.parse();
      parser.end();
    } else if (word == "generation" || word == "endgeneration") {  // what transformers takes for its training masks
      s.kind = word == "generation" ? Statement::Kind::mark_begin : Statement::Kind::mark_end;
      parser.end();
    } else if (word == "break" || word == "continue") {
      s.kind = word == "break" ? Statement::Kind::leave : Statement::Kind::next;
      parser.end();
    } else {
      fail<ConfigError>("chat template: {% ", word, " %} is not supported");
    }
    return s;
  }

  std::vector<Piece> pieces_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<Statement> parse_template(std::string_view text) {
  // As Jinja reads it: one kind of line end, and the last one left out.
  std::string lines;
  lines.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    lines += text[i] == '\r' ? '\n' : text[i];
  }
  if (lines.ends_with('\n')) lines.pop_back();
  return StatementParser(cut(lines)).parse();
}

}  // namespace cambium::detail
