// Recursive-descent parser of the template subset.
#include "nn/text/template_syntax.h"

#include <array>

#include "kernels/error.h"
#include "nn/text/template_lexer.h"

namespace cambium::detail {

namespace {

constexpr int kMaxDepth = 100;

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
  bool sees(std::string_view text) const { return (tokens_[at_].kind == TemplateToken::Kind::symbol || tokens_[at_].kind == TemplateToken::Kind::name) && tokens_[at_].text == text; }
  void expect(std::string_view text) {
    if (!take(text)) fail<ConfigError>("chat template: expected '", text, "' in {% ", code_, " %}");
  }
  std::string name() {
    check<ConfigError>(tokens_[at_].kind == TemplateToken::Kind::name, "chat template: expected a name in {% ", code_, " %}");
    return tokens_[at_++].text;
  }
  void end() const { check<ConfigError>(tokens_[at_].kind == TemplateToken::Kind::end, "chat template: '", tokens_[at_].text, "' is not supported in ", code_); }

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
      if (tokens_[at_].kind == TemplateToken::Kind::name && tokens_[at_ + 1].kind == TemplateToken::Kind::symbol && tokens_[at_ + 1].text == "=") {
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
    const TemplateToken token = tokens_[at_];
    if (token.kind == TemplateToken::Kind::string) {
      std::string text;
      while (tokens_[at_].kind == TemplateToken::Kind::string) text += tokens_[at_++].text;
      return literal(text);
    }
    if (token.kind == TemplateToken::Kind::number) {
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
        check<ConfigError>(tokens_[at_].kind == TemplateToken::Kind::string, "chat template: dictionaries need texts as keys in ", code_);
        std::string key = tokens_[at_++].text;
        expect(":");
        e->keywords.emplace_back(std::move(key), conditional());
        if (!sees("}")) expect(",");
      }
      return e;
    }
    if (token.kind == TemplateToken::Kind::name) {
      ++at_;
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(nullptr);
      return make(Expression::Kind::name, token.text);
    }
    fail<ConfigError>("chat template: ", token.kind == TemplateToken::Kind::end ? "an expression is missing" : "'" + token.text + "' is not supported", " in ", code_);
  }

  std::string_view code_;
  std::vector<TemplateToken> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

class StatementParser {
 public:
  explicit StatementParser(std::vector<TemplatePiece> pieces) : pieces_(std::move(pieces)) {}
  std::vector<Statement> parse() {
    return block({});
  }

 private:
  static std::string keyword(const TemplatePiece& piece) {
    ExpressionParser parser(piece.text);
    return parser.name();
  }
  std::vector<Statement> block(std::initializer_list<std::string_view> until) {
    check<ConfigError>(++depth_ < kMaxDepth, "chat template: blocks are nested too deeply");
    std::vector<Statement> out;
    for (; at_ < pieces_.size(); ++at_) {
      const TemplatePiece& piece = pieces_[at_];
      Statement s;
      if (piece.kind == TemplatePiece::Kind::text) {
        s.kind = Statement::Kind::text;
        s.text = piece.text;
      } else if (piece.kind == TemplatePiece::Kind::output) {
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

  std::vector<TemplatePiece> pieces_;
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
