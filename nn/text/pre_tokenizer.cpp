// Pre-tokenizers: cutting a text into the pieces that the model sees.
#include <algorithm>
#include <utility>

#include "nn/text/byte_alphabet.h"
#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

// Radford et al. 2019, encoder.py.
constexpr std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Span {
  std::size_t begin, end;
  bool match;
};

// Matches and the gaps between them, in order, covering the text.
std::vector<Span> find_spans(Regex::Matcher& matcher, std::string_view text) {
  std::vector<Span> spans;
  std::size_t done = 0;
  matcher.start(text);
  while (const auto match = matcher.next()) {
    if (match->begin > done) spans.push_back({done, match->begin, false});
    spans.push_back({match->begin, match->end, true});
    done = match->end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

template <class Predicate>
std::vector<Span> find_spans_of(Predicate&& predicate, std::string_view text) {
  std::vector<Span> spans;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const bool match = predicate(next_character(text, at));
    if (!match && !spans.empty() && !spans.back().match) spans.back().end = at;
    else spans.push_back({begin, at, match});
  }
  return spans;
}

// As NormalizedString::split of the reference: spans that the behaviour joins become one.
void join_spans(std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<Span> joined;
  bool previous = false;
  const auto forward = [&](auto&& joins) {
    for (const Span& span : spans) {
      if (joins(span.match) && !joined.empty()) joined.back().end = span.end;
      else joined.push_back(span);
      previous = span.match;
    }
  };
  switch (behavior) {
    case SplitBehavior::isolated: return;
    case SplitBehavior::removed:
      spans.erase(std::remove_if(spans.begin(), spans.end(), [](const Span& span) { return span.match; }), spans.end());
      return;
    case SplitBehavior::contiguous: forward([&](bool match) { return match == previous; }); break;
    case SplitBehavior::merged_with_previous: forward([&](bool match) { return match && !previous; }); break;
    case SplitBehavior::merged_with_next:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        if (span->match && !previous && !joined.empty()) joined.back().begin = span->begin;
        else joined.push_back(*span);
        previous = span->match;
      }
      std::reverse(joined.begin(), joined.end());
      break;
  }
  spans = std::move(joined);
}

// Replaces each piece by the spans that `find` returns for its text.
template <class Find>
void cut(std::vector<Piece>& pieces, Find&& find) {
  std::vector<Piece> cut_pieces;
  for (const Piece& piece : pieces) {
    for (const Span& span : find(piece.text.bytes())) {
      if (span.begin < span.end) cut_pieces.push_back({piece.text.slice(span.begin, span.end), piece.at_start && span.begin == 0});
    }
  }
  pieces = std::move(cut_pieces);
}

template <class Predicate>
PreTokenizer split_by_character(Predicate predicate, SplitBehavior behavior) {
  return [=](std::vector<Piece>& pieces) {
    cut(pieces, [&](const std::string& text) {
      std::vector<Span> spans = find_spans_of(predicate, text);
      join_spans(spans, behavior);
      return spans;
    });
  };
}

SplitBehavior behavior_of(const Json& section, std::string_view otherwise, const std::string& where) {
  static constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors{{
      {"Removed", SplitBehavior::removed}, {"Isolated", SplitBehavior::isolated}, {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next}, {"Contiguous", SplitBehavior::contiguous}}};
  return find_type(kBehaviors, text_of(section, "behavior", otherwise, where), where + ": behavior");
}

namespace pre_tokenizers {

PreTokenizer byte_level(const Json& section, const std::string& where) {
  return byte_level_pre_tokenizer(flag_of(section, "add_prefix_space", true, where), flag_of(section, "use_regex", true, where));
}

PreTokenizer split(const Json& section, const std::string& where) {
  std::vector<Regex> pattern = read_pattern(section, where);
  const SplitBehavior behavior = behavior_of(section, "", where);
  const bool invert = flag_of(section, "invert", false, where);
  if (pattern.empty()) pattern.push_back(Regex("(?!)", where));  // an empty string: matches nowhere
  return split_pre_tokenizer(std::move(pattern.front()), behavior, invert);
}

PreTokenizer digits(const Json& section, const std::string& where) {
  return digits_pre_tokenizer(flag_of(section, "individual_digits", false, where));
}

PreTokenizer punctuation(const Json& section, const std::string& where) {
  return split_by_character(is_punctuation, behavior_of(section, "Isolated", where));
}

PreTokenizer white_space_split(const Json&, const std::string&) {
  return split_by_character(is_white_space, SplitBehavior::removed);
}

PreTokenizer bert(const Json&, const std::string&) { return bert_pre_tokenizer(); }

PreTokenizer split_at_delimiter(const Json& section, const std::string& where) {
  return split_pre_tokenizer(Regex::literal(character_of(section, "delimiter", "", where), where), SplitBehavior::removed);
}

// \w+|[^\w\s]+ with what lies between removed.
PreTokenizer white_space(const Json&, const std::string&) {
  return [](std::vector<Piece>& pieces) {
    cut(pieces, [](const std::string& text) {
      std::vector<Span> spans;
      int last = 0;  // 0 space, 1 word, 2 other
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        const char32_t character = next_character(text, at);
        const int kind = is_word_character(character) ? 1 : is_white_space(character) ? 0 : 2;
        if (kind != 0 && kind == last) spans.back().end = at;
        else if (kind != 0) spans.push_back({begin, at, true});
        last = kind;
      }
      return spans;
    });
  };
}

