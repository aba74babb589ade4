// Values of GGUF metadata as C++ values, and the checks of a vocabulary.
#include <algorithm>
#include <cmath>

#include "tensor/gguf_format.h"
#include "tensor/json_reader.h"

namespace cambium {

std::string_view name_of(GgufType type) {
  constexpr std::string_view kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::size_t>(type)];
}

namespace {

/// Calls `f` with the number of type `type` at `position`; false for types that are none.
template <class F>
bool with_number(GgufType type, std::span<const std::byte> bytes, std::uint64_t position, F&& f) {
  switch (type) {
    case GgufType::u8: f(gguf::load<std::uint8_t>(bytes, position)); return true;
    case GgufType::i8: f(gguf::load<std::int8_t>(bytes, position)); return true;
    case GgufType::u16: f(gguf::load<std::uint16_t>(bytes, position)); return true;
    case GgufType::i16: f(gguf::load<std::int16_t>(bytes, position)); return true;
    case GgufType::u32: f(gguf::load<std::uint32_t>(bytes, position)); return true;
    case GgufType::i32: f(gguf::load<std::int32_t>(bytes, position)); return true;
    case GgufType::u64: f(gguf::load<std::uint64_t>(bytes, position)); return true;
    case GgufType::i64: f(gguf::load<std::int64_t>(bytes, position)); return true;
    case GgufType::f32: f(gguf::load<float>(bytes, position)); return true;
    case GgufType::f64: f(gguf::load<double>(bytes, position)); return true;
    default: return false;
  }
}

bool is_integer(GgufType type) {
  return type != GgufType::f32 && type != GgufType::f64 && type != GgufType::boolean && type != GgufType::string && type != GgufType::array;
}

/// As int64; false when it does not fit.
bool load_integer(GgufType type, std::span<const std::byte> bytes, std::uint64_t position, std::int64_t& out) {
  if (type == GgufType::u64 && gguf::load<std::uint64_t>(bytes, position) > std::uint64_t{INT64_MAX}) return false;
  with_number(type, bytes, position, [&](auto value) { out = static_cast<std::int64_t>(value); });
  return true;
}

std::string quoted(std::string_view text) { return quote_for_message(text); }

}  // namespace

std::string GgufValue::where() const { return concat_text(path_, ": metadata ", quoted(key_)); }

void GgufValue::fail_kind(std::string_view expected) const {
  std::string found(name_of(type_));
  if (type_ == GgufType::array) found += concat_text(" of ", name_of(element_type()));
  fail<FileError>(where(), ": expected ", expected, ", found ", found);
}

std::int64_t GgufValue::integer() const {
  std::int64_t value = 0;
  if (!is_integer(type_)) fail_kind("an integer");
  check<FileError>(load_integer(type_, bytes_, 0, value), where(), ": expected an integer below 2^63, found ", text());
  return value;
}

std::uint64_t GgufValue::natural() const {
  if (type_ == GgufType::u64) return gguf::load<std::uint64_t>(bytes_, 0);
  const std::int64_t value = integer();
  check<FileError>(value >= 0, where(), ": expected an integer that is not negative, found ", value);
  return static_cast<std::uint64_t>(value);
}

double GgufValue::number() const {
  double out = 0;
  if (!with_number(type_, bytes_, 0, [&](auto value) { out = static_cast<double>(value); })) fail_kind("a number");
  return out;
}

bool GgufValue::boolean() const {
  if (type_ != GgufType::boolean) fail_kind("a bool");
  return bytes_[0] != std::byte{0};
}

std::string_view GgufValue::string() const {
  if (type_ != GgufType::string) fail_kind("a string");
  return gguf::string_at(bytes_, 0);
}

std::size_t GgufValue::array_begin(GgufType& element, std::uint64_t& count) const {
  if (type_ != GgufType::array) fail_kind("an array");
  element = static_cast<GgufType>(gguf::load<std::uint32_t>(bytes_, 0));
  count = gguf::load<std::uint64_t>(bytes_, 4);
  return 12;
}

std::size_t GgufValue::size() const {
  GgufType element{};
  std::uint64_t count = 0;
  array_begin(element, count);
  return count;
}

GgufType GgufValue::element_type() const {
  GgufType element{};
  std::uint64_t count = 0;
  array_begin(element, count);
  return element;
}

