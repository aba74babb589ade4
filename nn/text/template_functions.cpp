// Filters, tests, functions and methods that chat templates may use, as Jinja and Python define them.
#include <algorithm>

#include "kernels/error.h"
#include "nn/text/template_interpreter.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

// json.dumps: blanks after separators, letters as they are.
std::string python_json(const Json& value) {
  std::string out;
  if (value.is_array()) {
    for (const Json& item : value) (out += out.empty() ? "" : ", ") += python_json(item);
    return "[" + out + "]";
  }
  if (value.is_object()) {
    for (const auto& entry : value.items()) (out += out.empty() ? "" : ", ") += Json(entry.key()).dump() + ": " + python_json(entry.value());
    return "{" + out + "}";
  }
  return is_undefined(value) ? "null" : value.dump();
}

// repr of Python, for values within lists.
std::string python_repr(const Json& value) {
  std::string out;
  if (value.is_string()) {
    const char quote = text_in(value).find('\'') != std::string::npos && text_in(value).find('"') == std::string::npos ? '"' : '\'';
    for (const char c : text_in(value)) {
      if (c == quote || c == '\\') out += '\\';
      if (c == '\n') out += "\\n";
      else if (c == '\t') out += "\\t";
      else if (c == '\r') out += "\\r";
      else out += c;
    }
    return quote + out + quote;
  }
  if (value.is_array()) {
    for (const Json& item : value) (out += out.empty() ? "" : ", ") += python_repr(item);
    return "[" + out + "]";
  }
  if (value.is_object()) {
    for (const auto& entry : value.items()) (out += out.empty() ? "" : ", ") += python_repr(entry.key()) + ": " + python_repr(entry.value());
    return "{" + out + "}";
  }
  return printed(value);
}

std::string stripped(std::string_view text, const std::string* characters, bool left, bool right) {
  if (!characters) return std::string(trim_white_space(text, left, right));
  const auto belongs = [&](char32_t c) {
    for (std::size_t at = 0; at < characters->size();) {
      if (next_character(*characters, at) == c) return true;
    }
    return false;
  };
  std::size_t begin = 0, end = text.size();
  for (std::size_t at = 0; left && begin < end && belongs(next_character(text, at));) begin = at;
  for (std::size_t at = end; right && begin < end && belongs(previous_character(text, at));) end = at;
  return std::string(text.substr(begin, end - begin));
}

// Large first letters: of every word, or of the text alone.
std::string capitalized(std::string_view text, bool words) {
  std::string out;
  bool start = true;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = next_character(text, at);
    const std::string_view letter = text.substr(begin, at - begin);
    out += start ? to_upper_case(letter) : to_lower_case(letter);
    start = words && (!is_word_character(c) || is_numeric(c) || c == '_');
  }
  return out;
}

Json pairs_of(const Json& object) {
  Json out = Json::array();
  for (const auto& entry : object.items()) out.push_back(Json::array({entry.key(), entry.value()}));
  return out;
}

}  // namespace

std::string printed(const Json& value) {
  if (is_undefined(value)) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_null()) return "None";
  return value.is_structured() ? python_repr(value) : value.dump();
}

std::string TemplateInterpreter::text_argument(const Expression& e, std::size_t i, const char* otherwise) {
  if (i >= e.parts.size()) {
    check<ConfigError>(otherwise != nullptr, "chat template: an argument is missing");
    return otherwise;
  }
  const Json given = value(*e.parts[i]);
  check<ConfigError>(given.is_string(), "chat template: expected a text as argument, found ", kind_of(given));
  return given.get<std::string>();
}

std::int64_t TemplateInterpreter::integer(const Expression& e, const char* what) {
  const Json given = value(e);
  check<ConfigError>(given.is_number_integer() && given.get<double>() > -1e9 && given.get<double>() < 1e9, "chat template: ", what, ": expected an integer of at most nine digits, found ",
                     kind_of(given));
  return given.get<std::int64_t>();
}

bool TemplateInterpreter::test(const Expression& e) {
  const Json v = value(*e.parts[0]);
  const std::string& name = e.name;
  if (name == "defined") return !is_undefined(v);
  if (name == "undefined") return is_undefined(v);
  if (name == "none") return v.is_null() && !is_undefined(v);
  if (name == "string") return v.is_string();
  if (name == "mapping") return v.is_object();
  if (name == "sequence" || name == "iterable") return v.is_structured() || v.is_string() || is_undefined(v);
  if (name == "number") return v.is_number() || v.is_boolean();
  if (name == "integer") return v.is_number_integer();
  if (name == "float") return v.is_number_float();
  if (name == "boolean") return v.is_boolean();
  if (name == "true") return v.is_boolean() && v.get<bool>();
  if (name == "false") return v.is_boolean() && !v.get<bool>();
  if (name == "even" || name == "odd") {
    check<ConfigError>(v.is_number_integer(), "chat template: 'is ", name, "' needs an integer, found ", kind_of(v));
    return (v.get<std::int64_t>() % 2 == 0) == (name == "even");
  }
  fail<ConfigError>("chat template: the test 'is ", name, "' is not supported");
}

