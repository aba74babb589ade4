// Tokenizers of SentencePiece (Kudo & Richardson 2018) from a .model, or from lists that say the same. Internal.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/text/model.h"
#include "nn/text/sentencepiece_file.h"
#include "nn/text/stages.h"
#include "nn/text/tokenizer_state.h"

namespace cambium::detail {

/// Normalizer, model and decoder as `SentencePieceProcessor` has them. Control pieces are special tokens; `matches_control` says
/// whether their text is found in an input, which SentencePiece itself does not do. ConfigError: pieces that contradict each other,
/// a kind of model that is not supported.
TokenizerState state_from_sentencepiece(const SentencePieceFile& file, bool matches_control, const std::string& where);

Normalizer sentencepiece_normalizer(const SentencePieceRules& rules, const std::vector<std::string>& user_defined, bool space_is_suffix, const std::string& where);
Decoder sentencepiece_decoder(const SentencePieceFile& file, const std::string& where);
/// Merges neighbours whose union is a piece, the best score first.
std::unique_ptr<TokenModel> sentencepiece_bpe(Vocabulary vocabulary, const SentencePieceFile& file, const std::string& where);

}  // namespace cambium::detail
