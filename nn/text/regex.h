// Regular expressions of tokenizers over PCRE2, read as their usual engine (Oniguruma) reads them. Internal.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace cambium::detail {

/// A compiled expression; copies share it, and threads may use it at once.
class Regex {
 public:
  /// ConfigError starting with `where` if the pattern does not compile or uses what the two engines read differently.
  Regex(std::string_view pattern, std::string_view where);
  /// Matches `text` literally.
  static Regex literal(std::string_view text, std::string_view where);

  struct Match { std::size_t begin, end; };

  /// Walks over the matches of one subject, which has to be valid UTF-8 and outlive the matcher. An empty match moves on by one
  /// character. ConfigError if the engine's limits are hit.
  class Matcher {
   public:
    Matcher(const Regex& regex, std::string_view subject);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;
    std::optional<Match> next();

   private:
    struct Data;
    const Regex& regex_;
    std::string_view subject_;
    std::size_t at_ = 0;
    std::unique_ptr<Data> data_;
  };

  /// `text` with every match replaced by `content`.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace cambium::detail