PreTokenizer metaspace(const Json& section, const std::string& where) {
  const std::string mark = character_of(section, "replacement", "▁", where);
  const std::string scheme = text_of(section, "prepend_scheme", flag_of(section, "add_prefix_space", true, where) ? "always" : "never", where);
  check<ConfigError>(scheme == "always" || scheme == "first" || scheme == "never", where, ": prepend_scheme: expected always, first or never, found ", scheme);
  const bool splits = flag_of(section, "split", true, where);
  const Regex blank = Regex::literal(" ", where), cut_mark = Regex::literal(mark, where);
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      replace_matches(piece.text, blank, mark);
      const bool prepends = scheme == "always" || (scheme == "first" && piece.at_start);
      if (prepends && !piece.text.bytes().starts_with(mark)) prepend(piece.text, mark);
    }
    if (splits) split_pre_tokenizer(cut_mark, SplitBehavior::merged_with_next)(pieces);
  };
}

PreTokenizer sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "pretokenizers", where);
  check<ConfigError>(list.is_array(), where, ": pretokenizers: expected a list, found ", list.type_name());
  std::vector<PreTokenizer> steps;
  for (const Json& item : list) steps.push_back(make_pre_tokenizer(item, where + "[" + std::to_string(steps.size()) + "]"));
  return pre_tokenizer_sequence(std::move(steps));
}

using Make = PreTokenizer (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 10> kTypes{{
    {"ByteLevel", byte_level}, {"Split", split}, {"Digits", digits}, {"Punctuation", punctuation}, {"Whitespace", white_space},
    {"WhitespaceSplit", white_space_split}, {"Metaspace", metaspace}, {"BertPreTokenizer", bert},
    {"CharDelimiterSplit", split_at_delimiter}, {"Sequence", sequence}}};

}  // namespace pre_tokenizers

}  // namespace

PreTokenizer make_pre_tokenizer(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(pre_tokenizers::kTypes, type_of(section, where), where)(section, where);
}

PreTokenizer split_pre_tokenizer(Regex pattern, SplitBehavior behavior, bool invert) {
  return [pattern = std::move(pattern), behavior, invert](std::vector<Piece>& pieces) {
    Regex::Matcher matcher(pattern);
    cut(pieces, [&](const std::string& text) {
      std::vector<Span> spans = find_spans(matcher, text);
      if (invert) {
        for (Span& span : spans) span.match = !span.match;
      }
      join_spans(spans, behavior);
      return spans;
    });
  };
}

PreTokenizer digits_pre_tokenizer(bool individual) {
  return split_by_character(is_numeric, individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
}

PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex) {
  PreTokenizer split = use_regex ? split_pre_tokenizer(Regex(kGpt2Pattern, "ByteLevel"), SplitBehavior::isolated) : PreTokenizer{};
  return [add_prefix_space, split = std::move(split)](std::vector<Piece>& pieces) {
    if (add_prefix_space) {
      for (Piece& piece : pieces) {
        if (!piece.text.bytes().starts_with(' ')) prepend(piece.text, " ", false);
      }
    }
    if (split) split(pieces);
    for (Piece& piece : pieces) to_byte_alphabet(piece.text);
  };
}

PreTokenizer bert_pre_tokenizer() {
  return pre_tokenizer_sequence({split_by_character(is_white_space, SplitBehavior::removed), split_by_character(is_punctuation, SplitBehavior::isolated)});
}

PreTokenizer pre_tokenizer_sequence(std::vector<PreTokenizer> steps) {
  return [steps = std::move(steps)](std::vector<Piece>& pieces) {
    for (const PreTokenizer& step : steps) {
      if (step) step(pieces);
    }
  };
}

std::vector<Regex> read_pattern(const Json& section, const std::string& where) {
  const Json& pattern = member_of(section, "pattern", where);
  check<ConfigError>(pattern.is_object() && pattern.size() == 1, where, R"(: pattern: expected {"String": …} or {"Regex": …})");
  if (pattern.contains("Regex")) return {Regex(text_of(pattern, "Regex", where + ": pattern"), where)};
  const std::string text = text_of(pattern, "String", where + ": pattern");
  if (text.empty()) return {};
  return {Regex::literal(text, where)};
}

std::string character_of(const Json& section, const char* key, std::string_view otherwise, const std::string& where) {
  std::string text = text_of(section, key, otherwise, where);
  check<ConfigError>(count_characters(text) == 1, where, ": ", key, ": expected one character, found \"", text, "\"");
  return text;
}

}  // namespace cambium::detail
