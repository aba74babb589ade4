// Unigram language model (Kudo 2018): of all ways to cut a text into tokens, the one with the best sum of scores. Internal.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/text/model.h"

namespace cambium::detail {

/// What the two programs that share these models do differently.
enum class UnigramRules : std::uint8_t {
  tokenizers,     ///< sums in double; a run of unknown characters that is a token as a whole becomes it, else bytes, else one unknown
  sentencepiece,  ///< sums in float; each unknown character becomes its bytes, or a run of them one unknown
};

struct UnigramOptions {
  TokenId unknown = kNoToken;  ///< kNoToken: what cannot be cut is an error
  bool byte_fallback = false;  ///< the bytes of what is unknown become <0xHH> tokens
  UnigramRules rules = UnigramRules::tokenizers;
  std::vector<bool> never;         ///< by id: tokens that never stand for text; empty: none
  std::vector<bool> user_defined;  ///< by id: tokens with a score of their length instead of their own (sentencepiece); empty: none
  double lowest = 0.0;             ///< of the scores; an unknown character costs 10 more
};

/// `scores` by id. ConfigError starting with `where` if byte_fallback is set and a <0xHH> token is missing.
std::unique_ptr<TokenModel> unigram_model(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options, const std::string& where);

/// <0x00> … <0xFF>; kNoToken for those that are not there.
std::vector<TokenId> byte_tokens_of(const Vocabulary& vocabulary);

}  // namespace cambium::detail
