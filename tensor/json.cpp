// Strict JSON: checks a text, then builds the tree with every array and object at its exact size.
#include "tensor/json.h"

#include <cmath>

#include "tensor/json_reader.h"
#include "tensor/storage.h"

namespace cambium {

namespace {

// The tree of a file with many tiny values is up to some 25 times its size; no real configuration or tokenizer comes near this bound.
constexpr std::size_t kLargestTree = std::size_t{1} << 30;

// Members wait on two stacks until their container ends, so that keys, which ordered_map makes const, are moved and never copied.
class Builder {
 public:
  explicit Builder(JsonReader& reader) : reader_(reader) {}

  Json value() {
    switch (reader_.peek()) {
      case JsonReader::Type::null: reader_.read_null(); return Json();
      case JsonReader::Type::boolean: return Json(reader_.read_boolean());
      case JsonReader::Type::number: return number();
      case JsonReader::Type::string: {
        std::string text;
        reader_.read_string(text);
        return Json(std::move(text));
      }
      case JsonReader::Type::array: return array();
      case JsonReader::Type::object: return object();
    }
    return Json();
  }

 private:
  Json number() {
    const JsonReader::Number number = reader_.read_number();
    if (number.kind == JsonReader::Number::Kind::natural) return Json(number.natural);
    if (number.kind == JsonReader::Number::Kind::negative) return Json(number.negative);
    return Json(number.real);
  }
  Json array() {
    const std::size_t base = values_.size();
    reader_.enter(JsonReader::Type::array);
    while (reader_.next_element()) values_.push_back(value());
    const auto first = values_.begin() + static_cast<std::ptrdiff_t>(base);
    Json out = Json::array();
    out.get_ref<Json::array_t&>().assign(std::make_move_iterator(first), std::make_move_iterator(values_.end()));
    values_.resize(base);
    return out;
  }
  Json object() {
    const std::size_t base = values_.size(), key_base = keys_.size();
    reader_.enter(JsonReader::Type::object);
    std::string key;
    while (reader_.next_key(&key)) {
      keys_.push_back(std::move(key));
      values_.push_back(value());
    }
    Json out = Json::object();
    // The vector below ordered_map: its own insertion looks through all members each time, and check_json has seen that keys differ.
    Json::object_t::Container& members = out.get_ref<Json::object_t&>();
    members.reserve(values_.size() - base);
    for (std::size_t i = base; i < values_.size(); ++i) members.emplace_back(std::move(keys_[key_base + i - base]), std::move(values_[i]));
    values_.resize(base);
    keys_.resize(key_base);
    return out;
  }

  JsonReader& reader_;
  std::vector<Json> values_;
  std::vector<std::string> keys_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where, int max_depth) {
  const JsonSummary summary = check_json(text, where, max_depth);
  const std::size_t tree = summary.values * sizeof(Json) + (summary.strings + summary.keys) * sizeof(std::string) +
                           summary.containers * sizeof(Json::array_t) + summary.keys * sizeof(Json) + summary.long_bytes;
  check<FileError>(tree <= kLargestTree, where, ": expected a JSON text that needs at most ", kLargestTree >> 20, " MiB of memory, found ",
                   summary.values, " values that need ", tree >> 20, " MiB");
  JsonReader reader(text, where, max_depth);
  return Builder(reader).value();
}

Json read_json_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  return parse_json({reinterpret_cast<const char*>(file->data()), file->size()}, path);
}

namespace {

std::string describe(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  return value.is_string() ? quote_for_message(value.get_ref<const std::string&>()) : value.dump();
}

}  // namespace

std::int64_t json_integer(const Json& value, std::string_view where, std::int64_t minimum, std::int64_t maximum) {
  check<FileError>(value.is_number_integer(), where, ": expected an integer, found ", describe(value));
  const bool fits = !value.is_number_unsigned() || value.get_ref<const std::uint64_t&>() <= static_cast<std::uint64_t>(INT64_MAX);
  const std::int64_t integer = fits ? value.get<std::int64_t>() : 0;
  check<FileError>(fits && integer >= minimum && integer <= maximum, where, ": expected an integer from ", minimum, " to ", maximum,
                   ", found ", describe(value));
  return integer;
}

double json_number(const Json& value, std::string_view where) {
  check<FileError>(value.is_number(), where, ": expected a number, found ", describe(value));
  return value.get<double>();
}

bool json_boolean(const Json& value, std::string_view where) {
  check<FileError>(value.is_boolean(), where, ": expected true or false, found ", describe(value));
  return value.get<bool>();
}

const std::string& json_string(const Json& value, std::string_view where) {
  check<FileError>(value.is_string(), where, ": expected a string, found ", describe(value));
  return value.get_ref<const std::string&>();
}

const Json& json_member(const Json& object, std::string_view key, std::string_view where) {
  check<FileError>(object.is_object(), where, ": expected an object, found ", describe(object));
  const auto member = object.find(key);
  check<FileError>(member != object.end(), where, ": expected a member ", quote_for_message(key), ", found none");
  return *member;
}

}  // namespace cambium
