// Pattern through PCRE2, with limits, since patterns come from files.
#include "nn/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "kernels/error.h"

namespace cambium {

Pattern::Pattern(const std::string& text) : text_(text) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    char message[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    fail<ConfigError>("regular expression '", text, "': ", message, " at character ", offset);
  }
  code_ = std::shared_ptr<const void>(code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

bool Pattern::run(std::string_view subject, unsigned options) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), 1'000'000);
  const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), 0, options, data.get(), limits.get());
  check<ConfigError>(result >= 0 || result == PCRE2_ERROR_NOMATCH, "regular expression '", text_, "': gave up on '", subject, "' (error ", result, ")");
  return result >= 0;
}

bool Pattern::matches_whole(std::string_view subject) const { return run(subject, PCRE2_ANCHORED | PCRE2_ENDANCHORED); }
bool Pattern::matches_start(std::string_view subject) const { return run(subject, PCRE2_ANCHORED); }
bool Pattern::found_in(std::string_view subject) const { return run(subject, 0); }

}  // namespace cambium
