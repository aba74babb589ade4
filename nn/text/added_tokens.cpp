// Search for added tokens: contents in sorted order, narrowed byte by byte.
#include "nn/text/added_tokens.h"

#include <algorithm>

#include "kernels/error.h"
#include "nn/text/unicode.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

unsigned char byte_of(char c) { return static_cast<unsigned char>(c); }

bool word_before(std::string_view text, std::size_t at) { return at > 0 && is_word_character(previous_character(text, at)); }
bool word_after(std::string_view text, std::size_t at) { return at < text.size() && is_word_character(next_character(text, at)); }

}  // namespace

void TokenMatcher::add(std::string content, const AddedToken& token, const std::string& where) {
  if (content.empty() || content.size() > 1024) {
    fail<ConfigError>(where, ": added token ", token.id, ": expected a content of 1 to 1024 bytes, found ", content.size());
  }
  entries_.push_back({std::move(content), token});
}

void TokenMatcher::finish() {
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.content < b.content; });
  first_.assign(257, 0);
  for (const Entry& entry : entries_) ++first_[byte_of(entry.content[0]) + std::size_t{1}];
  for (std::size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
}

const TokenMatcher::Entry* TokenMatcher::longest_at(std::string_view text, std::size_t at) const {
  const std::size_t lead = byte_of(text[at]);
  auto begin = entries_.begin() + static_cast<std::ptrdiff_t>(first_[lead]);
  auto end = entries_.begin() + static_cast<std::ptrdiff_t>(first_[lead + 1]);
  const Entry* longest = nullptr;
  for (std::size_t length = 1; begin != end; ++length) {
    if (begin->content.size() == length) longest = &*begin;  // the shortest of those that share the prefix comes first
    if (at + length >= text.size()) break;
    const unsigned char next = byte_of(text[at + length]);
    begin = std::partition_point(begin, end, [&](const Entry& entry) { return entry.content.size() <= length || byte_of(entry.content[length]) < next; });
    end = std::partition_point(begin, end, [&](const Entry& entry) { return byte_of(entry.content[length]) == next; });
  }
  return longest;
}

std::vector<Segment> TokenMatcher::split(std::string_view text) const {
  std::vector<Segment> segments;
  if (entries_.empty()) {
    if (!text.empty()) segments.push_back({text});
    return segments;
  }
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Entry* entry = longest_at(text, at);
    if (!entry) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + entry->content.size();
    at = end;
    const AddedToken& token = entry->token;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token.lstrip) begin = std::max(done, trim_white_space(text.substr(0, begin), false, true).size());
    if (token.rstrip) end = text.size() - trim_white_space(text.substr(end), true, false).size();
    if (done < begin) segments.push_back({text.substr(done, begin - done)});
    segments.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done)});
  return segments;
}

void AddedTokens::add(AddedToken token, const Normalizer& normalizer, const std::string& where) {
  if (!by_id_.emplace(token.id, tokens_.size()).second) {
    fail<ConfigError>(where, ": id ", token.id, " stands for two added tokens: expected ids that differ");
  }
  if (!by_content_.emplace(token.content, tokens_.size()).second) {
    fail<ConfigError>(where, ": ", quote_for_message(token.content), " is added twice: expected each token once");
  }
  token.shown = token.content;
  if (token.normalized && normalizer) {
    Text shown(token.content, false);
    normalizer(shown);
    token.shown = shown.bytes();
  }
  // What normalizes to nothing can never be found.
  if (token.matched && (!token.shown.empty() || token.content.empty())) (token.normalized ? normalized_ : raw_).add(token.shown, token, where);
  tokens_.push_back(std::move(token));
}

const AddedToken* AddedTokens::find(std::int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(const std::string& content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace cambium::detail
