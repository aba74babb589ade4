// Model folders without a tokenizer.json: SentencePiece models and vocab.txt, whose rules stand in tokenizer_config.json or follow from the class.
#include <algorithm>
#include <array>
#include <filesystem>

#include "kernels/error.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/tokenizer_state.h"
#include "nn/text/unicode.h"
#include "nn/text/word_piece.h"
#include "tensor/json.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

namespace fs = std::filesystem;

/// tokenizer_config.json of a folder with what its files agree on; an empty object if there is none.
struct FolderConfig {
  Json json = Json::object();
  std::string where;
  std::string tokenizer_class;  ///< without "Fast"; from model_type of config.json where the tokenizer's own file does not say

  explicit FolderConfig(const std::string& folder) : where((fs::path(folder) / "tokenizer_config.json").string()) {
    if (fs::exists(where)) {
      json = read_json_file(where);
      check<ConfigError>(json.is_object(), where, ": expected an object, found ", json.type_name());
      tokenizer_class = text_of(json, "tokenizer_class", "", where);
      if (tokenizer_class.ends_with("Fast")) tokenizer_class.resize(tokenizer_class.size() - 4);
    }
    const std::string config = (fs::path(folder) / "config.json").string();
    if (!tokenizer_class.empty() || !fs::exists(config)) return;
    const Json model = read_json_file(config);
    if (!model.is_object()) return;
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kClasses{{
        {"t5", "T5Tokenizer"}, {"mt5", "T5Tokenizer"}, {"umt5", "T5Tokenizer"}, {"llama", "LlamaTokenizer"}, {"mistral", "LlamaTokenizer"}, {"bert", "BertTokenizer"}}};
    const std::string type = text_of(model, "model_type", "", config);
    for (const auto& [name, tokenizer] : kClasses) {
      if (name == type) tokenizer_class = tokenizer;
    }
  }
  bool flag(const char* key, bool otherwise) const { return flag_of(json, key, otherwise, where); }
  /// "[CLS]" or {"content": "[CLS]", …}
  std::string token(const char* key, std::string_view otherwise) const {
    const auto found = json.find(key);
    return found != json.end() && found->is_object() ? text_of(*found, "content", where + ": " + key) : text_of(json, key, otherwise, where);
  }
};

/// "added_tokens_decoder": {"32000": {"content", …}, …}, and added_tokens.json of older folders: {"text": id}.
std::vector<AddedToken> added_tokens_of(const FolderConfig& config, const std::string& folder) {
  std::vector<AddedToken> tokens;
  if (const auto list = config.json.find("added_tokens_decoder"); list != config.json.end() && !list->is_null()) {
    check<ConfigError>(list->is_object(), config.where, ": added_tokens_decoder: expected an object, found ", list->type_name());
    for (const auto& [id, item] : list->items()) {
      const std::string here = config.where + ": added_tokens_decoder: " + id;
      const bool is_id = !id.empty() && id.size() < 10 && std::all_of(id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; });
      check<ConfigError>(is_id && item.is_object(), here, ": expected an id and an object");
      AddedToken token = read_added_token(item, here);
      token.id = std::stoll(id);
      tokens.push_back(std::move(token));
    }
  } else if (const std::string file = (fs::path(folder) / "added_tokens.json").string(); fs::exists(file)) {
    const Json json = read_json_file(file);
    check<ConfigError>(json.is_object(), file, ": expected an object, found ", json.type_name());
    for (const auto& [text, id] : json.items()) tokens.push_back({.id = json_integer(id, file + ": " + text, 0, INT32_MAX), .content = text, .normalized = true});
  }
  return tokens;
}

void add_all(TokenizerState& state, std::vector<AddedToken> tokens, const std::string& where) {
  for (AddedToken& token : tokens) {
    if (!token.content.empty() && !state.added.find(token.content)) state.added.add(std::move(token), state.normalizer, where);
  }
}

// T5's sentinels stand behind the pieces, the last one first.
void add_sentinels(TokenizerState& state, const FolderConfig& config, const std::string& where) {
  const auto found = config.json.find("extra_ids");
  const std::int64_t count = found == config.json.end() || found->is_null() ? 100 : json_integer(*found, config.where + ": extra_ids", 0, 10000);
  const std::int64_t first = state.model->vocabulary().id_end();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string text = "<extra_id_" + std::to_string(i) + ">";
    if (!state.find(text)) state.added.add({.id = first + count - 1 - i, .content = text, .special = true}, {}, where);
  }
}

}  // namespace

