// One walk down the trie for each token of a word.
#include "nn/text/word_piece.h"

#include "kernels/error.h"
#include "nn/text/token_trie.h"
#include "nn/text/unicode.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

class WordPieceModel : public TokenModel {
 public:
  WordPieceModel(Vocabulary vocabulary, const WordPieceOptions& options, const std::string& where)
      : vocabulary_(std::move(vocabulary)), trie_(vocabulary_, where), unknown_(vocabulary_.find(options.unknown_token)),
        longest_word_(options.max_input_chars_per_word) {
    if (unknown_ == kNoToken) fail<ConfigError>(where, ": unk_token ", quote_for_message(options.unknown_token), " is not in the vocab");
    for (const char c : options.continuing_subword_prefix) {
      if (continuing_ != TokenTrie::kNone) continuing_ = trie_.step(continuing_, c);
    }
  }

  void encode(std::string_view piece, std::vector<ModelToken>& tokens) const override {
    const std::size_t before = tokens.size();
    if (count_characters(piece) <= longest_word_ && cut(piece, tokens)) return;
    tokens.resize(before);
    tokens.push_back({unknown_, 0, static_cast<std::uint32_t>(piece.size())});
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  bool cut(std::string_view piece, std::vector<ModelToken>& tokens) const {
    for (std::size_t begin = 0; begin < piece.size();) {
      ModelToken longest{kNoToken, static_cast<std::uint32_t>(begin), 0};
      TokenTrie::Node node = begin == 0 ? TokenTrie::kRoot : continuing_;
      for (std::size_t at = begin; at < piece.size() && node != TokenTrie::kNone;) {
        node = trie_.step(node, piece[at++]);
        if (node != TokenTrie::kNone && trie_.token(node) != kNoToken) longest.id = trie_.token(node), longest.end = static_cast<std::uint32_t>(at);
      }
      if (longest.id == kNoToken) return false;
      tokens.push_back(longest);
      begin = longest.end;
    }
    return true;
  }

  Vocabulary vocabulary_;
  TokenTrie trie_;
  TokenId unknown_;
  TokenTrie::Node continuing_ = TokenTrie::kRoot;  // below the prefix of tokens within a word
  std::size_t longest_word_;
};

}  // namespace

std::unique_ptr<TokenModel> word_piece_model(Vocabulary vocabulary, const WordPieceOptions& options, const std::string& where) {
  return std::make_unique<WordPieceModel>(std::move(vocabulary), options, where);
}

std::unique_ptr<TokenModel> make_word_piece(const ModelSource& source) {
  const auto& [fields, vocab, merges, where] = source;
  WordPieceOptions options{.unknown_token = text_of(fields, "unk_token", "[UNK]", where),
                           .continuing_subword_prefix = text_of(fields, "continuing_subword_prefix", "##", where)};
  if (const auto limit = fields.find("max_input_chars_per_word"); limit != fields.end() && !limit->is_null()) {
    options.max_input_chars_per_word = static_cast<std::size_t>(json_integer(*limit, where + ": max_input_chars_per_word", 0, INT32_MAX));
  }
  return word_piece_model(read_vocabulary(vocab, where), options, where);
}

}  // namespace cambium::detail
