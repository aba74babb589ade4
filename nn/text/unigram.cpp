// Viterbi search over the bytes of a text, one walk down the trie from each character.
#include "nn/text/unigram.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/error.h"
#include "nn/text/token_trie.h"
#include "nn/text/unicode.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

class UnigramModel : public TokenModel {
 public:
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options, const std::string& where)
      : vocabulary_(std::move(vocabulary)), trie_(vocabulary_, where), scores_(std::move(scores)), options_(std::move(options)), where_(where) {
    if (options_.byte_fallback) bytes_ = byte_tokens_of(vocabulary_);
  }

  void encode(std::string_view piece, std::vector<ModelToken>& tokens) const override {
    const std::vector<ModelToken> path = options_.rules == UnigramRules::tokenizers ? search<double>(piece) : search<float>(piece);
    // From the end to the start: runs of unknown characters become one.
    for (auto token = path.rbegin(); token != path.rend(); ++token) {
      if (token->id != options_.unknown) {
        tokens.push_back(*token);
        continue;
      }
      ModelToken run = *token;
      const bool by_character = options_.rules == UnigramRules::sentencepiece && options_.byte_fallback;
      while (!by_character && token + 1 != path.rend() && (token + 1)->id == options_.unknown) run.end = (++token)->end;
      put_unknown(piece, run, tokens);
    }
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  void put_unknown(std::string_view piece, ModelToken run, std::vector<ModelToken>& tokens) const {
    const std::string_view text = piece.substr(run.begin, run.end - run.begin);
    if (options_.rules == UnigramRules::tokenizers) {
      if (const TokenId whole = vocabulary_.find(text); whole != kNoToken) return tokens.push_back({whole, run.begin, run.end});
    }
    const auto byte_token = [&](char c) { return bytes_[static_cast<unsigned char>(c)]; };
    if (!bytes_.empty() && std::all_of(text.begin(), text.end(), [&](char c) { return byte_token(c) != kNoToken; })) {
      for (const char c : text) tokens.push_back({byte_token(c), run.begin, run.end});
      return;
    }
    tokens.push_back(run);
  }

  template <class Real>
  std::vector<ModelToken> search(std::string_view piece) const {
    struct Best {
      TokenId id = kNoToken;
      std::uint32_t begin = 0;
      Real score = 0;
      bool reached = false;
    };
    std::vector<Best> best(piece.size() + 1);
    const Real unknown_score = static_cast<Real>(options_.lowest) - Real{10};
    std::size_t furthest = 0;  // place that was reached
    const auto offer = [&](std::size_t begin, std::size_t end, TokenId id, Real score) {
      const Real sum = score + best[begin].score;
      furthest = std::max(furthest, end);
      Best& target = best[end];
      if (!target.reached || sum > target.score) target = {id, static_cast<std::uint32_t>(begin), sum, true};
    };
    for (std::size_t begin = 0; begin < piece.size();) {
      const std::size_t character_end = begin + decode_utf8(piece, begin).size;
      if (std::is_same_v<Real, float> && std::abs(best[begin].score) > Real{100000}) {  // keeps the digits of later sums, as sentencepiece does
        const Real sum = best[begin].score;
        for (std::size_t i = begin; i <= furthest; ++i) best[i].score -= sum;
      }
      bool covered = false;  // by a token of one character
      TokenTrie::Node node = TokenTrie::kRoot;
      for (std::size_t at = begin; at < piece.size();) {
        node = trie_.step(node, piece[at++]);
        if (node == TokenTrie::kNone) break;
        const TokenId id = trie_.token(node);
        if (id == kNoToken || (!options_.never.empty() && options_.never[id])) continue;
        const bool user_defined = !options_.user_defined.empty() && options_.user_defined[id];
        offer(begin, at, id, static_cast<Real>(user_defined ? 0.1 * static_cast<double>(at - begin - 1) : scores_[id]));
        covered = covered || at == character_end;
      }
      if (!covered) {
        if (options_.unknown == kNoToken) fail<ConfigError>(where_, ": the text has a character that is not in the vocab, and there is no unk_id");
        offer(begin, character_end, options_.unknown, unknown_score);
      }
      begin = character_end;
    }
    std::vector<ModelToken> path;
    for (std::size_t end = piece.size(); end > 0; end = best[end].begin) path.push_back({best[end].id, best[end].begin, static_cast<std::uint32_t>(end)});
    return path;
  }

  Vocabulary vocabulary_;
  TokenTrie trie_;
  std::vector<double> scores_;
  UnigramOptions options_;
  std::string where_;
  std::vector<TokenId> bytes_;
};

}  // namespace

std::vector<TokenId> byte_tokens_of(const Vocabulary& vocabulary) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::vector<TokenId> tokens;
  for (std::size_t byte = 0; byte < 256; ++byte) tokens.push_back(vocabulary.find(std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">"));
  return tokens;
}

std::unique_ptr<TokenModel> unigram_model(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options, const std::string& where) {
  return std::make_unique<UnigramModel>(std::move(vocabulary), std::move(scores), std::move(options), where);
}

// "vocab": [["token", score], …], ids by place.
std::unique_ptr<TokenModel> make_unigram(const ModelSource& source) {
  const Json& fields = source.fields;
  const std::string_view vocab = source.vocab;
  const std::string& where = source.where;
  check<ConfigError>(!vocab.empty(), where, ": expected a vocab, found none");
  Vocabulary vocabulary;
  vocabulary.reserve_bytes(vocab.size() / 2);
  std::vector<double> scores;
  JsonReader reader(vocab, where, 64);
  check<ConfigError>(reader.peek() == JsonReader::Type::array, where, R"(: vocab: expected a list of ["token", score])");
  reader.enter(JsonReader::Type::array);
  std::string token;
  while (reader.next_element()) {
    const auto refuse = [&] { fail<ConfigError>(where, ": vocab", reader.path(), R"(: expected ["token", score])"); };
    if (reader.peek() != JsonReader::Type::array) refuse();
    reader.enter(JsonReader::Type::array);
    if (!reader.next_element() || reader.peek() != JsonReader::Type::string) refuse();
    reader.read_string(token);
    if (!reader.next_element() || reader.peek() != JsonReader::Type::number) refuse();
    const JsonReader::Number number = reader.read_number();
    using Kind = JsonReader::Number::Kind;
    scores.push_back(number.kind == Kind::real ? number.real : number.kind == Kind::natural ? static_cast<double>(number.natural) : static_cast<double>(number.negative));
    if (reader.next_element()) refuse();
    check<ConfigError>(std::isfinite(scores.back()), where, ": vocab: expected scores that are finite");
    vocabulary.add(token, static_cast<std::int64_t>(scores.size()) - 1, where);
  }
  check<ConfigError>(!scores.empty(), where, ": expected a vocab with tokens, found an empty one");
  UnigramOptions options{.byte_fallback = flag_of(fields, "byte_fallback", false, where), .lowest = *std::min_element(scores.begin(), scores.end())};
  if (const auto unknown = fields.find("unk_id"); unknown != fields.end() && !unknown->is_null()) {
    options.unknown = static_cast<TokenId>(json_integer(*unknown, where + ": unk_id", 0, static_cast<std::int64_t>(scores.size()) - 1));
  }
  return unigram_model(std::move(vocabulary), std::move(scores), std::move(options), where);
}

}  // namespace cambium::detail
