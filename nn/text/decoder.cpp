// Decoders: from the texts of tokens back to text.
#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "nn/text/byte_alphabet.h"
#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (text.find(from) == std::string::npos) return;
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  text = out.append(text, done);
}

namespace decoders {

Decoder byte_level(const Json&, const std::string&) { return byte_level_decoder(); }

// <0xHH> tokens in a row are one text if they are valid UTF-8, else one U+FFFD each.
Decoder byte_fallback(const Json&, const std::string&) {
  return [](std::vector<std::string>& tokens) {
    std::vector<std::string> out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes)) out.push_back(bytes);
      else out.insert(out.end(), bytes.size(), std::string(kReplacementCharacter));
      bytes.clear();
    };
    for (std::string& token : tokens) {
      unsigned value = 0;
      const char* digits = token.data() + 3;
      if (token.size() == 6 && token.starts_with("<0x") && token.ends_with('>') && std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2) {
        bytes += static_cast<char>(value);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  };
}

Decoder fuse(const Json&, const std::string&) {
  return [](std::vector<std::string>& tokens) {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.assign(1, std::move(all));
  };
}

Decoder replace(const Json& section, const std::string& where) {
  return [pattern = read_pattern(section, where), content = text_of(section, "content", where)](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      if (!is_valid_utf8(token)) token = repair_utf8(token);
      for (const Regex& regex : pattern) token = regex.replace(token, content);
    }
  };
}

// Takes at most `start` and `stop` characters `content` off the ends of each token.
Decoder strip(const Json& section, const std::string& where) {
  const std::string content = character_of(section, "content", " ", where);
  const auto count = [&](const char* key) {
    const Json& value = member_of(section, key, where);
    check<ConfigError>(value.is_number_unsigned(), where, ": ", key, ": expected a whole number of at least 0, found ", value.dump());
    return value.get<std::size_t>();
  };
  const std::size_t start = count("start"), stop = count("stop");
  return [=](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      std::string_view text = token;
      for (std::size_t i = 0; i < start && text.starts_with(content); ++i) text.remove_prefix(content.size());
      for (std::size_t i = 0; i < stop && text.ends_with(content); ++i) text.remove_suffix(content.size());
      token = std::string(text);
    }
  };
}

Decoder metaspace(const Json& section, const std::string& where) {
  const std::string mark = character_of(section, "replacement", "▁", where);
  const bool prepends = text_of(section, "prepend_scheme", flag_of(section, "add_prefix_space", true, where) ? "always" : "never", where) != "never";
  const Regex pattern = Regex::literal(mark, where);
  return [=](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = pattern.replace(tokens[i], i == 0 && prepends ? "" : " ");
  };
}

// A suffix marks the end of a word.
Decoder bpe_suffix(const Json& section, const std::string& where) {
  const std::string suffix = text_of(section, "suffix", "</w>", where);
  check<ConfigError>(!suffix.empty(), where, ": suffix: expected a text, found an empty one");
  const Regex pattern = Regex::literal(suffix, where);
  return [pattern](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = pattern.replace(tokens[i], i + 1 == tokens.size() ? "" : " ");
  };
}

Decoder word_piece(const Json& section, const std::string& where) {
  return word_piece_decoder(text_of(section, "prefix", "##", where), flag_of(section, "cleanup", true, where));
}

Decoder sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "decoders", where);
  check<ConfigError>(list.is_array(), where, ": decoders: expected a list, found ", list.type_name());
  std::vector<Decoder> steps;
  for (const Json& item : list) steps.push_back(make_decoder(item, where + "[" + std::to_string(steps.size()) + "]"));
  return [steps](std::vector<std::string>& tokens) {
    for (const Decoder& step : steps) {
      if (step) step(tokens);
    }
  };
}

using Make = Decoder (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 9> kTypes{{
    {"ByteLevel", byte_level}, {"ByteFallback", byte_fallback}, {"Fuse", fuse}, {"Replace", replace}, {"Strip", strip},
    {"Metaspace", metaspace}, {"BPEDecoder", bpe_suffix}, {"WordPiece", word_piece}, {"Sequence", sequence}}};

}  // namespace decoders

}  // namespace

Decoder make_decoder(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(decoders::kTypes, type_of(section, where), where)(section, where);
}

Decoder byte_level_decoder() {
  return [](std::vector<std::string>& tokens) {
    std::string bytes;
    for (const std::string& token : tokens) append_from_byte_alphabet(bytes, token);
    tokens.assign(1, std::move(bytes));
  };
}

Decoder word_piece_decoder(std::string prefix, bool cleanup) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kCleanup{{
      {" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}}};
  return [prefix = std::move(prefix), cleanup](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0 && token.starts_with(prefix)) token.erase(0, prefix.size());
      else if (i > 0) token.insert(0, " ");
      if (!cleanup) continue;
      for (const auto& [from, to] : kCleanup) replace_all(token, from, to);
    }
  };
}

}  // namespace cambium::detail
