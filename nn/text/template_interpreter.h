// Runs the syntax tree of a chat template under limits on steps, sizes and depth. Internal: not installed.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/text/template_syntax.h"

namespace cambium::detail {

/// Values are JSON; `undefined` is one of its own kind.
const Json& undefined_value();
inline bool is_undefined(const Json& value) { return value.is_discarded(); }
inline const std::string& text_in(const Json& value) { return value.get_ref<const std::string&>(); }
bool is_truthy(const Json& value);
/// As Python prints it.
std::string printed(const Json& value);
const char* kind_of(const Json& value);

class TemplateInterpreter {
 public:
  TemplateInterpreter() { scopes_.emplace_back(); }
  void set(const std::string& name, Json value) { scopes_.front()[name] = std::move(value); }
  void run(const std::vector<Statement>& program) { block(program); }
  const std::string& text() const { return out_; }
  /// What stands between {% generation %} and {% endgeneration %}.
  const std::vector<std::pair<std::size_t, std::size_t>>& marked() const { return marked_; }

 private:
  enum class Flow : std::uint8_t { on, leave, next };

  /// Counts what making a value costs. ConfigError above a million steps, one for each 256 bytes, and for values nested deeper than 64.
  void charge(const Json& value, int depth = 0);
  void charge_bytes(std::size_t bytes);
  Flow block(const std::vector<Statement>& statements);
  void put(const std::string& text);
  void assign(const Statement& statement);
  void loop(const Statement& statement);
  std::vector<Json> loop_items(const Statement& statement);
  void bind(const Statement& statement, const Json& item);

  Json value(const Expression& e);
  Json evaluate(const Expression& e);
  /// The place of a value that is only names, members and indices, so that looking at one message does not copy them all.
  const Json* place(const Expression& e);
  Json defined(const Expression& e);
  Json slice(const Expression& e);
  Json unary(const Expression& e);
  Json binary(const Expression& e);
  Json arithmetic(const std::string& name, const Json& a, const Json& b);
  bool contains(const Json& all, const Json& item);

  // template_functions.cpp
  Json call(const Expression& e);
  Json method(const Json& object, const Expression& e);
  Json filter(const Expression& e);
  Json select(const Json& list, const Expression& e, bool keep);
  Json map(const Json& list, const Expression& e);
  bool test(const Expression& e);
  Json range(const Expression& e);
  Json split(const std::string& text, const Expression& e);
  std::string replaced(const std::string& text, const Expression& e);
  std::string text_argument(const Expression& e, std::size_t i, const char* otherwise = nullptr);
  std::int64_t integer(const Expression& e, const char* what);

  std::vector<std::unordered_map<std::string, Json>> scopes_;
  std::string out_;
  std::vector<std::pair<std::size_t, std::size_t>> marked_;
  std::size_t mark_ = 0;
  std::int64_t steps_ = 0;
  int loops_ = 0;
};

/// Of a list or text (by characters) at `index`, which may count from the end; of an object by name. `undefined` if there is none.
Json member_of_value(const Json& object, const Json& key);

}  // namespace cambium::detail
