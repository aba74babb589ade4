// Running a chat template with limits on steps and output.
#include "nn/text/chat_template.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "nn/text/template_syntax.h"
#include "nn/text/tokenizer.h"

namespace cambium {

namespace {

using detail::Expression;
using detail::Statement;

constexpr std::int64_t kMaxSteps = 1'000'000;
constexpr std::size_t kMaxOutput = std::size_t{16} << 20;

const Json kUndefined = Json(Json::value_t::discarded);
bool undefined(const Json& v) { return v.is_discarded(); }

bool truthy(const Json& v) {
  if (undefined(v) || v.is_null()) return false;
  if (v.is_boolean()) return v.get<bool>();
  if (v.is_number()) return v.get<double>() != 0;
  return v.is_string() ? !v.get_ref<const std::string&>().empty() : !v.empty();
}

std::string text_of(const Json& v) {
  if (undefined(v)) return "";
  if (v.is_string()) return v.get<std::string>();
  if (v.is_boolean()) return v.get<bool>() ? "True" : "False";
  if (v.is_null()) return "None";
  return v.dump();
}

/// json.dumps of Python: a blank after separators, keys in order.
std::string python_json(const Json& v) {
  if (v.is_array()) {
    std::string out = "[";
    for (const Json& item : v) out += (out.size() > 1 ? ", " : "") + python_json(item);
    return out + "]";
  }
  if (v.is_object()) {
    std::string out = "{";
    for (const auto& [key, item] : v.items()) out += (out.size() > 1 ? ", " : "") + Json(key).dump() + ": " + python_json(item);
    return out + "}";
  }
  return v.dump();
}

std::string stripped(std::string text, const std::string& characters, bool left, bool right) {
  if (left) text.erase(0, std::min(text.find_first_not_of(characters), text.size()));
  if (right) text.erase(text.find_last_not_of(characters) + 1);
  return text;
}

class Interpreter {
 public:
  Interpreter() { scopes_.emplace_back(); }
  void set(const std::string& name, Json value) { scopes_.front()[name] = std::move(value); }
  std::string run(const std::vector<Statement>& program) {
    block(program);
    return std::move(out_);
  }

 private:
  void step() { check<ConfigError>(++steps_ <= kMaxSteps, "chat template: more than ", kMaxSteps, " steps"); }
  const Json& look_up(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(name); found != scope->end()) return found->second;
    return kUndefined;
  }

  void block(const std::vector<Statement>& statements) {
    for (const Statement& s : statements) {
      step();
      switch (s.kind) {
        case Statement::Kind::text: put(s.text); break;
        case Statement::Kind::output: put(text_of(value(*s.expression))); break;
        case Statement::Kind::condition:
          for (const auto& [condition, body] : s.branches)
            if (!condition || truthy(value(*condition))) {
              block(body);
              break;
            }
          break;
        case Statement::Kind::assignment: assign(s); break;
        case Statement::Kind::loop: loop(s); break;
      }
    }
  }
  void put(const std::string& text) {
    check<ConfigError>(out_.size() + text.size() <= kMaxOutput, "chat template: more than 16 MiB of output");
    out_ += text;
  }
  void assign(const Statement& s) {
    Json v = value(*s.expression);
    if (s.attribute.empty()) {
      scopes_.back()[s.text] = std::move(v);
      return;
    }
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(s.text); found != scope->end()) {
        check<ConfigError>(found->second.is_object(), "chat template: '", s.text, "' is no namespace");
        found->second[s.attribute] = std::move(v);
        return;
      }
    fail<ConfigError>("chat template: '", s.text, "' is not defined");
  }
  void loop(const Statement& s) {
    const Json sequence = value(*s.expression);
    if (undefined(sequence) || sequence.is_null()) return;
    check<ConfigError>(sequence.is_array() || sequence.is_object(), "chat template: a loop over ", sequence.type_name());
    std::vector<Json> items;
    if (sequence.is_object())
      for (const auto& [key, item] : sequence.items()) items.emplace_back(key);
    else items.assign(sequence.begin(), sequence.end());
    const auto count = static_cast<std::int64_t>(items.size());
    for (std::int64_t i = 0; i < count; ++i) {
      step();
      const auto at = static_cast<std::size_t>(i);
      auto& scope = scopes_.emplace_back();
      if (s.variables.size() == 1) {
        scope[s.variables.front()] = items[at];
      } else {
        check<ConfigError>(items[at].is_array() && items[at].size() == s.variables.size(), "chat template: a loop over ", s.variables.size(), " variables needs lists of that length");
        for (std::size_t k = 0; k < s.variables.size(); ++k) scope[s.variables[k]] = items[at][k];
      }
      scope["loop"] = Json{{"index0", i}, {"index", i + 1}, {"first", i == 0}, {"last", i + 1 == count}, {"length", count}, {"revindex", count - i}, {"revindex0", count - i - 1},
                           {"previtem", i > 0 ? items[at - 1] : Json(nullptr)}, {"nextitem", i + 1 < count ? items[at + 1] : Json(nullptr)}};
      block(s.body);
      scopes_.pop_back();
    }
  }

