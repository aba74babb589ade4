// Byte-pair encoding by the scores of pieces (sentencepiece, bpe_model.cc), in O(n log n) through a heap over a linked list.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include "kernels/error.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/token_trie.h"
#include "nn/text/unicode.h"
#include "nn/text/unigram.h"

namespace cambium::detail {

namespace {

class SentencePieceBpe : public TokenModel {
 public:
  SentencePieceBpe(Vocabulary vocabulary, const SentencePieceFile& file, const std::string& where) : vocabulary_(std::move(vocabulary)), trie_(vocabulary_, where) {
    for (std::size_t id = 0; id < file.pieces.size(); ++id) {
      const auto& [text, score, type] = file.pieces[id];
      scores_.push_back(score);
      types_.push_back(type);
      longest_ = std::max(longest_, text.size());
      has_user_defined_ = has_user_defined_ || type == PieceType::user_defined;
      if (type == PieceType::unknown) unknown_ = static_cast<TokenId>(id);
    }
    if (file.byte_fallback) bytes_ = byte_tokens_of(vocabulary_);
  }

  void encode(std::string_view piece, std::vector<ModelToken>& tokens) const override { Run(*this, piece).write(tokens); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  // A piece of text may become one of these, and no other.
  bool stands_for_text(TokenId id) const {
    return id != kNoToken && (types_[id] == PieceType::normal || types_[id] == PieceType::user_defined || types_[id] == PieceType::unused);
  }

  class Run {
   public:
    Run(const SentencePieceBpe& model, std::string_view text) : model_(model), text_(text) {
      cut();
      for (std::size_t i = 0; i + 1 < symbols_.size(); ++i) offer(i);
      while (!queue_.empty()) {
        const Candidate top = queue_.top();
        queue_.pop();
        const std::size_t left = top.left, right = symbols_[left].next;
        if (symbols_[left].gone || right == kNone || symbols_[right].end - symbols_[left].begin != top.size) continue;  // has changed since
        symbols_[left].end = symbols_[right].end;
        symbols_[left].next = symbols_[right].next;
        symbols_[right].gone = true;
        if (symbols_[left].next != kNone) symbols_[symbols_[left].next].previous = left;
        if (symbols_[left].previous != kNone) offer(symbols_[left].previous);
        offer(left);
      }
    }

    void write(std::vector<ModelToken>& tokens) {
      for (std::size_t i = 0; i != kNone; i = symbols_[i].next) write(symbols_[i].begin, symbols_[i].end, 0, tokens);
    }

   private:
    static constexpr std::size_t kNone = SIZE_MAX;
    struct Symbol {
      std::size_t begin, end, previous, next;
      bool frozen = false, gone = false;
    };
    struct Candidate {
      float score;
      std::size_t left, size;
      bool operator<(const Candidate& other) const { return score != other.score ? score < other.score : left > other.left; }  // the best on top
    };

    std::string_view text(std::size_t begin, std::size_t end) const { return text_.substr(begin, end - begin); }

    // Characters, and user-defined pieces, which do not merge.
    void cut() {
      for (std::size_t begin = 0; begin < text_.size();) {
        Symbol symbol{begin, model_.user_defined_end(text_, begin), symbols_.empty() ? kNone : symbols_.size() - 1, symbols_.size() + 1};
        symbol.frozen = symbol.end > begin;
        if (!symbol.frozen) symbol.end = begin + decode_utf8(text_, begin).size;
        begin = symbol.end;
        symbols_.push_back(symbol);
      }
      if (!symbols_.empty()) symbols_.back().next = kNone;
    }

    void offer(std::size_t left) {
      const std::size_t right = symbols_[left].next;
      if (right == kNone || symbols_[left].frozen || symbols_[right].frozen) return;
      const std::size_t begin = symbols_[left].begin, middle = symbols_[right].begin, end = symbols_[right].end;
      if (end - begin > model_.longest_) return;
      const TokenId id = model_.vocabulary_.find(text(begin, end));
      if (!model_.stands_for_text(id)) return;
      queue_.push({model_.scores_[id], left, end - begin});
      if (model_.types_[id] == PieceType::unused) parts_[text(begin, end)] = middle - begin;
    }

    // An unused piece is taken apart into what it was merged from.
    void write(std::size_t begin, std::size_t end, int depth, std::vector<ModelToken>& tokens) const {
      const TokenId id = model_.vocabulary_.find(text(begin, end));
      if (model_.stands_for_text(id) && model_.types_[id] == PieceType::unused && depth <= 100) {
        if (const auto parts = parts_.find(text(begin, end)); parts != parts_.end()) {
          write(begin, begin + parts->second, depth + 1, tokens);
          return write(begin + parts->second, end, depth + 1, tokens);
        }
        return model_.write_unknown(text_, begin, end, tokens);
      }
      if (!model_.stands_for_text(id)) return model_.write_unknown(text_, begin, end, tokens);
      tokens.push_back({id, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
    }

    const SentencePieceBpe& model_;
    std::string_view text_;
    std::vector<Symbol> symbols_;
    std::priority_queue<Candidate> queue_;
    std::unordered_map<std::string_view, std::size_t> parts_;  // an unused piece: size of its left part
  };

  // Of the longest user-defined piece at `begin`, or `begin`.
  std::size_t user_defined_end(std::string_view text, std::size_t begin) const {
    std::size_t end = begin;
    if (!has_user_defined_) return end;
    TokenTrie::Node node = TokenTrie::kRoot;
    for (std::size_t at = begin; at < text.size() && (node = trie_.step(node, text[at])) != TokenTrie::kNone;) {
      ++at;
      if (const TokenId id = trie_.token(node); id != kNoToken && types_[id] == PieceType::user_defined) end = at;
    }
    return end;
  }

  // Bytes, or one unknown for a run.
  void write_unknown(std::string_view text, std::size_t begin, std::size_t end, std::vector<ModelToken>& tokens) const {
    const auto first = static_cast<std::uint32_t>(begin), last = static_cast<std::uint32_t>(end);
    if (!bytes_.empty()) {
      for (std::size_t i = begin; i < end; ++i) tokens.push_back({bytes_[static_cast<unsigned char>(text[i])], first, last});
    } else if (!tokens.empty() && tokens.back().id == unknown_ && tokens.back().end == first) {
      tokens.back().end = last;
    } else {
      tokens.push_back({unknown_, first, last});
    }
  }

  Vocabulary vocabulary_;
  TokenTrie trie_;
  std::vector<float> scores_;
  std::vector<PieceType> types_;
  std::vector<TokenId> bytes_;
  std::size_t longest_ = 0;
  bool has_user_defined_ = false;
  TokenId unknown_ = kNoToken;
};

}  // namespace

std::unique_ptr<TokenModel> sentencepiece_bpe(Vocabulary vocabulary, const SentencePieceFile& file, const std::string& where) {
  return std::make_unique<SentencePieceBpe>(std::move(vocabulary), file, where);
}

}  // namespace cambium::detail
