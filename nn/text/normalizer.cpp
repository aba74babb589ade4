// Normalizers: Unicode forms, lower case, accents, prefixes, replacements, character maps.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "nn/text/base64.h"
#include "nn/text/byte_alphabet.h"
#include "nn/text/character_map.h"
#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

// Puts `characters` in the text's place. Each stands for the first of those it takes, as the reference has it, or, taking none, for the last that was taken.
void rewrite(Text& text, const std::vector<NormalCharacter>& characters) {
  Rewriter out(text);
  const std::string& source = out.source();
  std::size_t last = 0, at = 0;  // the last character taken is [last, at)
  std::string bytes;
  for (const NormalCharacter& c : characters) {
    std::size_t begin = last, end = at;
    for (std::size_t i = 0; i < c.taken && at < source.size(); ++i) {
      last = at;
      next_character(source, at);
      if (i == 0) begin = last, end = at;
    }
    bytes.clear();
    append_utf8(bytes, c.character);
    out.put(bytes, begin, end);
  }
  out.finish();
}

void normalize(Text& text, NormalForm form) {
  const std::string& bytes = text.bytes();
  if (std::any_of(bytes.begin(), bytes.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) rewrite(text, normal_characters(bytes, form));
}

// put(out, character, begin, end) for every character.
template <class Put>
void rewrite_characters(Text& text, Put&& put) {
  Rewriter out(text);
  for (std::size_t at = 0; at < out.source().size();) {
    const std::size_t begin = at;
    const char32_t character = next_character(out.source(), at);
    put(out, character, begin, at);
  }
  out.finish();
}

void lower_case(Text& text) {
  rewrite_characters(text, [](Rewriter& out, char32_t, std::size_t begin, std::size_t end) {
    out.put(to_lower_case(std::string_view(out.source()).substr(begin, end - begin)), begin, end);
  });
}

template <class Predicate>
void drop_characters(Text& text, Predicate&& drops) {
  rewrite_characters(text, [&](Rewriter& out, char32_t c, std::size_t begin, std::size_t end) {
    if (!drops(c)) out.keep(begin, end);
  });
}

Normalizer normal_form(NormalForm form) {
  return [form](Text& text) { normalize(text, form); };
}

namespace normalizers {

Normalizer lowercase(const Json&, const std::string&) { return lower_case; }

Normalizer strip_accents(const Json&, const std::string&) {
  return [](Text& text) { drop_characters(text, is_mark); };
}

Normalizer prepend(const Json& section, const std::string& where) {
  return [prefix = text_of(section, "prepend", where)](Text& text) {
    if (!text.empty()) detail::prepend(text, prefix);
  };
}

Normalizer replace(const Json& section, const std::string& where) {
  return [pattern = read_pattern(section, where), content = text_of(section, "content", where)](Text& text) {
    for (const Regex& regex : pattern) replace_matches(text, regex, content);
  };
}

Normalizer strip(const Json& section, const std::string& where) {
  const bool left = flag_of(section, "strip_left", true, where), right = flag_of(section, "strip_right", true, where);
  return [=](Text& text) {
    const std::string_view whole = text.bytes(), rest = trim_white_space(whole, left, right);
    const auto begin = static_cast<std::size_t>(rest.data() - whole.data());
    text = text.slice(begin, begin + rest.size());
  };
}

Normalizer byte_level(const Json&, const std::string&) { return to_byte_alphabet; }

// Control characters go, and what is white space to Moses becomes a blank (sentencepiece, builder.cc: nmt_nfkc).
Normalizer nmt(const Json&, const std::string&) {
  return [](Text& text) {
    rewrite_characters(text, [](Rewriter& out, char32_t c, std::size_t begin, std::size_t end) {
      const bool drops = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
      const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      if (blank) out.put(" ", begin, end);
      else if (!drops) out.keep(begin, end);
    });
  };
}

// The reference maps a grapheme cluster below six bytes as one, by the shortest rule that its bytes begin with, and all else by character.
Normalizer precompiled(const Json& section, const std::string& where) {
  const auto found = section.find("precompiled_charsmap");
  if (found == section.end() || found->is_null() || *found == "") return {};
  auto map = std::make_shared<const CharacterMap>(decode_base64(text_of(section, "precompiled_charsmap", where), where), where + ": precompiled_charsmap");
  return [map = std::move(map)](Text& text) {
    const std::string& source = text.bytes();
    std::vector<NormalCharacter> characters;
    characters.reserve(source.size());
    // As many characters as the rule puts stand for one each; further ones are added to the last, and the last one takes what is over.
    // So it is in the reference, where what a rule drops at the start of a text shifts the origins of all that follows.
    const auto put = [&](std::string_view from, std::string_view to) {
      std::size_t left = count_characters(from);
      for (std::size_t at = 0; at < to.size();) {
        characters.push_back({next_character(to, at), left > 0 ? 1U : 0U});
        left -= left > 0 ? 1 : 0;
      }
      if (!characters.empty()) characters.back().taken += left;
    };
    for (std::size_t at = 0; at < source.size();) {
      const std::size_t begin = at;
      at = grapheme_end(source, at);
      const std::string_view cluster = std::string_view(source).substr(begin, at - begin);
      const auto mapped = cluster.size() < 6 ? map->shortest(cluster) : std::nullopt;
      if (mapped) {
        put(cluster, mapped->text);
        continue;
      }
      for (std::size_t inner = begin; inner < at;) {
        const std::size_t first = inner;
        next_character(source, inner);
        const std::string_view own = std::string_view(source).substr(first, inner - first);
        const auto one = map->shortest(own);
        put(own, one ? one->text : own);
      }
    }
    rewrite(text, characters);
  };
}

Normalizer bert(const Json& section, const std::string& where) {
  BertNormalizerOptions options{.clean_text = flag_of(section, "clean_text", true, where),
                                .handle_chinese_chars = flag_of(section, "handle_chinese_chars", true, where),
                                .lowercase = flag_of(section, "lowercase", true, where)};
  options.strip_accents = flag_of(section, "strip_accents", options.lowercase, where);
  return bert_normalizer(options);
}

Normalizer sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "normalizers", where);
  check<ConfigError>(list.is_array(), where, ": normalizers: expected a list, found ", list.type_name());
  std::vector<Normalizer> steps;
  for (const Json& item : list) steps.push_back(make_normalizer(item, where + "[" + std::to_string(steps.size()) + "]"));
  return [steps](Text& text) {
    for (const Normalizer& step : steps) {
      if (step) step(text);
    }
  };
}

