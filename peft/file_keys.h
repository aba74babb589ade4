// Keys of adapter files and configurations: the prefix before the paths of modules, and patterns that name one module.
#pragma once

#include <string>
#include <string_view>

namespace cambium {

/// What the keys in files of LoRA and IA3 begin with.
inline constexpr std::string_view kKeyPrefix = "base_model.model.";

inline std::string without_prefix(const std::string& key) { return key.starts_with(kKeyPrefix) ? key.substr(kKeyPrefix.size()) : key; }

/// The key of rank_pattern and alpha_pattern for the module `path` and no other.
inline std::string pattern_of(const std::string& path) {
  std::string out = "^";
  for (const char c : path) {
    if (c == '.') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace cambium
