// Normalizers: Unicode forms, lower case, prefixes, replacements.
#include <utility>

#include "nn/text/byte_alphabet.h"
#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"
#include "nn/text/unicode.h"

namespace cambium::detail {

namespace {

Normalizer normal_form(NormalForm form) {
  return [form](std::string& text) { text = normalize_unicode(text, form); };
}

Normalizer lowercase(const Json&, const std::string&) {
  return [](std::string& text) { text = to_lower_case(text); };
}

Normalizer prepend(const Json& section, const std::string& where) {
  return [prefix = text_of(section, "prepend", where)](std::string& text) {
    if (!text.empty()) text.insert(0, prefix);
  };
}

Normalizer replace(const Json& section, const std::string& where) {
  return [pattern = read_pattern(section, where), content = text_of(section, "content", where)](std::string& text) {
    for (const Regex& regex : pattern) text = regex.replace(text, content);
  };
}

Normalizer strip(const Json& section, const std::string& where) {
  const bool left = flag_of(section, "strip_left", true, where), right = flag_of(section, "strip_right", true, where);
  return [=](std::string& text) { text = std::string(trim_white_space(text, left, right)); };
}

Normalizer byte_level(const Json&, const std::string&) {
  return [](std::string& text) {
    std::string bytes;
    append_byte_alphabet(bytes, text);
    text = std::move(bytes);
  };
}

Normalizer sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "normalizers", where);
  check<ConfigError>(list.is_array(), where, ": normalizers: expected a list, found ", list.type_name());
  std::vector<Normalizer> steps;
  for (const Json& item : list) steps.push_back(make_normalizer(item, where + "[" + std::to_string(steps.size()) + "]"));
  return [steps](std::string& text) {
    for (const Normalizer& step : steps) {
      if (step) step(text);
    }
  };
}

template <NormalForm form>
Normalizer make_form(const Json&, const std::string&) { return normal_form(form); }

using Make = Normalizer (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 10> kNormalizers{{
    {"NFC", make_form<NormalForm::nfc>}, {"NFD", make_form<NormalForm::nfd>}, {"NFKC", make_form<NormalForm::nfkc>},
    {"NFKD", make_form<NormalForm::nfkd>}, {"Lowercase", lowercase}, {"Prepend", prepend}, {"Replace", replace},
    {"Strip", strip}, {"ByteLevel", byte_level}, {"Sequence", sequence}}};

}  // namespace

Normalizer make_normalizer(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(kNormalizers, type_of(section, where), where)(section, where);
}

Normalizer unicode_normalizer(std::string_view form) { return find_type(kNormalizers, form, "normalizer")(Json(), "normalizer"); }

}  // namespace cambium::detail
