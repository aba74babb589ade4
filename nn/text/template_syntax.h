// The syntax tree of a chat template, and its parser. Internal: not installed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/json.h"

namespace cambium::detail {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind { literal, name, list, dictionary, attribute, index, slice, call, filter, test, unary, binary, conditional };
  Kind kind;
  Json value;                 ///< literal
  std::string name;           ///< name, attribute, filter, test, operator
  std::vector<ExpressionPtr> parts;  ///< operands; null where a slice leaves a bound out
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;  ///< named arguments, entries of a dictionary by literal key
  bool negated = false;       ///< "is not", "not in"
};

struct Statement {
  enum class Kind { text, output, loop, condition, assignment, leave, next, mark_begin, mark_end };
  Kind kind;
  std::string text;                      ///< text; variable of a loop or an assignment
  std::string attribute;                 ///< of a namespace that is assigned to
  std::vector<std::string> variables;    ///< of a loop
  ExpressionPtr expression;              ///< output, sequence of a loop, value
  ExpressionPtr filter;                  ///< of a loop, or null
  std::vector<std::pair<ExpressionPtr, std::vector<Statement>>> branches;  ///< condition: the last may have no expression
  std::vector<Statement> body, otherwise;  ///< of a loop; `otherwise` runs if nothing was to loop over
};

/// ConfigError naming what is outside the subset.
std::vector<Statement> parse_template(std::string_view text);

}  // namespace cambium::detail
