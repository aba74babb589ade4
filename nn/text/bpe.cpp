// Merging in O(n log n): short pieces by looking for the best pair again and again, long ones through a heap over a linked list.
#include "nn/text/bpe.h"

#include <algorithm>
#include <array>
#include <queue>

#include "kernels/error.h"
#include "nn/text/unicode.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

MergeTable::MergeTable(std::size_t expected) {
  std::size_t slots = 16;
  while (slots < expected + expected / 2) slots *= 2;
  slots_.resize(slots);
}

std::size_t MergeTable::slot_of(TokenId left, TokenId right) const {
  const std::size_t mask = slots_.size() - 1;
  std::uint64_t hash = (std::uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15U;
  hash ^= hash >> 29;
  std::size_t slot = hash & mask;
  while (slots_[slot].left != kNoToken && (slots_[slot].left != left || slots_[slot].right != right)) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::insert(TokenId left, TokenId right, Merge merge) {
  if (4 * (used_ + 1) > 3 * slots_.size()) {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.left != kNoToken) slots_[slot_of(slot.left, slot.right)] = slot;
    }
  }
  Slot& slot = slots_[slot_of(left, right)];
  if (slot.left == kNoToken) ++used_;
  slot = {left, right, merge};
}

MergeTable::Merge MergeTable::find(TokenId left, TokenId right) const { return slots_[slot_of(left, right)].merge; }

BpeModel::BpeModel(Vocabulary vocabulary, BpeOptions options, const std::string& where)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)), merges_(vocabulary_.size()) {
  if (!options_.unknown_token.empty()) {
    unknown_ = vocabulary_.find(options_.unknown_token);
    check<ConfigError>(unknown_ != kNoToken, where, ": unk_token ", quote_for_message(options_.unknown_token), " is not in the vocab");
  }
  if (options_.byte_fallback) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    for (std::size_t byte = 0; byte < 256; ++byte) {
      byte_tokens_.push_back(vocabulary_.find(std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">"));
    }
  }
}

void BpeModel::add_merge(std::string_view left, std::string_view right, const std::string& where) {
  const auto find = [&](std::string_view token) {
    const TokenId id = vocabulary_.find(token);
    if (id == kNoToken) {
      fail<ConfigError>(where, ": merge ", merge_count_, " of ", quote_for_message(left), " and ", quote_for_message(right), ": token ",
                        quote_for_message(token), " is not in the vocab");
    }
    return id;
  };
  const std::size_t prefix = options_.continuing_subword_prefix.size();
  if (right.size() < prefix) fail<ConfigError>(where, ": merge ", merge_count_, ": ", quote_for_message(right), " is shorter than the subword prefix");
  const TokenId left_id = find(left), right_id = find(right);
  const TokenId result = find(std::string(left) += right.substr(prefix));
  merges_.insert(left_id, right_id, {merge_count_++, result});
}

void BpeModel::split(std::string_view piece, std::vector<ModelToken>& symbols) const {
  ModelToken pending{kNoToken, 0, 0};  // an unknown that may be fused with the next
  std::string decorated;
  const bool plain = options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t begin = at;
    at += decode_utf8(piece, at).size;
    std::string_view symbol = piece.substr(begin, at - begin);
    if (!plain) {
      decorated.clear();
      if (begin > 0) decorated += options_.continuing_subword_prefix;
      decorated += symbol;
      if (at == piece.size()) decorated += options_.end_of_word_suffix;
      symbol = decorated;
    }
    const auto first = static_cast<std::uint32_t>(begin), last = static_cast<std::uint32_t>(at);
    if (const TokenId id = vocabulary_.find(symbol); id != kNoToken) {
      if (pending.id != kNoToken) symbols.push_back(pending);
      pending.id = kNoToken;
      symbols.push_back({id, first, last});
      continue;
    }
    const auto byte_token = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
    if (options_.byte_fallback && std::all_of(symbol.begin(), symbol.end(), [&](char c) { return byte_token(c) != kNoToken; })) {
      for (const char c : symbol) symbols.push_back({byte_token(c), first, last});
      continue;
    }
    if (unknown_ == kNoToken) continue;
    if (pending.id != kNoToken && options_.fuse_unknown) {
      pending.end = last;
      continue;
    }
    if (pending.id != kNoToken) symbols.push_back(pending);
    pending = {unknown_, first, last};
  }
  if (pending.id != kNoToken) symbols.push_back(pending);
}

void BpeModel::encode(std::string_view piece, std::vector<ModelToken>& tokens) const {
  if (options_.ignore_merges) {
    if (const TokenId id = vocabulary_.find(piece); id != kNoToken) {
      tokens.push_back({id, 0, static_cast<std::uint32_t>(piece.size())});
      return;
    }
  }
  constexpr std::size_t kShort = 24;
  std::vector<ModelToken> symbols;
  symbols.reserve(piece.size());
  split(piece, symbols);
  if (symbols.size() <= kShort) merge_short(symbols);
  else merge_long(symbols);
  tokens.insert(tokens.end(), symbols.begin(), symbols.end());
}

