// The table of models and what they share when they read a tokenizer.json.
#include "nn/text/model.h"

#include <array>
#include <utility>

#include "nn/text/factory.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

std::unique_ptr<TokenModel> make_model(const ModelSource& source) {
  using Make = std::unique_ptr<TokenModel> (*)(const ModelSource&);
  static constexpr std::array<std::pair<std::string_view, Make>, 4> kModels{{
      {"BPE", make_bpe}, {"WordPiece", make_word_piece}, {"Unigram", make_unigram}, {"WordLevel", make_word_level}}};
  // Old files leave the type of BPE out.
  const std::string type = source.fields.contains("type") ? type_of(source.fields, source.where) : "BPE";
  return find_type(kModels, type, source.where)(source);
}

Vocabulary read_vocabulary(std::string_view json, const std::string& where) {
  check<ConfigError>(!json.empty(), where, ": expected a vocab, found none");
  Vocabulary vocabulary;
  vocabulary.reserve_bytes(json.size() / 2);
  JsonReader reader(json, where, 64);
  if (reader.peek() != JsonReader::Type::object) fail<ConfigError>(where, ": expected vocab to be an object of tokens and ids");
  reader.enter(JsonReader::Type::object);
  std::string token;
  while (reader.next_key(&token)) {
    const bool is_number = reader.peek() == JsonReader::Type::number;
    const JsonReader::Number number = is_number ? reader.read_number() : JsonReader::Number{.kind = JsonReader::Number::Kind::real};
    if (number.kind != JsonReader::Number::Kind::natural || number.natural > INT32_MAX) {
      fail<ConfigError>(where, ": vocab: token ", quote_for_message(token), ": expected a whole number in 0 … 2147483647 as id");
    }
    vocabulary.add(token, static_cast<std::int64_t>(number.natural), where);
  }
  check<ConfigError>(vocabulary.size() > 0, where, ": expected a vocab with tokens, found an empty one");
  return vocabulary;
}

bool flag_of(const Json& object, const char* key, bool otherwise, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return otherwise;
  check<ConfigError>(found->is_boolean(), where, ": ", key, ": expected true or false, found ", found->dump());
  return found->get<bool>();
}

const Json& member_of(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  check<ConfigError>(found != object.end() && !found->is_null(), where, ": expected a member \"", key, "\", found none");
  return *found;
}

std::string text_of(const Json& object, const char* key, const std::string& where) {
  const Json& value = member_of(object, key, where);
  check<ConfigError>(value.is_string(), where, ": ", key, ": expected a string, found ", value.type_name());
  return value.get<std::string>();
}

std::string text_of(const Json& object, const char* key, std::string_view otherwise, const std::string& where) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::string(otherwise) : text_of(object, key, where);
}

std::string type_of(const Json& section, const std::string& where) {
  check<ConfigError>(section.is_object(), where, ": expected an object, found ", section.type_name());
  return text_of(section, "type", where);
}

}  // namespace cambium::detail
