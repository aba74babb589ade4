// Statements and expressions of chat templates.
#include "nn/text/template_interpreter.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

constexpr std::int64_t kMaxSteps = 1'000'000;
constexpr std::size_t kMaxBytes = std::size_t{16} << 20;
constexpr int kMaxValueDepth = 64;

std::vector<std::string> characters_of(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = decode_utf8(text, at).size;
    out.emplace_back(text.substr(at, size));
    at += size;
  }
  return out;
}

}  // namespace

const Json& undefined_value() {
  static const Json value(Json::value_t::discarded);
  return value;
}

bool is_truthy(const Json& value) {
  if (is_undefined(value) || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  return value.is_string() ? !text_in(value).empty() : !value.empty();
}

const char* kind_of(const Json& value) { return is_undefined(value) ? "something undefined" : value.type_name(); }

Json member_of_value(const Json& object, const Json& key) {
  check<ConfigError>(!is_undefined(object), "chat template: a member of something undefined");
  if (object.is_object() && key.is_string()) {
    const auto found = object.find(text_in(key));
    return found == object.end() ? undefined_value() : *found;
  }
  if ((!object.is_array() && !object.is_string()) || !key.is_number_integer()) return undefined_value();
  const auto characters = object.is_string() ? characters_of(text_in(object)) : std::vector<std::string>();
  const auto size = static_cast<std::int64_t>(object.is_string() ? characters.size() : object.size());
  const std::int64_t given = key.get<std::int64_t>(), i = given < 0 ? given + size : given;
  if (i < 0 || i >= size) return undefined_value();
  return object.is_string() ? Json(characters[static_cast<std::size_t>(i)]) : object[static_cast<std::size_t>(i)];
}

void TemplateInterpreter::charge_bytes(std::size_t bytes) {
  check<ConfigError>(bytes <= kMaxBytes, "chat template: a text of more than 16 MiB");
  steps_ += 1 + static_cast<std::int64_t>(bytes / 256);
  check<ConfigError>(steps_ <= kMaxSteps, "chat template: more than ", kMaxSteps, " steps");
}

void TemplateInterpreter::charge(const Json& value, int depth) {
  check<ConfigError>(depth <= kMaxValueDepth, "chat template: values are nested too deeply");
  charge_bytes(value.is_string() ? text_in(value).size() : 0);
  if (value.is_structured()) {
    for (const Json& item : value) charge(item, depth + 1);
  }
}

void TemplateInterpreter::put(const std::string& text) {
  charge_bytes(text.size());
  check<ConfigError>(out_.size() + text.size() <= kMaxBytes, "chat template: more than 16 MiB of output");
  out_ += text;
}

TemplateInterpreter::Flow TemplateInterpreter::block(const std::vector<Statement>& statements) {
  using Kind = Statement::Kind;
  for (const Statement& statement : statements) {
    charge_bytes(0);
    switch (statement.kind) {
      case Kind::text: put(statement.text); break;
      case Kind::output: put(printed(value(*statement.expression))); break;
      case Kind::assignment: assign(statement); break;
      case Kind::loop: loop(statement); break;
      case Kind::mark_begin: mark_ = out_.size(); break;
      case Kind::mark_end: marked_.emplace_back(mark_, out_.size()); break;
      case Kind::leave:
      case Kind::next:
        check<ConfigError>(loops_ > 0, "chat template: break or continue outside of a loop");
        return statement.kind == Kind::leave ? Flow::leave : Flow::next;
      case Kind::condition:
        for (const auto& branch : statement.branches) {
          if (branch.first && !is_truthy(value(*branch.first))) continue;
          if (const Flow flow = block(branch.second); flow != Flow::on) return flow;
          break;
        }
        break;
    }
  }
  return Flow::on;
}

void TemplateInterpreter::assign(const Statement& statement) {
  Json assigned = value(*statement.expression);
  if (statement.attribute.empty()) {
    scopes_.back()[statement.text] = std::move(assigned);
    return;
  }
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(statement.text);
    if (found == scope->end()) continue;
    check<ConfigError>(found->second.is_object(), "chat template: '", statement.text, "' is no namespace");
    if (is_undefined(assigned)) assigned = nullptr;
    found->second[statement.attribute] = std::move(assigned);
    return;
  }
  fail<ConfigError>("chat template: '", statement.text, "' is not defined");
}