  Json value(const Expression& e) {
    step();
    using Kind = Expression::Kind;
    switch (e.kind) {
      case Kind::literal: return e.value;
      case Kind::name: return look_up(e.name);
      case Kind::list: {
        Json list = Json::array();
        for (const auto& part : e.parts) list.push_back(defined(*part));
        return list;
      }
      case Kind::dictionary: {
        Json object = Json::object();
        for (const auto& [key, part] : e.keywords) object[key] = defined(*part);
        return object;
      }
      case Kind::attribute: return member(value(*e.parts[0]), Json(e.name));
      case Kind::index: return member(value(*e.parts[0]), value(*e.parts[1]));
      case Kind::slice: return slice(e);
      case Kind::call: return call(e);
      case Kind::filter: return filter(e);
      case Kind::test: return test(e) != e.negated;
      case Kind::unary: {
        const Json v = value(*e.parts[0]);
        if (e.name == "not") return !truthy(v);
        check<ConfigError>(v.is_number(), "chat template: '-' needs a number");
        return v.is_number_integer() ? Json(-v.get<std::int64_t>()) : Json(-v.get<double>());
      }
      case Kind::binary: return binary(e);
      case Kind::conditional:
        if (truthy(value(*e.parts[0]))) return value(*e.parts[1]);
        return e.parts[2] ? value(*e.parts[2]) : kUndefined;
    }
    return kUndefined;
  }
  Json defined(const Expression& e) {
    Json v = value(e);
    return undefined(v) ? Json(nullptr) : v;
  }
  static Json member(const Json& object, const Json& key) {
    if (object.is_object() && key.is_string()) {
      const auto found = object.find(key.get_ref<const std::string&>());
      return found == object.end() ? kUndefined : *found;
    }
    if ((object.is_array() || object.is_string()) && key.is_number_integer()) {
      const auto size = static_cast<std::int64_t>(object.is_array() ? object.size() : object.get_ref<const std::string&>().size());
      std::int64_t i = key.get<std::int64_t>();
      if (i < 0) i += size;
      if (i < 0 || i >= size) return kUndefined;
      return object.is_array() ? object[static_cast<std::size_t>(i)] : Json(std::string(1, object.get_ref<const std::string&>()[static_cast<std::size_t>(i)]));
    }
    check<ConfigError>(!undefined(object), "chat template: ", key.dump(), " of something undefined");
    return kUndefined;
  }
  Json slice(const Expression& e) {
    const Json v = value(*e.parts[0]);
    check<ConfigError>(v.is_array() || v.is_string(), "chat template: a slice of ", v.type_name());
    const auto size = static_cast<std::int64_t>(v.is_array() ? v.size() : v.get_ref<const std::string&>().size());
    const auto bound = [&](std::size_t i, std::int64_t otherwise) {
      if (i >= e.parts.size() || !e.parts[i]) return otherwise;
      const Json b = value(*e.parts[i]);
      check<ConfigError>(b.is_number_integer(), "chat template: bounds of a slice are integers");
      return b.get<std::int64_t>();
    };
    const std::int64_t jump = bound(3, 1);
    check<ConfigError>(jump == 1 || jump == -1, "chat template: slices have step 1 or -1");
    const auto inside = [&](std::int64_t i, std::int64_t low, std::int64_t high) { return std::clamp(i < 0 ? i + size : i, low, high); };
    Json out = v.is_array() ? Json::array() : Json("");
    const auto add = [&](std::int64_t i) {
      if (v.is_array()) out.push_back(v[static_cast<std::size_t>(i)]);
      else out.get_ref<std::string&>() += v.get_ref<const std::string&>()[static_cast<std::size_t>(i)];
    };
    if (jump == 1) for (std::int64_t i = inside(bound(1, 0), 0, size); i < inside(bound(2, size), 0, size); ++i) add(i);
    else for (std::int64_t i = inside(bound(1, size - 1), -1, size - 1), stop = e.parts.size() > 2 && e.parts[2] ? inside(bound(2, 0), -1, size - 1) : -1; i > stop; --i) add(i);
    return out;
  }
  Json binary(const Expression& e) {
    if (e.name == "and" || e.name == "or") {
      Json left = value(*e.parts[0]);
      return truthy(left) == (e.name == "and") ? value(*e.parts[1]) : left;
    }
    const Json a = value(*e.parts[0]), b = value(*e.parts[1]);
    if (e.name == "==") return undefined(a) == undefined(b) && (undefined(a) || a == b);
    if (e.name == "!=") return !(undefined(a) == undefined(b) && (undefined(a) || a == b));
    if (e.name == "~") return text_of(a) + text_of(b);
    if (e.name == "in") {
      bool found = false;
      if (b.is_string()) found = b.get_ref<const std::string&>().find(text_of(a)) != std::string::npos;
      else if (b.is_array()) found = std::find(b.begin(), b.end(), a) != b.end();
      else if (b.is_object()) found = a.is_string() && b.contains(a.get<std::string>());
      else fail<ConfigError>("chat template: 'in' needs a text, a list or a dictionary");
      return found != e.negated;
    }
    if (e.name == "+" && a.is_string() && b.is_string()) return a.get<std::string>() + b.get<std::string>();
    if (e.name == "+" && a.is_array() && b.is_array()) {
      Json out = a;
      for (const Json& item : b) out.push_back(item);
      return out;
    }
    if (a.is_string() && b.is_string()) {
      if (e.name == "<") return a < b;
      if (e.name == ">") return a > b;
    }
    check<ConfigError>(a.is_number() && b.is_number(), "chat template: '", e.name, "' of ", undefined(a) ? "something undefined" : a.type_name(), " and ", undefined(b) ? "something undefined" : b.type_name());
    const double x = a.get<double>(), y = b.get<double>();
    if (e.name == "<") return x < y;
    if (e.name == "<=") return x <= y;
    if (e.name == ">") return x > y;
    if (e.name == ">=") return x >= y;
    check<ConfigError>((e.name != "/" && e.name != "//" && e.name != "%") || y != 0, "chat template: division by zero");
    if (e.name == "/") return x / y;
    const double result = e.name == "+" ? x + y : e.name == "-" ? x - y : e.name == "*" ? x * y : e.name == "//" ? std::floor(x / y) : x - std::floor(x / y) * y;
    if (a.is_number_integer() && b.is_number_integer() && std::abs(result) < 9e15) return static_cast<std::int64_t>(result);
    return result;
  }
  bool test(const Expression& e) {
    const Json v = value(*e.parts[0]);
    if (e.name == "defined") return !undefined(v);
    if (e.name == "undefined") return undefined(v);
    if (e.name == "none") return v.is_null() && !undefined(v);
    if (e.name == "string") return v.is_string();
    if (e.name == "mapping") return v.is_object();
    if (e.name == "sequence" || e.name == "iterable") return v.is_array() || v.is_string() || v.is_object();
    if (e.name == "number") return v.is_number();
    if (e.name == "integer") return v.is_number_integer();
    if (e.name == "boolean") return v.is_boolean();
    if (e.name == "true") return v.is_boolean() && v.get<bool>();
    if (e.name == "false") return v.is_boolean() && !v.get<bool>();
    fail<ConfigError>("chat template: the test 'is ", e.name, "' is not supported");
  }
  std::string text_argument(const Expression& e, std::size_t i, const std::string& otherwise) {
    if (i >= e.parts.size()) return otherwise;
    const Json v = value(*e.parts[i]);
    check<ConfigError>(v.is_string(), "chat template: expected a text as argument");
    return v.get<std::string>();
  }
  Json filter(const Expression& e) {
    Json v = value(*e.parts[0]);
    const std::string& f = e.name;
    if (f == "default") return undefined(v) ? (e.parts.size() > 1 ? value(*e.parts[1]) : Json("")) : v;
    if (f == "trim") return stripped(text_of(v), " \t\n\r\f\v", true, true);
    if (f == "length" || f == "count") {
      check<ConfigError>(v.is_array() || v.is_object() || v.is_string(), "chat template: length of ", v.type_name());
      return static_cast<std::int64_t>(v.is_string() ? v.get_ref<const std::string&>().size() : v.size());
    }
    if (f == "upper" || f == "lower") return cased(text_of(v), f == "upper");
    if (f == "string") return text_of(v);
    if (f == "tojson") return python_json(v);
    if (f == "list") return v;
    if (f == "int" && v.is_number()) return static_cast<std::int64_t>(v.get<double>());
    if (f == "first" && v.is_array()) return v.empty() ? kUndefined : v.front();
    if (f == "last" && v.is_array()) return v.empty() ? kUndefined : v.back();
    if (f == "join" && v.is_array()) {
      const std::string between = text_argument(e, 1, "");
      std::string out;
      for (std::size_t i = 0; i < v.size(); ++i) out += (i ? between : "") + text_of(v[i]);
      return out;
    }
    if (f == "replace") return replaced(text_of(v), text_argument(e, 1, ""), text_argument(e, 2, ""));
    if (f == "items" && v.is_object()) return pairs(v);
    fail<ConfigError>("chat template: the filter '", f, "' is not supported here");
  }
  static Json pairs(const Json& object) {
    Json out = Json::array();
    for (const auto& [key, item] : object.items()) out.push_back(Json::array({key, item}));
    return out;
  }
  static std::string cased(std::string text, bool upper) {
    for (char& c : text)
      if (upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z') c = static_cast<char>(c ^ 32);
    return text;
  }
  std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
    if (from.empty()) return text;
    std::string out;
    std::size_t at = 0;
    for (std::size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
      step();
      out += text.substr(at, found - at) + to;
      check<ConfigError>(out.size() <= kMaxOutput, "chat template: more than 16 MiB of output");
    }
    return out + text.substr(at);
  }
  Json call(const Expression& e) {
    const Expression& callee = *e.parts[0];
    if (callee.kind == Expression::Kind::name) {
      if (callee.name == "raise_exception") fail<ConfigError>("chat template: ", text_argument(e, 1, "the conversation is refused"));
      if (callee.name == "namespace") {
        Json object = Json::object();
        for (const auto& [key, part] : e.keywords) object[key] = defined(*part);
        return object;
      }
      if (callee.name == "range" && e.parts.size() == 2) {
        Json out = Json::array();
        const Json n = value(*e.parts[1]);
        check<ConfigError>(n.is_number_integer() && n.get<std::int64_t>() <= kMaxSteps, "chat template: range needs a small integer");
        for (std::int64_t i = 0; i < n.get<std::int64_t>(); ++i) out.push_back(i);
        return out;
      }
      fail<ConfigError>("chat template: the function '", callee.name, "' is not supported");
    }
    check<ConfigError>(callee.kind == Expression::Kind::attribute, "chat template: this call is not supported");
    const Json object = value(*callee.parts[0]);
    const std::string& method = callee.name;
    if (object.is_object() && method == "items") return pairs(object);
    if (object.is_object() && method == "get") {
      const Json found = member(object, text_argument(e, 1, ""));
      return undefined(found) ? (e.parts.size() > 2 ? value(*e.parts[2]) : Json(nullptr)) : found;
    }
    check<ConfigError>(object.is_string(), "chat template: the method '", method, "' of ", undefined(object) ? "something undefined" : object.type_name(), " is not supported");
    const std::string& text = object.get_ref<const std::string&>();
    if (method == "strip" || method == "lstrip" || method == "rstrip") return stripped(text, text_argument(e, 1, " \t\n\r\f\v"), method != "rstrip", method != "lstrip");
    if (method == "startswith") return text.starts_with(text_argument(e, 1, ""));
    if (method == "endswith") return text.ends_with(text_argument(e, 1, ""));
    if (method == "upper" || method == "lower") return cased(text, method == "upper");
    if (method == "replace") return replaced(text, text_argument(e, 1, ""), text_argument(e, 2, ""));
    if (method == "split") {
      const std::string separator = text_argument(e, 1, " ");
      check<ConfigError>(!separator.empty(), "chat template: split by an empty text");
      Json out = Json::array();
      std::size_t at = 0;
      for (std::size_t found; (found = text.find(separator, at)) != std::string::npos; at = found + separator.size()) {
        step();
        out.push_back(text.substr(at, found - at));
      }
      out.push_back(text.substr(at));
      return out;
    }
    fail<ConfigError>("chat template: the method '", method, "' is not supported");
  }

