// Post-processors: special tokens around one text.
#include <utility>

#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"

namespace cambium::detail {

namespace {

using Ids = std::vector<std::int64_t>;

std::int64_t id_from(const Json& value, const std::string& where) {
  check<ConfigError>(value.is_number_unsigned() && value.get<std::uint64_t>() <= INT32_MAX, where, ": expected an id in 0 … 2147483647, found ", value.dump());
  return value.get<std::int64_t>();
}

PostProcessor surround(Ids before, Ids after) {
  return [before = std::move(before), after = std::move(after)](Ids& ids) {
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
  };
}

// The offsets that it trims do not exist here.
PostProcessor byte_level(const Json&, const std::string&) { return {}; }

PostProcessor template_processing(const Json& section, const std::string& where) {
  const Json& single = member_of(section, "single", where);
  const Json& specials = member_of(section, "special_tokens", where);
  check<ConfigError>(single.is_array(), where, ": single: expected a list, found ", single.type_name());
  check<ConfigError>(specials.is_object(), where, ": special_tokens: expected an object, found ", specials.type_name());
  Ids before, after;
  bool text_seen = false;
  for (const Json& item : single) {
    check<ConfigError>(item.is_object() && item.size() == 1, where, R"(: single: expected {"SpecialToken": …} or {"Sequence": …}, found )", item.dump());
    const std::string kind = item.begin().key();
    check<ConfigError>(item.begin().value().is_object(), where, ": single: ", kind, ": expected an object");
    const std::string id = text_of(item.begin().value(), "id", where + ": single: " + kind);
    if (kind == "Sequence") {
      check<ConfigError>(id == "A" && !text_seen, where, ": single: expected the sequence A once, found ", item.dump());
      text_seen = true;
      continue;
    }
    check<ConfigError>(kind == "SpecialToken", where, ": single: expected SpecialToken or Sequence, found ", kind);
    const auto special = specials.find(id);
    check<ConfigError>(special != specials.end() && special->is_object() && special->contains("ids") && (*special)["ids"].is_array(), where,
                       ": special_tokens: expected ids of ", id, ", found none");
    for (const Json& value : (*special)["ids"]) (text_seen ? after : before).push_back(id_from(value, where + ": special_tokens: " + id));
  }
  check<ConfigError>(text_seen, where, ": single: expected the sequence A, found none");
  return surround(std::move(before), std::move(after));
}

// [CLS] text [SEP], each given as ["text", id].
PostProcessor classes(const Json& section, const std::string& where) {
  const auto id = [&](const char* key) {
    const Json& pair = member_of(section, key, where);
    check<ConfigError>(pair.is_array() && pair.size() == 2, where, ": ", key, R"(: expected ["text", id], found )", pair.dump());
    return id_from(pair[1], where + ": " + key);
  };
  return surround({id("cls")}, {id("sep")});
}

PostProcessor sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "processors", where);
  check<ConfigError>(list.is_array(), where, ": processors: expected a list, found ", list.type_name());
  std::vector<PostProcessor> steps;
  for (const Json& item : list) steps.push_back(make_post_processor(item, where + "[" + std::to_string(steps.size()) + "]"));
  return [steps](Ids& ids) {
    for (const PostProcessor& step : steps) {
      if (step) step(ids);
    }
  };
}

using Make = PostProcessor (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 5> kPostProcessors{{
    {"ByteLevel", byte_level}, {"TemplateProcessing", template_processing}, {"RobertaProcessing", classes}, {"BertProcessing", classes},
    {"Sequence", sequence}}};

}  // namespace

PostProcessor make_post_processor(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(kPostProcessors, type_of(section, where), where)(section, where);
}

}  // namespace cambium::detail
