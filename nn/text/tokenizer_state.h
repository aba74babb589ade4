// What a Tokenizer is made of. Internal.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/text/added_tokens.h"
#include "nn/text/model.h"
#include "nn/text/stages.h"
#include "nn/text/tokenizer.h"

namespace cambium::detail {

/// The tokens of one text, and where they came from if `traced`.
struct EncodedTokens {
  std::vector<std::int64_t> ids;
  std::vector<TokenOrigin> origins;  // empty if not traced
};

struct TokenizerState {
  AddedTokens added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const TokenModel> model;
  PostProcessor post_processor;
  Decoder decoder;
  std::int64_t vocab_size = 0;
  std::optional<std::int64_t> bos_id, eos_id, pad_id;
  std::vector<std::int64_t> stop_ids;
  std::string chat_template;

  /// The tokens of one text without special ones around. `traced`: with their origins.
  EncodedTokens encode(std::string_view text, bool traced) const;
  std::optional<std::int64_t> find(std::string_view token) const;
  /// nullopt if no token has this id.
  std::optional<std::string_view> text(std::int64_t id) const;
  /// The joined texts of ids, not yet repaired.
  std::string decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens) const;
};

/// Checks the added tokens against the model's vocabulary and fills what follows from both. `where` starts messages.
void finish_state(TokenizerState& state, const std::string& where);

/// All bytes of a file; FileError if it is not a regular file that can be read.
std::string read_text_file(const std::string& path);
/// The text of a tokenizer.json.
TokenizerState state_from_json(std::string_view json, const std::string& where);
/// The flags and the content of an added token, all but its id.
AddedToken read_added_token(const Json& item, const std::string& where);
/// A SentencePiece model in a folder, with the rules of its tokenizer_config.json, or config.json's family.
TokenizerState state_from_sentencepiece_folder(const std::string& folder, const std::string& path);
/// BERT's vocab.txt: a token a line; options from a tokenizer_config.json beside it.
TokenizerState state_from_vocab_file(const std::string& path);
/// Fills ids and the chat template from the files beside a tokenizer.json.
void read_companions(TokenizerState& state, const std::string& folder);
TokenizerState state_from_lists(const TokenizerLists& lists, const std::string& where);

}  // namespace cambium::detail
