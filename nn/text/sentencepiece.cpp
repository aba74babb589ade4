// What SentencePiece does around its models: normalization, and the way back (normalizer.cc, sentencepiece_processor.cc of 0.2.3).
#include "nn/text/sentencepiece.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "kernels/error.h"
#include "nn/text/character_map.h"
#include "nn/text/token_trie.h"
#include "nn/text/unicode.h"
#include "nn/text/unigram.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

/// The prefixes of a text that become another text.
class PrefixRules {
 public:
  PrefixRules(const std::string& map, const std::vector<std::string>& verbatim, const std::string& where) {
    if (!map.empty()) map_.emplace(map, where);
    if (verbatim.empty()) return;
    Vocabulary texts;
    for (const std::string& text : verbatim) texts.add(text, static_cast<std::int64_t>(texts.size()), where);
    verbatim_.emplace(texts, where);
  }
  /// What stands for the first `size` bytes of `text`, which is not empty.
  CharacterMap::Match next(std::string_view text) const {
    if (verbatim_) {
      std::size_t longest = 0;
      TokenTrie::Node node = TokenTrie::kRoot;
      for (std::size_t at = 0; at < text.size() && (node = verbatim_->step(node, text[at])) != TokenTrie::kNone;) {
        ++at;
        if (verbatim_->token(node) != kNoToken) longest = at;
      }
      if (longest > 0) return {text.substr(0, longest), longest};
    }
    if (map_) {
      if (const auto found = map_->longest(text)) return *found;
    }
    const std::size_t size = decode_utf8(text, 0).size;
    return {text.substr(0, size), size};
  }

 private:
  std::optional<CharacterMap> map_;
  std::optional<TokenTrie> verbatim_;
};

void normalize(Text& text, const PrefixRules& prefixes, const SentencePieceRules& rules, bool space_is_suffix) {
  Rewriter out(text);
  const std::string_view source = out.source(), space = rules.escape_whitespaces ? kSpaceMark : " ";
  std::size_t at = 0;
  while (rules.remove_extra_whitespaces && at < source.size()) {
    const auto [mapped, size] = prefixes.next(source.substr(at));
    if (mapped != " ") break;
    at += size;
  }
  if (at == source.size()) return out.finish();
  if (rules.add_dummy_prefix && !space_is_suffix) out.put(space, at, at);
  bool after_space = rules.remove_extra_whitespaces;
  while (at < source.size()) {
    auto [mapped, size] = prefixes.next(source.substr(at));
    while (after_space && mapped.starts_with(' ')) mapped.remove_prefix(1);
    if (!mapped.empty()) {
      for (std::size_t done = 0; done < mapped.size();) {
        const std::size_t blank = std::min(mapped.find(' ', done), mapped.size());
        out.put(mapped.substr(done, blank - done), at, at + size);
        if (blank < mapped.size()) out.put(space, at, at + size);
        done = blank + 1;
      }
      after_space = rules.remove_extra_whitespaces && mapped.ends_with(' ');
    }
    at += size;
  }
  while (rules.remove_extra_whitespaces && out.ends_with(space)) out.drop(space.size());
  if (rules.add_dummy_prefix && space_is_suffix) out.put(space, source.size(), source.size());
  out.finish();
}

/// The value of <0xHH>, or -1.
int byte_of(std::string_view token) {
  unsigned value = 0;
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  const char* digits = token.data() + 3;
  return std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2 ? static_cast<int>(value) : -1;
}

void check_pieces(const SentencePieceFile& file, const std::string& where) {
  check<ConfigError>(!file.pieces.empty(), where, ": expected pieces, found none: is this a SentencePiece model?");
  std::array<bool, 256> bytes{};
  std::size_t unknown = 0;
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& [text, score, type] = file.pieces[id];
    if (text.empty() || text.find('\0') != std::string::npos || !is_valid_utf8(text)) fail<ConfigError>(where, ": piece ", id, ": expected a text in UTF-8 without zero bytes, found ", quote_for_message(text));
    check<ConfigError>(std::isfinite(score), where, ": piece ", id, ": expected a score that is finite");
    unknown += type == PieceType::unknown ? 1 : 0;
    if (type != PieceType::byte) continue;
    const int value = byte_of(text);
    if (!file.byte_fallback || value < 0) fail<ConfigError>(where, ": piece ", id, ": expected ", file.byte_fallback ? "<0xHH>" : "no byte in a model without byte_fallback", ", found ", quote_for_message(text));
    bytes[static_cast<std::size_t>(value)] = true;
  }
  check<ConfigError>(unknown == 1 || (unknown == 0 && file.byte_fallback), where, ": expected one unknown piece, found ", unknown);
  check<ConfigError>(!file.byte_fallback || std::all_of(bytes.begin(), bytes.end(), [](bool seen) { return seen; }), where, ": expected 256 byte pieces in a model with byte_fallback");
}