  std::vector<std::unordered_map<std::string, Json>> scopes_;
  std::string out_;
  std::int64_t steps_ = 0;
};

ChatTemplateOptions special_tokens(const Tokenizer& tokenizer, bool add_generation_prompt) {
  ChatTemplateOptions options;
  options.add_generation_prompt = add_generation_prompt;
  if (tokenizer.bos_id()) options.bos_token = tokenizer.id_to_token(*tokenizer.bos_id());
  if (tokenizer.eos_id()) options.eos_token = tokenizer.id_to_token(*tokenizer.eos_id());
  return options;
}

const std::string& need_template(const Tokenizer& tokenizer) {
  check<ConfigError>(!tokenizer.chat_template().empty(), "chat: this model has no chat template");
  return tokenizer.chat_template();
}

}  // namespace

std::string apply_chat_template(std::string_view template_text, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& options) {
  const std::vector<Statement> program = detail::parse_template(template_text);
  Interpreter interpreter;
  Json list = Json::array();
  for (const ChatMessage& message : messages) list.push_back(Json{{"role", message.role}, {"content", message.content}});
  interpreter.set("messages", std::move(list));
  interpreter.set("add_generation_prompt", options.add_generation_prompt);
  interpreter.set("bos_token", options.bos_token);
  interpreter.set("eos_token", options.eos_token);
  return interpreter.run(program);
}

RenderedChat render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  const std::string& program = need_template(tokenizer);
  RenderedChat out;
  out.text = apply_chat_template(program, messages, special_tokens(tokenizer, false));
  // Where a turn begins is where the prompt for it ends; where it ends is where the conversation up to it ends.
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const auto begin_of = static_cast<std::ptrdiff_t>(i);
    const std::string before = apply_chat_template(program, {messages.begin(), messages.begin() + begin_of}, special_tokens(tokenizer, true));
    const std::string with = apply_chat_template(program, {messages.begin(), messages.begin() + begin_of + 1}, special_tokens(tokenizer, false));
    check<ConfigError>(out.text.starts_with(with) && with.starts_with(before),
                       "chat template: the text of a turn depends on later turns or differs from its prompt, so what the assistant says cannot be told apart");
    out.assistant.emplace_back(before.size(), with.size());
  }
  return out;
}

std::string chat_prompt(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  return apply_chat_template(need_template(tokenizer), messages, special_tokens(tokenizer, true));
}

}  // namespace cambium