Json TemplateInterpreter::select(const Json& list, const Expression& e, bool keep) {
  check<ConfigError>(list.is_array(), "chat template: the filter '", e.name, "' needs a list, found ", kind_of(list));
  const std::string key = text_argument(e, 1), how = text_argument(e, 2, "truthy");
  const bool compares = how == "equalto" || how == "==" || how == "eq", differs = how == "ne" || how == "!=";
  check<ConfigError>(compares || differs || how == "truthy" || how == "defined", "chat template: the test '", how, "' in the filter '", e.name, "' is not supported");
  check<ConfigError>(!(compares || differs) || e.parts.size() == 4, "chat template: the filter '", e.name, "' needs a value to compare with");
  const Json wanted = compares || differs ? value(*e.parts[3]) : Json();
  Json out = Json::array();
  for (const Json& item : list) {
    const Json found = member_of_value(item, Json(key));
    const bool hit = compares ? !is_undefined(found) && found == wanted : differs ? is_undefined(found) || found != wanted : how == "defined" ? !is_undefined(found) : is_truthy(found);
    if (hit == keep) out.push_back(item);
  }
  return out;
}

Json TemplateInterpreter::map(const Json& list, const Expression& e) {
  check<ConfigError>(list.is_array() && e.keywords.size() == 1 && e.keywords[0].first == "attribute" && e.parts.size() == 1,
                     "chat template: the filter 'map' is supported as map(attribute='…') of a list");
  const Json key = value(*e.keywords[0].second);
  Json out = Json::array();
  for (const Json& item : list) {
    Json found = member_of_value(item, key);
    out.push_back(is_undefined(found) ? Json(nullptr) : std::move(found));
  }
  return out;
}

Json TemplateInterpreter::filter(const Expression& e) {
  const Json v = value(*e.parts[0]);
  const std::string& name = e.name;
  const bool takes_keywords = name == "tojson" || name == "map";
  check<ConfigError>(takes_keywords || e.keywords.empty(), "chat template: named arguments of the filter '", name, "' are not supported");
  if (name == "default" || name == "d") {
    const bool empty_too = e.parts.size() > 2 && is_truthy(value(*e.parts[2]));
    if (!is_undefined(v) && !(empty_too && !is_truthy(v))) return v;
    return e.parts.size() > 1 ? value(*e.parts[1]) : Json("");
  }
  if (name == "tojson") {
    std::int64_t indent = 0;
    for (const auto& keyword : e.keywords) {
      check<ConfigError>(keyword.first == "indent", "chat template: the argument '", keyword.first, "' of the filter 'tojson' is not supported");
      indent = std::clamp<std::int64_t>(integer(*keyword.second, "indent"), 0, 16);
    }
    return indent > 0 && !is_undefined(v) ? v.dump(static_cast<int>(indent)) : python_json(v);
  }
  if (name == "map") return map(v, e);
  if (name == "selectattr" || name == "rejectattr") return select(v, e, name == "selectattr");
  if (name == "length" || name == "count") {
    check<ConfigError>(v.is_structured() || v.is_string(), "chat template: the length of ", kind_of(v));
    return static_cast<std::int64_t>(v.is_string() ? count_characters(text_in(v)) : v.size());
  }
  if (name == "trim") {
    const std::string characters = e.parts.size() > 1 ? text_argument(e, 1) : std::string();
    return stripped(printed(v), e.parts.size() > 1 ? &characters : nullptr, true, true);
  }
  if (name == "upper") return to_upper_case(printed(v));
  if (name == "lower") return to_lower_case(printed(v));
  if (name == "title") return capitalized(printed(v), true);
  if (name == "capitalize") return capitalized(printed(v), false);
  if (name == "string") return printed(v);
  if (name == "replace") return replaced(printed(v), e);
  if (name == "list" && (v.is_array() || is_undefined(v))) return is_undefined(v) ? Json::array() : v;
  if (name == "int" && v.is_number()) return static_cast<std::int64_t>(std::clamp(v.get<double>(), -9e15, 9e15));
  if (name == "first" && v.is_array()) return v.empty() ? undefined_value() : v.front();
  if (name == "last" && v.is_array()) return v.empty() ? undefined_value() : v.back();
  if (name == "items" && v.is_object()) return pairs_of(v);
  if (name == "join" && v.is_array()) {
    const std::string between = text_argument(e, 1, "");
    std::string out;
    for (std::size_t i = 0; i < v.size(); ++i) {
      charge_bytes(out.size() / 64 + between.size());
      out += (i ? between : "") + printed(v[i]);
    }
    return out;
  }
  fail<ConfigError>("chat template: the filter '", name, "' of ", kind_of(v), " is not supported");
}

