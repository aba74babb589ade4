// tokenizer.json of the `tokenizers` library, and the files that stand beside it in a model folder.
#include <filesystem>
#include <unordered_map>

#include "kernels/error.h"
#include "nn/text/tokenizer_state.h"
#include "tensor/json.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

/// Members of the object that `json` is, as stretches of its text.
std::unordered_map<std::string, std::string_view> members(std::string_view json, const std::string& where) {
  JsonReader reader(json, where, 64);
  if (reader.peek() != JsonReader::Type::object) fail<ConfigError>(where, ": expected an object");
  std::unordered_map<std::string, std::string_view> found;
  reader.enter(JsonReader::Type::object);
  std::string key;
  while (reader.next_key(&key)) {
    reader.peek();
    const std::size_t begin = reader.position();
    reader.skip_value();
    found.emplace(key, json.substr(begin, reader.position() - begin));
  }
  return found;
}

ModelSource read_model(std::string_view json, const std::string& where) {
  ModelSource source{.fields = Json::object(), .where = where};
  for (const auto& [key, text] : members(json, where)) {
    if (key == "vocab") source.vocab = text;
    else if (key == "merges") source.merges = text;
    else source.fields[key] = parse_json(text, where + "." + key);
  }
  return source;
}

void read_added_tokens(TokenizerState& state, const Json& list, const std::string& where) {
  if (list.is_null()) return;
  check<ConfigError>(list.is_array(), where, ": expected a list, found ", list.type_name());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& item = list[i];
    const std::string here = where + "[" + std::to_string(i) + "]";
    check<ConfigError>(item.is_object(), here, ": expected an object, found ", item.type_name());
    const Json& id = member_of(item, "id", here);
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > INT32_MAX) {
      fail<ConfigError>(here, ": id: expected a whole number in 0 … 2147483647, found ", id.dump());
    }
    AddedToken token = read_added_token(item, here);
    token.id = id.get<std::int64_t>();
    // The reference skips the empty token, which stands nowhere.
    if (!token.content.empty()) state.added.add(std::move(token), state.normalizer, here);
  }
}

/// "<s>", or {"content": "<s>", …}, or null.
std::optional<std::string> token_text(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->is_object() ? text_of(*found, "content", where + ": " + key) : text_of(object, key, where);
}

std::optional<Json> companion(const std::string& folder, const char* name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  Json json = read_json_file(path.string());
  check<ConfigError>(json.is_object(), path.string(), ": expected an object, found ", json.type_name());
  return json;
}

/// A template, or a list of {"name", "template"} of which "default" is taken.
std::string template_text(const Json& config, const std::string& where) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return {};
  if (!found->is_array()) return text_of(config, "chat_template", where);
  for (const Json& item : *found) {
    check<ConfigError>(item.is_object(), where, ": chat_template: expected a list of objects, found ", item.type_name());
    if (text_of(item, "name", where) == "default") return text_of(item, "template", where);
  }
  return {};
}

}  // namespace

AddedToken read_added_token(const Json& item, const std::string& where) {
  AddedToken token{.content = text_of(item, "content", where)};
  token.single_word = flag_of(item, "single_word", false, where);
  token.lstrip = flag_of(item, "lstrip", false, where);
  token.rstrip = flag_of(item, "rstrip", false, where);
  token.special = flag_of(item, "special", false, where);
  token.normalized = flag_of(item, "normalized", !token.special, where);
  return token;
}

TokenizerState state_from_json(std::string_view json, const std::string& where) {
  check_json(json, where, 64);
  TokenizerState state;
  auto sections = members(json, where);
  const auto section = [&](const char* key) {
    const auto found = sections.find(key);
    return found == sections.end() ? Json() : parse_json(found->second, where + ": " + key);
  };
  check<ConfigError>(sections.contains("model"), where, ": expected a section \"model\", found none: is this a tokenizer.json?");
  state.model = make_model(read_model(sections["model"], where + ": model"));
  state.normalizer = make_normalizer(section("normalizer"), where + ": normalizer");
  state.pre_tokenizer = make_pre_tokenizer(section("pre_tokenizer"), where + ": pre_tokenizer");
  state.post_processor = make_post_processor(section("post_processor"), where + ": post_processor");
  state.decoder = make_decoder(section("decoder"), where + ": decoder");
  read_added_tokens(state, section("added_tokens"), where + ": added_tokens");
  finish_state(state, where);
  return state;
}

void read_companions(TokenizerState& state, const std::string& folder) {
  const auto set_from = [&](const Json& config, const char* key, std::optional<std::int64_t>& id, const std::string& where) {
    if (id) return;
    // A name without a token is common for padding; the id is then left open.
    if (const auto text = token_text(config, key, where)) id = state.find(*text);
  };
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const auto config = companion(folder, name);
    if (!config) continue;
    const std::string where = folder + "/" + name;
    set_from(*config, "bos_token", state.bos_id, where);
    set_from(*config, "eos_token", state.eos_id, where);
    set_from(*config, "pad_token", state.pad_id, where);
    if (state.chat_template.empty()) state.chat_template = template_text(*config, where);
  }
  if (state.eos_id && state.stop_ids.empty()) state.stop_ids.push_back(*state.eos_id);
  if (const auto config = companion(folder, "generation_config.json")) {
    const std::string where = folder + "/generation_config.json";
    const auto ids_of = [&](const char* key) {
      std::vector<std::int64_t> ids;
      const auto found = config->find(key);
      if (found == config->end() || found->is_null()) return ids;
      for (const Json& value : found->is_array() ? *found : Json::array({*found})) ids.push_back(json_integer(value, where + ": " + key, 0, INT32_MAX));
      return ids;
    };
    const auto set_first = [&](const char* key, std::optional<std::int64_t>& id) {
      if (const auto ids = ids_of(key); !id && !ids.empty()) id = ids.front();
    };
    for (const std::int64_t id : ids_of("eos_token_id")) {
      if (id != state.eos_id) state.stop_ids.push_back(id);
    }
    set_first("bos_token_id", state.bos_id);
    set_first("eos_token_id", state.eos_id);
    set_first("pad_token_id", state.pad_id);
  }
  const std::filesystem::path jinja = std::filesystem::path(folder) / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) state.chat_template = read_text_file(jinja.string());
}

}  // namespace cambium::detail