TokenizerState state_from_sentencepiece_folder(const std::string& folder, const std::string& path) {
  const FolderConfig config(folder);
  static constexpr std::array<std::string_view, 4> kClasses{"", "T5Tokenizer", "LlamaTokenizer", "PreTrainedTokenizer"};
  check<ConfigError>(std::find(kClasses.begin(), kClasses.end(), config.tokenizer_class) != kClasses.end(), config.where, ": tokenizer_class: expected T5Tokenizer or LlamaTokenizer for ",
                     fs::path(path).filename().string(), ", found ", config.tokenizer_class, ": save the tokenizer as a tokenizer.json");
  TokenizerState state = state_from_sentencepiece(read_sentencepiece_file(read_text_file(path), path), true, path);
  std::vector<AddedToken> added = added_tokens_of(config, folder);
  const bool lists = !added.empty(), t5 = config.tokenizer_class == "T5Tokenizer";
  add_all(state, std::move(added), config.where);
  if (t5 && !lists) add_sentinels(state, config, path);
  const bool add_bos = config.flag("add_bos_token", config.tokenizer_class == "LlamaTokenizer"), add_eos = config.flag("add_eos_token", t5);
  check<ConfigError>(!add_bos || state.bos_id, path, ": asks for BOS before each text, but has no such piece");
  check<ConfigError>(!add_eos || state.eos_id, path, ": asks for EOS after each text, but has no such piece");
  state.post_processor = begin_end_post_processor(add_bos ? state.bos_id : std::nullopt, add_eos ? state.eos_id : std::nullopt);
  finish_state(state, path);
  return state;
}

TokenizerState state_from_vocab_file(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  const FolderConfig config(folder);
  static constexpr std::array<std::string_view, 8> kClasses{"", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "MPNetTokenizer", "LayoutLMTokenizer",
                                                            "PreTrainedTokenizer"};
  check<ConfigError>(std::find(kClasses.begin(), kClasses.end(), config.tokenizer_class) != kClasses.end(), config.where,
                     ": tokenizer_class: expected one of BERT's WordPiece for a vocab.txt, found ", config.tokenizer_class, ": save the tokenizer as a tokenizer.json");
  check<ConfigError>(config.flag("do_basic_tokenize", true), config.where, ": do_basic_tokenize: expected true, found false: text that is cut already is not supported");
  const auto never = config.json.find("never_split");
  check<ConfigError>(never == config.json.end() || never->is_null() || never->empty(), config.where, ": never_split: expected null, found ", never == config.json.end() ? "" : never->dump(),
                     ": name such words as added tokens");
  const std::string text = read_text_file(path);
  Vocabulary vocabulary;
  std::int64_t id = 0;
  for (std::size_t begin = 0; begin < text.size(); ++id) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!is_valid_utf8(line)) fail<ConfigError>(path, ": line ", id + 1, ": expected UTF-8, found ", quote_for_message(line));
    vocabulary.add(line, id, path);
    begin = end + 1;
  }
  check<ConfigError>(id > 0, path, ": expected a token a line, found none");

  TokenizerState state;
  const bool lowercase = config.flag("do_lower_case", true);
  state.normalizer = bert_normalizer({.handle_chinese_chars = config.flag("tokenize_chinese_chars", true), .strip_accents = config.flag("strip_accents", lowercase), .lowercase = lowercase});
  state.pre_tokenizer = bert_pre_tokenizer();
  state.decoder = word_piece_decoder("##", true);
  state.model = word_piece_model(std::move(vocabulary), {.unknown_token = config.token("unk_token", "[UNK]")}, path);
  add_all(state, added_tokens_of(config, folder), config.where);
  const auto special = [&](const char* key, std::string_view otherwise, bool required) {
    const std::string token = config.token(key, otherwise);
    const auto found = state.find(token);
    if (required && !found) fail<ConfigError>(path, ": ", key, " ", quote_for_message(token), " is not in the vocab");
    if (found && !state.added.find(token)) state.added.add({.id = *found, .content = token, .special = true}, {}, path);
    return found;
  };
  special("unk_token", "[UNK]", true);
  special("mask_token", "[MASK]", false);
  state.pad_id = special("pad_token", "[PAD]", false);
  const auto cls = special("cls_token", "[CLS]", true), sep = special("sep_token", "[SEP]", true);
  state.post_processor = bert_post_processor(*cls, *sep);
  finish_state(state, path);
  return state;
}

}  // namespace cambium::detail