std::vector<Json> TemplateInterpreter::loop_items(const Statement& statement) {
  const Json sequence = value(*statement.expression);
  std::vector<Json> items;
  if (is_undefined(sequence)) return items;
  check<ConfigError>(sequence.is_structured() || sequence.is_string(), "chat template: a loop over ", kind_of(sequence));
  if (sequence.is_string()) {
    for (const std::string& character : characters_of(text_in(sequence))) items.emplace_back(character);
  } else if (sequence.is_object()) {
    for (const auto& entry : sequence.items()) items.emplace_back(entry.key());
  } else {
    items.assign(sequence.begin(), sequence.end());
  }
  if (!statement.filter) return items;
  std::vector<Json> kept;
  for (Json& item : items) {
    scopes_.emplace_back();
    bind(statement, item);
    if (is_truthy(value(*statement.filter))) kept.push_back(std::move(item));
    scopes_.pop_back();
  }
  return kept;
}

void TemplateInterpreter::bind(const Statement& statement, const Json& item) {
  auto& scope = scopes_.back();
  charge(item);
  if (statement.variables.size() == 1) {
    scope[statement.variables.front()] = item;
    return;
  }
  check<ConfigError>(item.is_array() && item.size() == statement.variables.size(), "chat template: a loop over ", statement.variables.size(),
                     " variables needs lists of that length");
  for (std::size_t i = 0; i < item.size(); ++i) scope[statement.variables[i]] = item[i];
}

void TemplateInterpreter::loop(const Statement& statement) {
  const std::vector<Json> items = loop_items(statement);
  if (items.empty()) {
    block(statement.otherwise);
    return;
  }
  const auto count = static_cast<std::int64_t>(items.size());
  ++loops_;
  for (std::int64_t i = 0; i < count; ++i) {
    scopes_.emplace_back();
    bind(statement, items[static_cast<std::size_t>(i)]);
    const auto beside = [&](std::int64_t other) {
      if (other < 0 || other >= count) return undefined_value();
      charge(items[static_cast<std::size_t>(other)]);
      return items[static_cast<std::size_t>(other)];
    };
    Json state{{"index0", i}, {"index", i + 1}, {"first", i == 0}, {"last", i + 1 == count}, {"length", count}, {"revindex", count - i}, {"revindex0", count - i - 1}};
    state["previtem"] = beside(i - 1);
    state["nextitem"] = beside(i + 1);
    scopes_.back()["loop"] = std::move(state);
    const Flow flow = block(statement.body);
    scopes_.pop_back();
    if (flow == Flow::leave) break;
  }
  --loops_;
}

const Json* TemplateInterpreter::place(const Expression& e) {
  using Kind = Expression::Kind;
  if (e.kind == Kind::name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto found = scope->find(e.name); found != scope->end()) return &found->second;
    }
    return &undefined_value();
  }
  if (e.kind != Kind::attribute && e.kind != Kind::index) return nullptr;
  const Json* object = place(*e.parts[0]);
  if (!object || is_undefined(*object)) return nullptr;
  const Json key = e.kind == Kind::attribute ? Json(e.name) : value(*e.parts[1]);
  if (object->is_object() && key.is_string()) {
    const auto found = object->find(text_in(key));
    return found == object->end() ? &undefined_value() : &*found;
  }
  if (!object->is_array() || !key.is_number_integer()) return nullptr;
  const auto size = static_cast<std::int64_t>(object->size());
  const std::int64_t given = key.get<std::int64_t>(), i = given < 0 ? given + size : given;
  return i < 0 || i >= size ? &undefined_value() : &(*object)[static_cast<std::size_t>(i)];
}

Json TemplateInterpreter::value(const Expression& e) {
  Json result = evaluate(e);
  charge(result);
  return result;
}

Json TemplateInterpreter::defined(const Expression& e) {
  Json result = value(e);
  return is_undefined(result) ? Json(nullptr) : result;
}

Json TemplateInterpreter::evaluate(const Expression& e) {
  using Kind = Expression::Kind;
  charge_bytes(0);
  switch (e.kind) {
    case Kind::literal: return e.value;
    case Kind::list: {
      Json list = Json::array();
      for (const auto& part : e.parts) list.push_back(defined(*part));
      return list;
    }
    case Kind::dictionary: {
      Json object = Json::object();
      for (const auto& entry : e.keywords) object[entry.first] = defined(*entry.second);
      return object;
    }
    case Kind::name:
    case Kind::attribute:
    case Kind::index:
      if (const Json* found = place(e)) {
        charge(*found);  // before the copy
        return *found;
      }
      return member_of_value(value(*e.parts[0]), e.kind == Kind::attribute ? Json(e.name) : value(*e.parts[1]));
    case Kind::slice: return slice(e);
    case Kind::call: return call(e);
    case Kind::filter: return filter(e);
    case Kind::test: return test(e) != e.negated;
    case Kind::unary: return unary(e);
    case Kind::binary: return binary(e);
    case Kind::conditional:
      if (is_truthy(value(*e.parts[0]))) return value(*e.parts[1]);
      return e.parts[2] ? value(*e.parts[2]) : undefined_value();
  }
  return undefined_value();
}

