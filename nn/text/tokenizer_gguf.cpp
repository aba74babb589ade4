// The tokenizer of a GGUF file: its lists under the keys tokenizer.ggml.*.
#include "nn/text/sentencepiece.h"
#include "nn/text/tokenizer.h"
#include "tensor/gguf.h"

namespace cambium {

namespace {

struct Keys {
  const GgufFile& file;
  std::optional<GgufValue> find(const std::string& key) const { return file.find("tokenizer.ggml." + key); }
  std::optional<std::int64_t> id(const char* key) const {
    const auto value = find(key);
    return value ? std::optional<std::int64_t>(value->integer()) : std::nullopt;
  }
  bool flag(const char* key, bool otherwise) const {
    const auto value = find(key);
    return value ? value->boolean() : otherwise;
  }
};

// Models of SentencePiece: "llama" is BPE by scores, "t5" Unigram. The defaults are llama.cpp's.
detail::TokenizerState sentencepiece_state(const Keys& keys, bool unigram) {
  const std::string& where = keys.file.path();
  detail::SentencePieceFile model{.kind = unigram ? detail::SentencePieceFile::Kind::unigram : detail::SentencePieceFile::Kind::bpe};
  const std::vector<std::string_view> tokens = keys.file.value("tokenizer.ggml.tokens").strings();
  const std::vector<float> scores = keys.file.value("tokenizer.ggml.scores").floats();
  const std::vector<std::int64_t> types = keys.file.value("tokenizer.ggml.token_type").integers();
  check<ConfigError>(scores.size() == tokens.size() && types.size() == tokens.size(), where, ": expected as many scores and types as tokens, ", tokens.size(), ", found ",
                     scores.size(), " and ", types.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] < 1 || types[i] > 6) fail<ConfigError>(where, ": token ", i, ": expected a type in 1 … 6, found ", types[i]);
    model.pieces.push_back({std::string(tokens[i]), scores[i], static_cast<detail::PieceType>(types[i])});
    model.byte_fallback = model.byte_fallback || model.pieces.back().type == detail::PieceType::byte;
  }
  model.normalizer.add_dummy_prefix = keys.flag("add_space_prefix", true);
  model.normalizer.remove_extra_whitespaces = keys.flag("remove_extra_whitespaces", unigram);
  if (const auto map = keys.find("precompiled_charsmap")) {
    for (const std::int64_t byte : map->integers()) model.normalizer.character_map += static_cast<char>(byte);
  }
  detail::TokenizerState state = detail::state_from_sentencepiece(model, true, where);
  const auto set = [&](const char* key, std::optional<std::int64_t>& id) {
    if (const auto found = keys.id(key)) {
      if (*found < 0 || *found >= static_cast<std::int64_t>(tokens.size())) fail<ConfigError>(where, ": tokenizer.ggml.", key, ": expected an id below ", tokens.size(), ", found ", *found);
      id = found;
    }
  };
  set("bos_token_id", state.bos_id);
  set("eos_token_id", state.eos_id);
  set("padding_token_id", state.pad_id);
  state.stop_ids.clear();
  if (state.eos_id) state.stop_ids.push_back(*state.eos_id);
  for (const char* key : {"eot_token_id", "eom_token_id"}) {
    std::optional<std::int64_t> stop;
    set(key, stop);
    if (stop && stop != state.eos_id) state.stop_ids.push_back(*stop);
  }
  const bool add_bos = keys.flag("add_bos_token", !unigram), add_eos = keys.flag("add_eos_token", unigram);
  check<ConfigError>(!add_bos || state.bos_id, where, ": asks for BOS before each text, but names no bos id");
  check<ConfigError>(!add_eos || state.eos_id, where, ": asks for EOS after each text, but names no eos id");
  state.post_processor = detail::begin_end_post_processor(add_bos ? state.bos_id : std::nullopt, add_eos ? state.eos_id : std::nullopt);
  if (const auto chat = keys.file.find("tokenizer.chat_template")) state.chat_template = std::string(chat->string());
  detail::finish_state(state, where);
  return state;
}

}  // namespace

Tokenizer Tokenizer::from_gguf(const GgufFile& file) {
  const Keys keys{file};
  const auto model = keys.find("model");
  check<ConfigError>(model.has_value(), file.path(), ": there is no tokenizer in this file");
  const std::string_view kind = model->string();
  if (kind == "llama" || kind == "t5") return Tokenizer(std::make_shared<const detail::TokenizerState>(sentencepiece_state(keys, kind == "t5")));
  check<ConfigError>(kind == "gpt2", file.path(), ": tokenizer.ggml.model: expected gpt2 (byte-level BPE), llama (BPE by scores) or t5 (Unigram), found '", kind, "'");
  TokenizerLists lists;
  for (const std::string_view token : file.value("tokenizer.ggml.tokens").strings()) lists.tokens.emplace_back(token);
  if (const auto types = keys.find("token_type"))
    for (const std::int64_t type : types->integers()) lists.token_types.push_back(static_cast<std::int32_t>(type));
  for (const std::string_view merge : file.value("tokenizer.ggml.merges").strings()) lists.merges.emplace_back(merge);
  const auto pre = keys.find("pre");
  lists.pre_tokenizer = pre ? std::string(pre->string()) : "default";
  lists.bos_id = keys.id("bos_token_id");
  lists.eos_id = keys.id("eos_token_id");
  lists.pad_id = keys.id("padding_token_id");
  for (const char* key : {"eot_token_id", "eom_token_id"})
    if (const auto stop = keys.id(key)) lists.stop_ids.push_back(*stop);
  if (const auto add = keys.find("add_bos_token")) lists.add_bos = add->boolean();
  if (const auto add = keys.find("add_eos_token")) lists.add_eos = add->boolean();
  if (const auto chat = file.find("tokenizer.chat_template")) lists.chat_template = std::string(chat->string());
  return from_lists(lists, file.path());
}

}  // namespace cambium
