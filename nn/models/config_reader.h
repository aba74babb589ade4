// ConfigReader: values of a config.json with their checks. Internal: not installed.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "tensor/json.h"

namespace cambium {

/// Reads one JSON object; null counts as absent. Every error is a ConfigError that names the file, the key, what was expected and what was found.
class ConfigReader {
 public:
  ConfigReader(const Json& object, std::string where);  ///< the object must outlive the reader

  bool has(const char* key) const { return find(key) != nullptr; }
  /// The first of these keys that is there: transformers renamed some.
  std::int64_t size(std::initializer_list<const char*> keys) const;                         ///< required, 1..2^31-1
  std::int64_t size(std::initializer_list<const char*> keys, std::int64_t otherwise) const;
  std::optional<std::int64_t> token(const char* key) const;                                  ///< an id, not negative
  std::vector<std::int64_t> tokens(const char* key) const;                                   ///< one id or a list
  double number(const char* key, double otherwise) const;
  double probability(const char* key) const;                                                 ///< 0 when absent
  bool boolean(const char* key, bool otherwise) const;
  std::string text(const char* key, const std::string& otherwise) const;
  std::vector<std::string> texts(const char* key) const;                                     ///< empty when absent
  const Json* find(const char* key) const;                                                   ///< null when absent or null
  ConfigReader object(const char* key) const;                                                ///< a nested object; it must be there

  /// ConfigError unless the key is absent, null or this value: settings that change the maths and that we do not have.
  void refuse_unless(const char* key, const Json& value) const;
  const std::string& where() const { return where_; }

 private:
  std::int64_t integer(const char* key, const Json& value, std::int64_t low, std::int64_t high) const;
  const Json& object_;
  std::string where_;
};

}  // namespace cambium
