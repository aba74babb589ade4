// ConfigReader.
#include "nn/models/config_reader.h"

#include <cmath>

namespace cambium {

namespace {

constexpr std::int64_t kLargestSize = 2147483647;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

}  // namespace

ConfigReader::ConfigReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  check<ConfigError>(object.is_object(), where_, ": expected an object, found ", shown(object));
}

const Json* ConfigReader::find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::int64_t ConfigReader::integer(const char* key, const Json& value, std::int64_t low, std::int64_t high) const {
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high) : value.is_number_integer();
  check<ConfigError>(fits && value.get<std::int64_t>() >= low && value.get<std::int64_t>() <= high, where_, ": '", key, "': expected an integer from ", low, " to ", high,
                     ", found ", shown(value));
  return value.get<std::int64_t>();
}

std::int64_t ConfigReader::size(std::initializer_list<const char*> keys) const {
  for (const char* key : keys)
    if (const Json* value = find(key)) return integer(key, *value, 1, kLargestSize);
  fail<ConfigError>(where_, ": '", *keys.begin(), "' is missing");
}

std::int64_t ConfigReader::size(std::initializer_list<const char*> keys, std::int64_t otherwise) const {
  for (const char* key : keys)
    if (has(key)) return size({key});
  return otherwise;
}

std::optional<std::int64_t> ConfigReader::token(const char* key) const {
  const Json* value = find(key);
  if (value == nullptr || *value == -1) return {};  // some configurations write -1 for none
  return integer(key, *value, 0, kLargestSize);
}

std::vector<std::int64_t> ConfigReader::tokens(const char* key) const {
  const Json* value = find(key);
  std::vector<std::int64_t> out;
  if (value != nullptr && value->is_array())
    for (const Json& item : *value) out.push_back(integer(key, item, 0, kLargestSize));
  else if (const auto one = token(key))
    out.push_back(*one);
  return out;
}

double ConfigReader::number(const char* key, double otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  check<ConfigError>(value->is_number() && std::isfinite(value->get<double>()), where_, ": '", key, "': expected a number, found ", shown(*value));
  return value->get<double>();
}

double ConfigReader::probability(const char* key) const {
  const double p = number(key, 0.0);
  check<ConfigError>(p >= 0.0 && p < 1.0, where_, ": '", key, "': expected a probability below 1, found ", p);
  return p;
}

bool ConfigReader::boolean(const char* key, bool otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  check<ConfigError>(value->is_boolean(), where_, ": '", key, "': expected true or false, found ", shown(*value));
  return value->get<bool>();
}

std::string ConfigReader::text(const char* key, const std::string& otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  check<ConfigError>(value->is_string(), where_, ": '", key, "': expected a text, found ", shown(*value));
  return value->get<std::string>();
}

std::vector<std::string> ConfigReader::texts(const char* key) const {
  const Json* value = find(key);
  std::vector<std::string> out;
  if (value == nullptr) return out;
  check<ConfigError>(value->is_array(), where_, ": '", key, "': expected a list, found ", shown(*value));
  for (const Json& item : *value) {
    check<ConfigError>(item.is_string(), where_, ": '", key, "': expected a list of texts, found ", shown(item));
    out.push_back(item.get<std::string>());
  }
  return out;
}

ConfigReader ConfigReader::object(const char* key) const {
  const Json* value = find(key);
  check<ConfigError>(value != nullptr, where_, ": '", key, "' is missing");
  return {*value, where_ + ": '" + key + "'"};
}

void ConfigReader::refuse_unless(const char* key, const Json& value) const {
  const Json* found = find(key);
  check<ConfigError>(found == nullptr || *found == value, where_, ": '", key, "': only ", shown(value), " is supported, found ", found ? shown(*found) : "");
}

}  // namespace cambium
