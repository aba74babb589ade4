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
/// Fills ids and the chat template from the files beside a tokenizer.json.
void read_companions(TokenizerState& state, const std::string& folder);
TokenizerState state_from_lists(const TokenizerLists& lists, const std::string& where);

}  // namespace cambium::detail