std::string TemplateInterpreter::replaced(const std::string& text, const Expression& e) {
  check<ConfigError>(e.parts.size() == 3, "chat template: replace needs two texts");
  const std::string from = text_argument(e, 1), to = text_argument(e, 2);
  check<ConfigError>(!from.empty(), "chat template: replace of an empty text");
  std::string out;
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
    charge_bytes(to.size());
    out.append(text, at, found - at) += to;
  }
  return out.append(text, at);
}

Json TemplateInterpreter::split(const std::string& text, const Expression& e) {
  Json out = Json::array();
  if (e.parts.size() < 2) {  // at white space, leaving out what is empty
    for (std::string_view rest = trim_white_space(text); !rest.empty(); rest = trim_white_space(rest)) {
      std::size_t end = 0, at = 0;
      while (at < rest.size() && !is_white_space(next_character(rest, at))) end = at;
      out.push_back(std::string(rest.substr(0, end)));
      rest.remove_prefix(end);
    }
    return out;
  }
  const std::string separator = text_argument(e, 1);
  check<ConfigError>(!separator.empty(), "chat template: split by an empty text");
  std::int64_t left = e.parts.size() > 2 ? integer(*e.parts[2], "split") : -1;
  std::size_t at = 0;
  for (std::size_t found; left-- != 0 && (found = text.find(separator, at)) != std::string::npos; at = found + separator.size()) {
    charge_bytes(found - at);
    out.push_back(text.substr(at, found - at));
  }
  out.push_back(text.substr(at));
  return out;
}

Json TemplateInterpreter::range(const Expression& e) {
  check<ConfigError>(e.parts.size() == 2 || e.parts.size() == 3, "chat template: range takes one or two numbers");
  const std::int64_t first = e.parts.size() == 3 ? integer(*e.parts[1], "range") : 0, end = integer(*e.parts.back(), "range");
  Json out = Json::array();
  for (std::int64_t i = first; i < end; ++i) {
    charge_bytes(0);
    out.push_back(i);
  }
  return out;
}

Json TemplateInterpreter::call(const Expression& e) {
  const Expression& callee = *e.parts[0];
  if (callee.kind == Expression::Kind::attribute) return method(value(*callee.parts[0]), e);
  check<ConfigError>(callee.kind == Expression::Kind::name, "chat template: this call is not supported");
  if (callee.name == "raise_exception") fail<ConfigError>("chat template: ", text_argument(e, 1, "the conversation is refused"));
  if (callee.name == "range") return range(e);
  if (callee.name == "namespace" || callee.name == "dict") {
    check<ConfigError>(e.parts.size() == 1, "chat template: ", callee.name, " takes named arguments");
    Json object = Json::object();
    for (const auto& entry : e.keywords) object[entry.first] = defined(*entry.second);
    return object;
  }
  fail<ConfigError>("chat template: the function '", callee.name, "' is not supported");
}

Json TemplateInterpreter::method(const Json& object, const Expression& e) {
  const std::string& name = e.parts[0]->name;
  check<ConfigError>(e.keywords.empty(), "chat template: named arguments of the method '", name, "' are not supported");
  if (object.is_object() && name == "items") return pairs_of(object);
  if (object.is_object() && name == "get") {
    const Json found = member_of_value(object, Json(text_argument(e, 1)));
    return !is_undefined(found) ? found : e.parts.size() > 2 ? value(*e.parts[2]) : Json(nullptr);
  }
  check<ConfigError>(object.is_string(), "chat template: the method '", name, "' of ", kind_of(object), " is not supported");
  const std::string& text = text_in(object);
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const std::string characters = e.parts.size() > 1 ? text_argument(e, 1) : std::string();
    return stripped(text, e.parts.size() > 1 ? &characters : nullptr, name != "rstrip", name != "lstrip");
  }
  if (name == "startswith") return text.starts_with(text_argument(e, 1));
  if (name == "endswith") return text.ends_with(text_argument(e, 1));
  if (name == "upper") return to_upper_case(text);
  if (name == "lower") return to_lower_case(text);
  if (name == "title") return capitalized(text, true);
  if (name == "capitalize") return capitalized(text, false);
  if (name == "replace") return replaced(text, e);
  if (name == "split") return split(text, e);
  fail<ConfigError>("chat template: the method '", name, "' is not supported");
}

}  // namespace cambium::detail
