// Pattern: a regular expression in Python's syntax, as PEFT configurations hold them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace cambium {

/// Compiled by PCRE2, whose syntax covers Python's lookbehind, named groups and inline flags. ConfigError quoting a pattern it refuses.
class Pattern {
 public:
  explicit Pattern(const std::string& text);
  bool matches_whole(std::string_view subject) const;  ///< re.fullmatch
  bool matches_start(std::string_view subject) const;  ///< re.match
  bool found_in(std::string_view subject) const;       ///< re.search

 private:
  bool run(std::string_view subject, unsigned options) const;
  std::string text_;
  std::shared_ptr<const void> code_;
};

}  // namespace cambium
