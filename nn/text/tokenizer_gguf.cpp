// The tokenizer of a GGUF file: its lists under the keys tokenizer.ggml.*.
#include "nn/text/tokenizer.h"
#include "tensor/gguf.h"

namespace cambium {

Tokenizer Tokenizer::from_gguf(const GgufFile& file) {
  const std::string prefix = "tokenizer.ggml.";
  const auto find = [&](const char* key) { return file.find(prefix + key); };
  const auto model = find("model");
  check<ConfigError>(model.has_value(), file.path(), ": there is no tokenizer in this file");
  check<ConfigError>(model->string() == "gpt2", file.path(), ": tokenizer.ggml.model: expected gpt2 (byte-level BPE), found '", model->string(), "'");
  TokenizerLists lists;
  for (const std::string_view token : file.value(prefix + "tokens").strings()) lists.tokens.emplace_back(token);
  if (const auto types = find("token_type"))
    for (const std::int64_t type : types->integers()) lists.token_types.push_back(static_cast<std::int32_t>(type));
  for (const std::string_view merge : file.value(prefix + "merges").strings()) lists.merges.emplace_back(merge);
  const auto pre = find("pre");
  lists.pre_tokenizer = pre ? std::string(pre->string()) : "default";
  const auto id = [&](const char* key) -> std::optional<std::int64_t> {
    const auto value = find(key);
    return value ? std::optional<std::int64_t>(value->integer()) : std::nullopt;
  };
  lists.bos_id = id("bos_token_id");
  lists.eos_id = id("eos_token_id");
  lists.pad_id = id("padding_token_id");
  for (const char* key : {"eot_token_id", "eom_token_id"})
    if (const auto stop = id(key)) lists.stop_ids.push_back(*stop);
  if (const auto add = find("add_bos_token")) lists.add_bos = add->boolean();
  if (const auto add = find("add_eos_token")) lists.add_eos = add->boolean();
  if (const auto chat = file.find("tokenizer.chat_template")) lists.chat_template = std::string(chat->string());
  return from_lists(lists, file.path());
}

}  // namespace cambium
