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

  /// Walks over the matches in one subject after the other. An empty match moves on by one character.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;
    /// `subject` has to be valid UTF-8 and to live while next() is asked for its matches.
    void start(std::string_view subject) { subject_ = subject, at_ = 0; }
    /// ConfigError if the engine's limits are hit.
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

class Text;
/// The same in a text on its way through the stages.
void replace_matches(Text& text, const Regex& regex, std::string_view content);

}  // namespace cambium::detail