std::unique_ptr<TokenModel> make_sentencepiece_unigram(Vocabulary vocabulary, const SentencePieceFile& file, const std::string& where) {
  UnigramOptions options{.byte_fallback = file.byte_fallback, .rules = UnigramRules::sentencepiece, .lowest = std::numeric_limits<float>::max()};
  std::vector<double> scores;
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& [text, score, type] = file.pieces[id];
    scores.push_back(score);
    options.never.push_back(type != PieceType::normal && type != PieceType::user_defined);
    options.user_defined.push_back(type == PieceType::user_defined);
    if (type == PieceType::unknown) options.unknown = static_cast<TokenId>(id);
    if (type == PieceType::normal) options.lowest = std::min(options.lowest, static_cast<double>(score));
  }
  return unigram_model(std::move(vocabulary), std::move(scores), std::move(options), where);
}

}  // namespace

Normalizer sentencepiece_normalizer(const SentencePieceRules& rules, const std::vector<std::string>& user_defined, bool space_is_suffix, const std::string& where) {
  auto prefixes = std::make_shared<const PrefixRules>(rules.character_map, user_defined, where + ": character map");
  return [prefixes = std::move(prefixes), rules, space_is_suffix](Text& text) { normalize(text, *prefixes, rules, space_is_suffix); };
}

Decoder sentencepiece_decoder(const SentencePieceFile& file, const std::string& where) {
  const auto unknown = std::find_if(file.pieces.begin(), file.pieces.end(), [](const auto& piece) { return piece.type == PieceType::unknown; });
  Normalizer after;
  if (!file.denormalizer.character_map.empty()) after = sentencepiece_normalizer(file.denormalizer, {}, false, where);
  return [unknown_piece = unknown == file.pieces.end() ? std::string() : unknown->text, unknown_surface = file.unknown_surface, has_bytes = file.byte_fallback,
          prefix = file.normalizer.add_dummy_prefix, strips = file.normalizer.remove_extra_whitespaces, after](std::vector<std::string>& tokens) {
    std::string text, bytes;
    const auto flush = [&] {
      for (std::size_t at = 0; at < bytes.size();) {
        const Utf8Step step = decode_utf8(bytes, at);
        text += step.valid ? std::string_view(bytes).substr(at, step.size) : kReplacementCharacter;
        at += step.valid ? step.size : 1;
      }
      bytes.clear();
    };
    bool at_start = true;
    for (std::string_view token : tokens) {
      if (const int value = has_bytes ? byte_of(token) : -1; value >= 0) {
        bytes += static_cast<char>(value);
        continue;
      }
      flush();
      at_start = at_start && text.empty();
      bool took_mark = false;
      if (at_start && (prefix || strips) && token.starts_with(kSpaceMark) && token != unknown_piece) {
        token.remove_prefix(kSpaceMark.size());
        took_mark = !strips;
      }
      if (!unknown_piece.empty() && token == unknown_piece) {
        text += unknown_surface;
      } else {
        std::size_t done = 0;
        for (std::size_t mark; (mark = token.find(kSpaceMark, done)) != std::string_view::npos; done = mark + kSpaceMark.size()) text.append(token.substr(done, mark - done)) += ' ';
        text += token.substr(done);
      }
      at_start = at_start && !took_mark && text.empty();
    }
    flush();
    if (after) {
      Text whole(std::move(text), false);
      after(whole);
      text = whole.bytes();
    }
    tokens.assign(1, std::move(text));
  };
}

TokenizerState state_from_sentencepiece(const SentencePieceFile& file, bool matches_control, const std::string& where) {
  check<ConfigError>(file.kind == SentencePieceFile::Kind::unigram || file.kind == SentencePieceFile::Kind::bpe, where,
                     ": expected a model of type UNIGRAM or BPE, found ", file.kind == SentencePieceFile::Kind::word ? "WORD" : "CHAR");
  check_pieces(file, where);
  TokenizerState state;
  Vocabulary vocabulary;
  std::vector<std::string> user_defined;
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    vocabulary.add(piece.text, static_cast<std::int64_t>(id), where);
    if (piece.type == PieceType::user_defined) user_defined.push_back(piece.text);
    if (piece.type == PieceType::control) {
      state.added.add({.id = static_cast<std::int64_t>(id), .content = piece.text, .matched = matches_control, .special = true}, {}, where);
    }
  }
  const auto control = [&](const std::string& text) -> std::optional<std::int64_t> {
    const AddedToken* token = state.added.find(text);
    return token ? std::optional<std::int64_t>(token->id) : std::nullopt;
  };
  state.bos_id = control(file.bos_piece);
  state.eos_id = control(file.eos_piece);
  state.pad_id = control(file.pad_piece);
  if (state.eos_id) state.stop_ids.push_back(*state.eos_id);
  state.normalizer = sentencepiece_normalizer(file.normalizer, user_defined, file.treat_whitespace_as_suffix, where);
  state.model = file.kind == SentencePieceFile::Kind::bpe ? sentencepiece_bpe(std::move(vocabulary), file, where)
                                                          : make_sentencepiece_unigram(std::move(vocabulary), file, where);
  state.decoder = sentencepiece_decoder(file, where);
  return state;
}

}  // namespace cambium::detail
