// Post-processors: special tokens around a text and between two.
#include <utility>

#include "nn/text/factory.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"

namespace cambium::detail {

namespace {

using Items = std::vector<TemplateItem>;

std::int64_t id_from(const Json& value, const std::string& where) {
  check<ConfigError>(value.is_number_unsigned() && value.get<std::uint64_t>() <= INT32_MAX, where, ": expected an id in 0 … 2147483647, found ", value.dump());
  return value.get<std::int64_t>();
}

namespace post_processors {

PostProcessor byte_level(const Json& section, const std::string& where) { return {.trims_origins = flag_of(section, "trim_offsets", true, where)}; }

// A list of {"SpecialToken": {"id", "type_id"}} and {"Sequence": {"id": "A" or "B", "type_id"}} in which every text stands once.
Items template_items(const Json& list, const Json& specials, std::size_t texts, const std::string& where) {
  check<ConfigError>(list.is_array(), where, ": expected a list, found ", list.type_name());
  Items items;
  std::vector<bool> seen(texts, false);
  for (const Json& item : list) {
    check<ConfigError>(item.is_object() && item.size() == 1, where, R"(: expected {"SpecialToken": …} or {"Sequence": …}, found )", item.dump());
    const std::string kind = item.begin().key();
    const Json& content = item.begin().value();
    check<ConfigError>(content.is_object(), where, ": ", kind, ": expected an object");
    const std::string id = text_of(content, "id", where + ": " + kind);
    const std::int64_t type_id = content.contains("type_id") ? json_integer(content["type_id"], where + ": " + kind + ": type_id", 0, INT32_MAX) : 0;
    if (kind == "Sequence") {
      const std::size_t index = id == "A" ? 0 : id == "B" ? 1 : texts;
      check<ConfigError>(index < texts && !seen[index], where, ": expected the sequence ", texts == 1 ? "A once" : "A and the sequence B once each", ", found ", item.dump());
      seen[index] = true;
      items.push_back({.sequence = static_cast<std::int64_t>(index), .type_id = type_id});
      continue;
    }
    check<ConfigError>(kind == "SpecialToken", where, ": expected SpecialToken or Sequence, found ", kind);
    const auto special = specials.find(id);
    check<ConfigError>(special != specials.end() && special->is_object() && special->contains("ids") && (*special)["ids"].is_array(), where,
                       ": special_tokens: expected ids of ", id, ", found none");
    for (const Json& value : (*special)["ids"]) items.push_back({.id = id_from(value, where + ": special_tokens: " + id), .type_id = type_id});
  }
  for (std::size_t i = 0; i < texts; ++i) check<ConfigError>(seen[i], where, ": expected the sequence ", i == 0 ? "A" : "B", ", found none");
  return items;
}

PostProcessor template_processing(const Json& section, const std::string& where) {
  const Json& specials = member_of(section, "special_tokens", where);
  check<ConfigError>(specials.is_object(), where, ": special_tokens: expected an object, found ", specials.type_name());
  PostProcessor processor{.single = template_items(member_of(section, "single", where), specials, 1, where + ": single")};
  const auto pair = section.find("pair");
  if (pair != section.end() && !pair->is_null()) processor.pair = template_items(*pair, specials, 2, where + ": pair");
  return processor;
}

// "cls" and "sep", each given as ["text", id].
std::int64_t mark_of(const Json& section, const char* key, const std::string& where) {
  const Json& pair = member_of(section, key, where);
  check<ConfigError>(pair.is_array() && pair.size() == 2, where, ": ", key, R"(: expected ["text", id], found )", pair.dump());
  return id_from(pair[1], where + ": " + key);
}

PostProcessor bert(const Json& section, const std::string& where) { return bert_post_processor(mark_of(section, "cls", where), mark_of(section, "sep", where)); }

// <s> a </s></s> b </s>, all of one type.
PostProcessor roberta(const Json& section, const std::string& where) {
  const std::int64_t cls = mark_of(section, "cls", where), sep = mark_of(section, "sep", where);
  return {.single = {{.id = cls}, {.sequence = 0}, {.id = sep}},
          .pair = {{.id = cls}, {.sequence = 0}, {.id = sep}, {.id = sep}, {.sequence = 1}, {.id = sep}},
          .trims_origins = flag_of(section, "trim_offsets", true, where)};
}

PostProcessor sequence(const Json& section, const std::string& where) {
  const Json& list = member_of(section, "processors", where);
  check<ConfigError>(list.is_array(), where, ": processors: expected a list, found ", list.type_name());
  PostProcessor all;
  std::size_t templates = 0, index = 0;
  for (const Json& item : list) {
    PostProcessor step = make_post_processor(item, where + "[" + std::to_string(index++) + "]");
    all.trims_origins = all.trims_origins || step.trims_origins;
    if (step.single.size() == 1 && type_of(item, where) != "TemplateProcessing") continue;
    check<ConfigError>(++templates == 1, where, ": expected one processor that puts special tokens, found two");
    all.single = std::move(step.single), all.pair = std::move(step.pair);
  }
  return all;
}

using Make = PostProcessor (*)(const Json&, const std::string&);
constexpr std::array<std::pair<std::string_view, Make>, 5> kTypes{{
    {"ByteLevel", byte_level}, {"TemplateProcessing", template_processing}, {"RobertaProcessing", roberta}, {"BertProcessing", bert},
    {"Sequence", sequence}}};

}  // namespace post_processors

}  // namespace

PostProcessor make_post_processor(const Json& section, const std::string& where) {
  if (section.is_null()) return {};
  return find_type(post_processors::kTypes, type_of(section, where), where)(section, where);
}

PostProcessor bert_post_processor(std::int64_t cls, std::int64_t sep) {
  return {.single = {{.id = cls}, {.sequence = 0}, {.id = sep}},
          .pair = {{.id = cls}, {.sequence = 0}, {.id = sep}, {.sequence = 1, .type_id = 1}, {.id = sep, .type_id = 1}}};
}

PostProcessor begin_end_post_processor(std::optional<std::int64_t> bos, std::optional<std::int64_t> eos) {
  PostProcessor processor{.single = {}, .pair = {}};
  for (const std::int64_t sequence : {0, 1}) {
    std::vector<TemplateItem> items;
    if (bos) items.push_back({.id = *bos});
    items.push_back({.sequence = sequence});
    if (eos) items.push_back({.id = *eos});
    if (sequence == 0) processor.single = items;
    processor.pair.insert(processor.pair.end(), items.begin(), items.end());
  }
  return processor;
}

}  // namespace cambium::detail