template <NormalForm form>
Normalizer make_form(const Json&, const std::string&) { return normal_form(form); }

using Make = Normalizer (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 14> kTypes{{
    {"NFC", make_form<NormalForm::nfc>}, {"NFD", make_form<NormalForm::nfd>}, {"NFKC", make_form<NormalForm::nfkc>},
    {"NFKD", make_form<NormalForm::nfkd>}, {"Lowercase", lowercase}, {"Prepend", prepend}, {"Replace", replace},
    {"Strip", strip}, {"StripAccents", strip_accents}, {"ByteLevel", byte_level}, {"Nmt", nmt}, {"Precompiled", precompiled},
    {"BertNormalizer", bert}, {"Sequence", sequence}}};

}  // namespace normalizers

}  // namespace

Normalizer make_normalizer(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(normalizers::kTypes, type_of(section, where), where)(section, where);
}

Normalizer unicode_normalizer(std::string_view form) { return find_type(normalizers::kTypes, form, "normalizer")(Json(), "normalizer"); }

Normalizer bert_normalizer(const BertNormalizerOptions& options) {
  return [options](Text& text) {
    if (options.clean_text) {
      rewrite_characters(text, [](Rewriter& out, char32_t c, std::size_t begin, std::size_t end) {
        const bool named = c == '\t' || c == '\n' || c == '\r';  // white space to BERT; all other control characters go, \v and \f too
        if (c == 0 || c == 0xFFFD || (is_control(c) && !named)) return;
        if (is_white_space(c)) out.put(" ", begin, end);
        else out.keep(begin, end);
      });
    }
    if (options.handle_chinese_chars) {
      rewrite_characters(text, [](Rewriter& out, char32_t c, std::size_t begin, std::size_t end) {
        const bool ideograph = is_ideograph(c);
        if (ideograph) out.put(" ", begin, end);
        out.keep(begin, end);
        if (ideograph) out.put(" ", begin, end);
      });
    }
    if (options.strip_accents) {
      normalize(text, NormalForm::nfd);
      drop_characters(text, is_nonspacing_mark);
    }
    if (options.lowercase) lower_case(text);
  };
}

}  // namespace cambium::detail
