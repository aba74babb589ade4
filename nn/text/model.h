// The model of a tokenizer: turns one piece of text into ids. A new kind is one file and one row of the table in model.cpp. Internal.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/vocabulary.h"
#include "tensor/json.h"

namespace cambium::detail {

/// An id and the bytes of the piece that it stands for.
struct ModelToken {
  TokenId id;
  std::uint32_t begin, end;
};

/// Immutable, so that threads share it.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the tokens of a piece, which is valid UTF-8, not empty and below 4 GiB.
  virtual void encode(std::string_view piece, std::vector<ModelToken>& tokens) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

/// The `model` section of a tokenizer.json. The large members stay text, each model reads them without a tree.
struct ModelSource {
  Json fields;                    ///< all others
  std::string_view vocab, merges; ///< JSON text that has passed check_json; empty when absent
  std::string where;              ///< starts messages: file and section
};

/// By `fields["type"]`. ConfigError naming the type if it is not supported.
std::unique_ptr<TokenModel> make_model(const ModelSource& source);

std::unique_ptr<TokenModel> make_bpe(const ModelSource& source);
std::unique_ptr<TokenModel> make_word_level(const ModelSource& source);
std::unique_ptr<TokenModel> make_word_piece(const ModelSource& source);
std::unique_ptr<TokenModel> make_unigram(const ModelSource& source);

/// Reads {"token": id, …}.
Vocabulary read_vocabulary(std::string_view json, const std::string& where);

/// Members of an object from a file; null counts as absent. ConfigError when of another kind.
bool flag_of(const Json& object, const char* key, bool otherwise, const std::string& where);
std::string text_of(const Json& object, const char* key, const std::string& where);
std::string text_of(const Json& object, const char* key, std::string_view otherwise, const std::string& where);
const Json& member_of(const Json& object, const char* key, const std::string& where);
/// "type" of a section.
std::string type_of(const Json& section, const std::string& where);

}  // namespace cambium::detail