void BpeModel::merge_short(std::vector<ModelToken>& symbols) const {
  std::array<MergeTable::Merge, 24> pairs;  // pairs[i]: of symbols i and i + 1
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = merges_.find(symbols[i].id, symbols[i + 1].id);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoToken) break;
    symbols[best] = {pairs[best].result, symbols[best].begin, symbols[best + 1].end};
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --count;
    if (best > 0) pairs[best - 1] = merges_.find(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < count) pairs[best] = merges_.find(symbols[best].id, symbols[best + 1].id);
  }
  symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(count), symbols.end());
}

void BpeModel::merge_long(std::vector<ModelToken>& symbols) const {
  constexpr std::size_t kNone = SIZE_MAX;
  struct Candidate {
    std::uint32_t rank;
    TokenId result;
    std::size_t left;
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }  // smallest on top
  };
  std::vector<std::size_t> previous(symbols.size()), next(symbols.size());
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == symbols.size() ? kNone : i + 1;
  }
  std::vector<Candidate> candidates;
  const auto candidate = [&](std::size_t left) {
    const MergeTable::Merge merge = merges_.find(symbols[left].id, symbols[next[left]].id);
    return Candidate{merge.rank, merge.result, left};
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const Candidate found = candidate(i); found.rank != kNoToken) candidates.push_back(found);
  }
  std::priority_queue<Candidate> queue({}, std::move(candidates));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const std::size_t left = top.left;
    // Stale: the left symbol is gone, or it or its neighbour has changed since.
    if (symbols[left].id == kNoToken || next[left] == kNone || candidate(left).rank != top.rank) continue;
    const std::size_t right = next[left];
    symbols[left] = {top.result, symbols[left].begin, symbols[right].end};
    symbols[right].id = kNoToken;
    next[left] = next[right];
    if (next[left] != kNone) previous[next[left]] = left;
    for (const std::size_t at : {previous[left], left}) {
      if (at == kNone || next[at] == kNone) continue;
      if (const Candidate found = candidate(at); found.rank != kNoToken) queue.push(found);
    }
  }
  std::erase_if(symbols, [](const ModelToken& symbol) { return symbol.id == kNoToken; });
}

std::pair<std::string_view, std::string_view> parse_merge(std::string_view line, const std::string& where) {
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank + 1 >= line.size() || line.find(' ', blank + 1) != std::string_view::npos) {
    fail<ConfigError>(where, ": merge ", quote_for_message(line), ": expected two tokens with one blank between them");
  }
  return {line.substr(0, blank), line.substr(blank + 1)};
}

std::unique_ptr<TokenModel> make_bpe(const ModelSource& source) {
  const auto& [fields, vocab, merges, where] = source;
  if (const auto dropout = fields.find("dropout"); dropout != fields.end() && !dropout->is_null()) {
    check<ConfigError>(dropout->is_number() && dropout->get<double>() == 0.0, where, ": dropout: expected null, found ", dropout->dump(),
                       ": random merges are not supported");
  }
  auto model = std::make_unique<BpeModel>(
      read_vocabulary(vocab, where),
      BpeOptions{.unknown_token = text_of(fields, "unk_token", "", where),
                 .continuing_subword_prefix = text_of(fields, "continuing_subword_prefix", "", where),
                 .end_of_word_suffix = text_of(fields, "end_of_word_suffix", "", where),
                 .fuse_unknown = flag_of(fields, "fuse_unk", false, where),
                 .byte_fallback = flag_of(fields, "byte_fallback", false, where),
                 .ignore_merges = flag_of(fields, "ignore_merges", false, where)},
      where);
  check<ConfigError>(!merges.empty(), where, ": expected merges, found none");
  JsonReader reader(merges, where, 64);
  check<ConfigError>(reader.peek() == JsonReader::Type::array, where, ": expected merges to be a list");
  reader.enter(JsonReader::Type::array);
  std::string left, right;
  while (reader.next_element()) {
    if (reader.peek() == JsonReader::Type::string) {
      reader.read_string(left);
      const auto [first, second] = parse_merge(left, where);
      model->add_merge(first, second, where);
      continue;
    }
    std::size_t count = 0;
    if (reader.peek() == JsonReader::Type::array) {
      reader.enter(JsonReader::Type::array);
      for (; reader.next_element(); ++count) {
        if (reader.peek() != JsonReader::Type::string) count = 2;
        if (count >= 2) reader.skip_value();
        else reader.read_string(count == 0 ? left : right);
      }
    }
    if (count != 2) fail<ConfigError>(where, ": merges", reader.path(), R"(: expected "a b" or ["a", "b"])");
    model->add_merge(left, right, where);
  }
  return model;
}

}  // namespace cambium::detail