std::vector<std::string_view> GgufValue::strings() const {
  GgufType element{};
  std::uint64_t count = 0;
  std::uint64_t position = array_begin(element, count);
  if (element != GgufType::string) fail_kind("an array of strings");
  std::vector<std::string_view> out;
  out.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    out.push_back(gguf::string_at(bytes_, position));
    position += 8 + out.back().size();
  }
  return out;
}

std::vector<std::int64_t> GgufValue::integers() const {
  GgufType element{};
  std::uint64_t count = 0;
  const std::uint64_t begin = array_begin(element, count);
  if (!is_integer(element)) fail_kind("an array of integers");
  std::vector<std::int64_t> out(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    check<FileError>(load_integer(element, bytes_, begin + i * gguf::size_of(element), out[i]), where(), ": expected integers below 2^63, found a larger one");
  }
  return out;
}

std::vector<float> GgufValue::floats() const {
  GgufType element{};
  std::uint64_t count = 0;
  const std::uint64_t begin = array_begin(element, count);
  if (!is_integer(element) && element != GgufType::f32 && element != GgufType::f64) fail_kind("an array of numbers");
  std::vector<float> out(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    with_number(element, bytes_, begin + i * gguf::size_of(element), [&](auto value) { out[i] = static_cast<float>(value); });
  }
  return out;
}

std::string GgufValue::text() const {
  std::string out;
  if (type_ == GgufType::string) return quoted(string());
  if (type_ == GgufType::boolean) return boolean() ? "true" : "false";
  if (with_number(type_, bytes_, 0, [&](auto value) { out = concat_text(+value); })) return out;
  GgufType element{};
  std::uint64_t count = 0;
  std::uint64_t position = array_begin(element, count);
  constexpr std::uint64_t kShown = 5;
  out = concat_text(count, " x ", name_of(element), " [");
  for (std::uint64_t i = 0; i < std::min(count, kShown) && element != GgufType::array; ++i) {
    if (i > 0) out += ", ";
    if (element == GgufType::string) {
      const std::string_view text = gguf::string_at(bytes_, position);
      out += quoted(text);
      position += 8 + text.size();
    } else {
      if (element == GgufType::boolean) out += bytes_[position] != std::byte{0} ? "true" : "false";
      else with_number(element, bytes_, position, [&](auto value) { out += concat_text(+value); });
      position += gguf::size_of(element);
    }
  }
  return out + (count > kShown ? ", …]" : "]");
}

void GgufFile::check_vocabulary() const {
  const auto tokens = find("tokenizer.ggml.tokens");
  if (!tokens) return;
  if (tokens->type() != GgufType::array || tokens->element_type() != GgufType::string) tokens->fail_kind("an array of strings");
  const std::uint64_t count = tokens->size();
  for (const std::string_view key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    const auto values = find(key);
    check<FileError>(!values || values->size() == count, path(), ": metadata ", quoted(key), ": expected as many values as tokens, which are ", count,
                     ", found ", values ? values->size() : 0);
  }
  for (const Entry& entry : entries_) {
    const std::string_view key = string_at(entry.key);
    if (!key.starts_with("tokenizer.ggml.") || !key.ends_with("_token_id")) continue;
    const GgufValue id = value_at(entry);
    check<FileError>(id.natural() < count, path(), ": metadata ", quoted(key), ": expected an id below ", count, ", the number of tokens, found ", id.natural());
  }
  const auto merges = find("tokenizer.ggml.merges");
  if (!merges) return;
  if (merges->type() != GgufType::array || merges->element_type() != GgufType::string) merges->fail_kind("an array of strings");
  const std::uint64_t merge_count = merges->size();
  std::uint64_t position = 12;
  for (std::uint64_t i = 0; i < merge_count; ++i) {
    const std::string_view merge = gguf::string_at(merges->raw(), position);
    position += 8 + merge.size();
    const std::size_t space = merge.find(' ', 1);  // a piece may begin with a space
    check<FileError>(space != std::string_view::npos && space + 1 < merge.size(), path(), ": metadata \"tokenizer.ggml.merges\": entry ", i,
                     ": expected two pieces with a space between them, found ", quoted(merge));
  }
}

}  // namespace cambium
