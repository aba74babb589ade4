// WordPiece (Schuster & Nakajima 2012, as in BERT): the longest token first, from the left. Internal.
#pragma once

#include <memory>
#include <string>

#include "nn/text/model.h"

namespace cambium::detail {

struct WordPieceOptions {
  std::string unknown_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  std::size_t max_input_chars_per_word = 100;  ///< a longer word is unknown
};

/// ConfigError if the unknown token is not in the vocabulary.
std::unique_ptr<TokenModel> word_piece_model(Vocabulary vocabulary, const WordPieceOptions& options, const std::string& where);

}  // namespace cambium::detail
