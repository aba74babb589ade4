// Pull reader for strict JSON: grammar of RFC 8259, well-formed UTF-8 (Unicode 15, table 3-7), no leniency.
#include "tensor/json_reader.h"

#include <algorithm>
#include <charconv>

namespace cambium {

namespace {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

struct HashSink {  // FNV-1a
  std::uint64_t hash = 0xcbf29ce484222325U;
  void add(std::string_view bytes) {
    for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
};
struct TextSink {
  std::string& out;
  void add(std::string_view bytes) { out.append(bytes); }
};

}  // namespace

std::string quote_for_message(std::string_view text) {
  constexpr std::size_t kLongest = 40;
  constexpr char kHex[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) quoted += c;
    else (quoted += "\\x") += {kHex[byte >> 4], kHex[byte & 15]};
  }
  return quoted + (text.size() > kLongest ? "…\"" : "\"");
}

std::string JsonReader::path() const {
  std::string path;
  for (const Frame& frame : frames_) {
    if (!frame.started) break;
    if (!frame.object) {
      ((path += '[') += std::to_string(frame.index)) += ']';
      continue;
    }
    const std::string quoted = quote_for_message(text_.substr(frame.key_begin, frame.key_end - frame.key_begin));
    if (!path.empty()) path += '.';
    path.append(quoted, 1, quoted.size() - 2);
  }
  return path;
}

void JsonReader::fail_at(std::size_t position, std::string_view what) const {
  const std::string path = this->path();
  fail<FileError>(where_, ": byte ", first_byte_ + position, path.empty() ? "" : " (" + path + ")", ": ", what);
}

std::string JsonReader::found() const {
  if (position_ >= text_.size()) return "found the end of the text";
  return "found " + quote_for_message(text_.substr(position_, 1));
}

void JsonReader::skip_space() {
  while (position_ < text_.size() && is_space(text_[position_])) ++position_;
}

JsonReader::Type JsonReader::peek() {
  skip_space();
  const char c = position_ < text_.size() ? text_[position_] : '\0';
  if (c == '{') return Type::object;
  if (c == '[') return Type::array;
  if (c == '"') return Type::string;
  if (c == 't' || c == 'f') return Type::boolean;
  if (c == 'n') return Type::null;
  if (c == '-' || is_digit(c)) return Type::number;
  if (c == 'N' || c == 'I') fail_here("expected a value, found " + quote_for_message(text_.substr(position_, c == 'N' ? 3 : 8)) +
                                      ": JSON has no NaN and no Infinity");
  fail_here("expected a value, " + found());
}

void JsonReader::enter(Type container) {
  skip_space();
  const char open = container == Type::object ? '{' : '[';
  if (position_ >= text_.size() || text_[position_] != open) fail_here(std::string("expected '") + open + "', " + found());
  if (frames_.size() >= static_cast<std::size_t>(max_depth_)) {
    fail_here("expected at most " + std::to_string(max_depth_) + " levels of nesting, found more");
  }
  ++position_;
  frames_.push_back({.object = container == Type::object});
}

bool JsonReader::next(char close) {
  Frame& frame = frames_.back();
  skip_space();
  const char c = position_ < text_.size() ? text_[position_] : '\0';
  if (c == close) {
    ++position_;
    frames_.pop_back();
    return false;
  }
  if (!frame.started) return true;
  if (c != ',') fail_here(std::string("expected ',' or '") + close + "', " + found());
  ++position_;
  skip_space();
  if (position_ < text_.size() && text_[position_] == close) fail_here("expected a value after ',', " + found());
  return true;
}

bool JsonReader::next_key(std::string* key) {
  if (!next('}')) return false;
  if (position_ >= text_.size() || text_[position_] != '"') fail_here("expected a key in quotes, " + found());
  const std::size_t begin = position_ + 1;
  if (key) read_string(*key);
  else key_hash_ = hash_string();
  Frame& frame = frames_.back();
  frame.started = true;
  frame.key_begin = begin;
  frame.key_end = position_ - 1;
  skip_space();
  if (position_ >= text_.size() || text_[position_] != ':') fail_here("expected ':' after a key, " + found());
  ++position_;
  return true;
}

bool JsonReader::next_element() {
  if (!next(']')) return false;
  Frame& frame = frames_.back();
  if (frame.started) ++frame.index;
  frame.started = true;
  return true;
}

void JsonReader::literal(std::string_view word) {
  skip_space();
  if (text_.substr(position_, word.size()) != word) fail_here("expected " + std::string(word) + ", " + found());
  position_ += word.size();
}

bool JsonReader::read_boolean() {
  skip_space();
  const bool value = text_.substr(position_, 1) == "t";
  literal(value ? "true" : "false");
  return value;
}

JsonReader::Number JsonReader::read_number() {
  skip_space();
  const std::size_t begin = position_;
  const auto at = [&](std::size_t i) { return i < text_.size() ? text_[i] : '\0'; };
  const auto digits = [&](std::string_view what) {
    if (!is_digit(at(position_))) fail_here("expected a digit " + std::string(what) + ", " + found());
    while (is_digit(at(position_))) ++position_;
  };
  const bool minus = at(position_) == '-';
  if (minus) ++position_;
  const bool zero = at(position_) == '0';
  if (zero && is_digit(at(position_ + 1))) fail_here("expected a number without leading zeros");
  if (minus && at(position_) == 'I') fail_here("expected a number, found \"-Infinity\": JSON has no NaN and no Infinity");
  digits("in a number");
  bool integer = true, small = zero;
  if (at(position_) == '.') {
    integer = false;
    ++position_;
    digits("after '.'");
  }
  if (at(position_) == 'e' || at(position_) == 'E') {
    integer = false;
    ++position_;
    small = at(position_) == '-';
    if (at(position_) == '-' || at(position_) == '+') ++position_;
    digits("in an exponent");
  }
  const char* first = text_.data() + begin;
  const char* last = text_.data() + position_;
  Number number;
  if (integer && minus) {
    number.kind = Number::Kind::negative;
    if (std::from_chars(first, last, number.negative).ec == std::errc{}) return number;
  } else if (integer) {
    if (std::from_chars(first, last, number.natural).ec == std::errc{}) return number;
  }
  number.kind = Number::Kind::real;
  if (std::from_chars(first, last, number.real).ec == std::errc::result_out_of_range) {
    if (!small) fail_at(begin, "expected a number in the range of a double, found " + quote_for_message({first, static_cast<std::size_t>(last - first)}));
    number.real = minus ? -0.0 : 0.0;
  }
  return number;
}

std::size_t JsonReader::check_utf8(std::size_t at) const {
  const auto byte = [&](std::size_t i) { return i < text_.size() ? static_cast<unsigned char>(text_[i]) : 0U; };
  const unsigned lead = byte(at), second = byte(at + 1);
  const auto tail = [&](std::size_t i) { return (byte(at + i) & 0xc0U) == 0x80U; };
  if (lead >= 0xc2 && lead <= 0xdf && tail(1)) return 2;
  if (lead >= 0xe0 && lead <= 0xef && tail(1) && tail(2) && !(lead == 0xe0 && second < 0xa0) && !(lead == 0xed && second > 0x9f)) return 3;
  if (lead >= 0xf0 && lead <= 0xf4 && tail(1) && tail(2) && tail(3) && !(lead == 0xf0 && second < 0x90) && !(lead == 0xf4 && second > 0x8f)) return 4;
  fail_at(at, "expected valid UTF-8, found " + quote_for_message(text_.substr(at, 1)));
}

std::uint32_t JsonReader::scan_hex() {
  std::uint32_t value = 0;
  const std::string_view digits = text_.substr(position_, 4);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (digits.size() != 4 || end != digits.data() + 4 || error != std::errc{}) fail_here("expected four hexadecimal digits after \\u");
  position_ += 4;
  return value;
}

template <class Sink>
void JsonReader::scan_escape(Sink&& sink) {
  const std::size_t begin = position_ - 1;  // of the backslash
  const char c = position_ < text_.size() ? text_[position_] : '\0';
  constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
  if (const std::size_t i = kNames.find(c); i != std::string_view::npos) {
    ++position_;
    sink.add(kValues.substr(i, 1));
    return;
  }
  if (c != 'u') fail_at(begin, "expected an escape sequence of JSON, found " + quote_for_message(text_.substr(begin, 2)));
  ++position_;
  std::uint32_t code = scan_hex();
  if (code >= 0xd800 && code < 0xe000) {
    if (code >= 0xdc00 || text_.substr(position_, 2) != "\\u") fail_at(begin, "expected a pair of surrogates, found a single one");
    position_ += 2;
    const std::uint32_t low = scan_hex();
    if (low < 0xdc00 || low >= 0xe000) fail_at(begin, "expected a pair of surrogates, found a single one");
    code = 0x10000U + ((code - 0xd800U) << 10) + (low - 0xdc00U);
  }
  const auto byte = [](std::uint32_t value) { return static_cast<char>(value); };
  const char bytes[4] = {byte(code < 0x80 ? code : code < 0x800 ? 0xc0U | code >> 6 : code < 0x10000 ? 0xe0U | code >> 12 : 0xf0U | code >> 18),
                         byte(0x80U | ((code >= 0x10000 ? code >> 12 : code >= 0x800 ? code >> 6 : code) & 0x3fU)),
                         byte(0x80U | ((code >= 0x10000 ? code >> 6 : code) & 0x3fU)), byte(0x80U | (code & 0x3fU))};
  sink.add({bytes, code < 0x80 ? 1U : code < 0x800 ? 2U : code < 0x10000 ? 3U : 4U});
}

template <class Sink>
void JsonReader::scan_string(Sink&& sink) {
  skip_space();
  if (position_ >= text_.size() || text_[position_] != '"') fail_here("expected a string, " + found());
  const std::size_t begin = position_++;
  std::size_t run = position_;  // start of what is not yet in the sink
  while (true) {
    if (position_ >= text_.size()) fail_at(begin, "expected the closing quote of a string, found the end of the text");
    const auto c = static_cast<unsigned char>(text_[position_]);
    if (c == '"' || c == '\\') {
      sink.add(text_.substr(run, position_ - run));
      ++position_;
      if (c == '"') return;
      scan_escape(sink);
      run = position_;
    } else if (c < 0x20) {
      fail_here("expected control characters to be escaped, " + found());
    } else {
      position_ += c < 0x80 ? 1 : check_utf8(position_);
    }
  }
}

std::uint64_t JsonReader::hash_string() {
  HashSink sink;
  scan_string(sink);
  return sink.hash;
}

void JsonReader::read_string(std::string& out) {
  out.clear();
  scan_string(TextSink{out});
}

void JsonReader::skip_value() {
  switch (peek()) {
    case Type::null: read_null(); return;
    case Type::boolean: read_boolean(); return;
    case Type::number: read_number(); return;
    case Type::string: skip_string(); return;
    case Type::array:
      enter(Type::array);
      while (next_element()) skip_value();
      return;
    case Type::object:
      enter(Type::object);
      while (next_key(nullptr)) skip_value();
      return;
  }
}

void JsonReader::finish() {
  skip_space();
  if (position_ < text_.size()) fail_here("expected the end of the text, " + found());
}

}  // namespace cambium