Json TemplateInterpreter::unary(const Expression& e) {
  const Json operand = value(*e.parts[0]);
  if (e.name == "not") return !is_truthy(operand);
  check<ConfigError>(operand.is_number(), "chat template: '-' needs a number, found ", kind_of(operand));
  return arithmetic("-", Json(std::int64_t{0}), operand);
}

Json TemplateInterpreter::slice(const Expression& e) {
  const Json whole = value(*e.parts[0]);
  check<ConfigError>(whole.is_array() || whole.is_string(), "chat template: a slice of ", kind_of(whole));
  const auto characters = whole.is_string() ? characters_of(text_in(whole)) : std::vector<std::string>();
  const auto size = static_cast<std::int64_t>(whole.is_string() ? characters.size() : whole.size());
  const auto given = [&](std::size_t i) { return i < e.parts.size() && e.parts[i]; };
  const std::int64_t step = given(3) ? integer(*e.parts[3], "the step of a slice") : 1;
  check<ConfigError>(step == 1 || step == -1, "chat template: slices have step 1 or -1, found ", step);
  const std::int64_t low = step == 1 ? 0 : -1, high = step == 1 ? size : size - 1;
  const auto bound = [&](std::size_t i, std::int64_t otherwise) {
    if (!given(i)) return otherwise;
    const std::int64_t at = integer(*e.parts[i], "the bound of a slice");
    return std::clamp(at < 0 ? at + size : at, low, high);
  };
  const std::int64_t begin = bound(1, step == 1 ? 0 : size - 1), end = bound(2, step == 1 ? size : -1);
  Json list = Json::array();
  std::string text;
  for (std::int64_t i = begin; step == 1 ? i < end : i > end; i += step) {
    if (whole.is_string()) text += characters[static_cast<std::size_t>(i)];
    else list.push_back(whole[static_cast<std::size_t>(i)]);
  }
  return whole.is_string() ? Json(text) : list;
}

bool TemplateInterpreter::contains(const Json& all, const Json& item) {
  if (is_undefined(all)) return false;
  if (all.is_string()) {
    check<ConfigError>(item.is_string(), "chat template: 'in' a text needs a text, found ", kind_of(item));
    return text_in(all).find(text_in(item)) != std::string::npos;
  }
  if (all.is_object()) return item.is_string() && all.contains(text_in(item));
  check<ConfigError>(all.is_array(), "chat template: 'in' needs a text, a list or a dictionary, found ", kind_of(all));
  return std::find(all.begin(), all.end(), item) != all.end();
}

Json TemplateInterpreter::binary(const Expression& e) {
  const std::string& name = e.name;
  Json a = value(*e.parts[0]);
  if (name == "and" || name == "or") return is_truthy(a) == (name == "and") ? value(*e.parts[1]) : a;
  const Json b = value(*e.parts[1]);
  if (name == "==" || name == "!=") {
    const bool equal = is_undefined(a) || is_undefined(b) ? is_undefined(a) && is_undefined(b) : a == b;
    return equal == (name == "==");
  }
  if (name == "~") return printed(a) + printed(b);
  if (name == "in") return contains(b, a) != e.negated;
  if (name == "+" && a.is_string() && b.is_string()) return text_in(a) + text_in(b);
  if (name == "+" && a.is_array() && b.is_array()) {
    for (const Json& item : b) a.push_back(item);
    return a;
  }
  if (a.is_string() && b.is_string() && (name[0] == '<' || name[0] == '>')) {
    const int order = text_in(a).compare(text_in(b));
    return name == "<" ? order < 0 : name == "<=" ? order <= 0 : name == ">" ? order > 0 : order >= 0;
  }
  return arithmetic(name, a, b);
}

Json TemplateInterpreter::arithmetic(const std::string& name, const Json& a, const Json& b) {
  check<ConfigError>(a.is_number() && b.is_number(), "chat template: '", name, "' of ", kind_of(a), " and ", kind_of(b));
  const double x = a.get<double>(), y = b.get<double>();
  if (name == "<") return x < y;
  if (name == "<=") return x <= y;
  if (name == ">") return x > y;
  if (name == ">=") return x >= y;
  check<ConfigError>(name == "+" || name == "-" || name == "*" || y != 0, "chat template: division by zero");
  if (name == "/") return x / y;
  const double result = name == "+" ? x + y : name == "-" ? x - y : name == "*" ? x * y : name == "//" ? std::floor(x / y) : x - std::floor(x / y) * y;
  if (!a.is_number_integer() || !b.is_number_integer()) return result;
  check<ConfigError>(std::abs(result) < 9e15, "chat template: a number of more than 2^53");
  return static_cast<std::int64_t>(result);
}

}  // namespace cambium::detail
