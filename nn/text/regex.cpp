// Regex over PCRE2: patterns rewritten where Oniguruma means something else, matching under limits.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "nn/text/regex.h"

#include <pcre2.h>

#include <array>

#include "kernels/error.h"
#include "nn/text/text.h"
#include "nn/text/unicode.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

// White_Space. PCRE2's \s also takes U+180E, its \w neither marks nor connectors.
constexpr std::string_view kSpace = "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}";

std::string translate(std::string_view pattern, std::string_view where) {
  std::string out;
  bool in_class = false;
  const auto refuse = [&](std::string_view what) {
    fail<ConfigError>(where, ": pattern ", quote_for_message(pattern), ": ", what, " is not supported");
  };
  const auto put_class = [&](std::string_view members, bool negated) {
    if (in_class) out += members;
    else ((out += negated ? "[^" : "[") += members) += ']';
  };
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') put_class(kSpace, false);
      else if (next == 'w') put_class(kWord, false);
      else if (next == 'S' && in_class) out += "\\S\\x{180E}";
      else if (next == 'S') put_class(kSpace, true);
      else if (next == 'W' && !in_class) put_class(kWord, true);
      else if (next == 'h' || next == 'H' || (next == 'W' && in_class)) refuse(std::string("\\") + next);
      else ((out += c) += next);
      continue;
    }
    if (in_class) {
      if (c == ']') in_class = false;
      else if (c == '[' && pattern.substr(i, 2) != "[:") refuse("a class within a class");
      else if (c == '&' && pattern.substr(i, 2) == "&&") refuse("the intersection of classes");
      else if (c == '[') {  // [:alpha:] and the like: take it whole
        const std::size_t end = pattern.find(":]", i);
        if (end == std::string_view::npos) refuse("an open [:");
        out += pattern.substr(i, end + 1 - i);
        i = end + 1;
        out += ']';
        continue;
      }
      out += c;
      continue;
    }
    out += c;
    if (c == '[') {
      in_class = true;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
    }
  }
  return out;
}

std::string message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Regex::Code {
  std::string where;
  pcre2_code* code = nullptr;
  Code(std::string_view pattern, std::string_view place, std::uint32_t options) : where(place) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(units(pattern), pattern.size(), options, &error, &offset, nullptr);
    if (code == nullptr) fail<ConfigError>(where, ": pattern ", quote_for_message(pattern), " does not compile: ", message(error));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it the interpreter does the same, slower
  }
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
};

Regex::Regex(std::string_view pattern, std::string_view where) {
  check<ConfigError>(pattern.size() <= 65536, where, ": expected a pattern of at most 65536 bytes, found ", pattern.size());
  code_ = std::make_shared<const Code>(translate(pattern, where), where,
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
}

Regex Regex::literal(std::string_view text, std::string_view where) {
  Regex regex("", where);
  regex.code_ = std::make_shared<const Code>(text, where, PCRE2_UTF | PCRE2_LITERAL);
  return regex;
}

struct Regex::Matcher::Data {
  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
  explicit Data(const pcre2_code* code)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)), context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 * 1024, 4 * 1024 * 1024, nullptr)) {
    if (context) {
      pcre2_set_match_limit(context, 20'000'000);
      pcre2_set_heap_limit(context, 256 * 1024);  // KiB
      if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
    }
  }
  ~Data() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;
};

Regex::Matcher::Matcher(const Regex& regex)
    : regex_(regex), data_(std::make_unique<Data>(regex.code_->code)) {
  if (!data_->match || !data_->context) throw std::bad_alloc();
}

Regex::Matcher::~Matcher() = default;

std::optional<Regex::Match> Regex::Matcher::next() {
  if (at_ > subject_.size()) return std::nullopt;
  const auto match = [&](std::uint32_t options) {
    return pcre2_match(regex_.code_->code, units(subject_), subject_.size(), at_, PCRE2_NO_UTF_CHECK | options, data_->match, data_->context);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) fail<ConfigError>(regex_.code_->where, ": the pattern gave up on a text of ", subject_.size(), " bytes: ", message(result));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_->match);
  const Match found{offsets[0], offsets[1]};
  check<ConfigError>(found.begin <= found.end && found.begin >= at_, regex_.code_->where, ": the pattern matches backwards");
  at_ = found.end;
  if (found.begin == found.end) at_ += at_ < subject_.size() ? decode_utf8(subject_, at_).size : 1;
  return found;
}

std::string Regex::replace(std::string_view text, std::string_view content) const {
  std::string out;
  std::size_t done = 0;
  Matcher matcher(*this);
  matcher.start(text);
  while (const auto match = matcher.next()) {
    out += text.substr(done, match->begin - done);
    out += content;
    done = match->end;
  }
  return out += text.substr(done);
}

void replace_matches(Text& text, const Regex& regex, std::string_view content) {
  Regex::Matcher matcher(regex);
  Rewriter out(text);
  std::size_t done = 0;
  matcher.start(out.source());
  while (const auto match = matcher.next()) {
    out.keep(done, match->begin);
    // The content stands for the last character of the match, or before it if the match is empty, as in the reference.
    std::size_t last = match->end;
    if (last > 0) previous_character(out.source(), last);
    out.put(content, last, match->end);
    done = match->end;
  }
  out.keep(done, out.source().size());
  out.finish();
}

}  // namespace cambium::detail
