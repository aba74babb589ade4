// A model without pieces: each word is a token or the unknown one.
#include "kernels/error.h"
#include "nn/text/model.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

class WordLevelModel : public TokenModel {
 public:
  explicit WordLevelModel(const ModelSource& source)
      : vocabulary_(read_vocabulary(source.vocab, source.where)), where_(source.where),
        unknown_(vocabulary_.find(text_of(source.fields, "unk_token", "<unk>", source.where))) {}

  void encode(std::string_view piece, std::vector<ModelToken>& tokens) const override {
    TokenId id = vocabulary_.find(piece);
    if (id == kNoToken) id = unknown_;
    check<ConfigError>(id != kNoToken, where_, ": word ", quote_for_message(piece), " is not in the vocab, and unk_token is not either");
    tokens.push_back({id, 0, static_cast<std::uint32_t>(piece.size())});
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::string where_;
  TokenId unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> make_word_level(const ModelSource& source) { return std::make_unique<WordLevelModel>(source); }

}  // namespace cambium::detail
