// The way of a text through the stages, and how the tokens of one or two texts become one encoding.
#include <algorithm>

#include "kernels/error.h"
#include "nn/text/tokenizer.h"
#include "nn/text/tokenizer_state.h"
#include "nn/text/unicode.h"

namespace cambium {

namespace detail {

namespace {

Text to_text(std::string_view bytes, bool traced) {
  Text text(std::string(bytes), traced);
  if (is_valid_utf8(bytes)) return text;
  Rewriter out(text);
  for (std::size_t at = 0; at < bytes.size();) {
    const Utf8Step step = decode_utf8(bytes, at);
    if (step.valid) out.keep(at, at + step.size);
    else out.put(kReplacementCharacter, at, at + step.size);
    at += step.size;
  }
  out.finish();
  return text;
}

}  // namespace

EncodedTokens TokenizerState::encode(std::string_view bytes, bool traced) const {
  EncodedTokens out;
  std::vector<ModelToken> tokens;
  std::int64_t word = 0;
  const auto put = [&](std::int64_t id, const Text& text, std::size_t begin, std::size_t end) {
    out.ids.push_back(id);
    if (!traced) return;
    Origin origin = text.origin(begin, end);
    if (post_processor.trims_origins) {
      const std::string_view covered = bytes.substr(origin.begin, origin.end - origin.begin);
      const std::string_view rest = is_valid_utf8(covered) ? trim_white_space(covered) : covered;
      origin.begin += static_cast<std::uint32_t>(rest.data() - covered.data());
      origin.end = origin.begin + static_cast<std::uint32_t>(rest.size());
    }
    out.origins.push_back({.sequence = 0, .word = word, .begin = origin.begin, .end = origin.end});
  };
  const auto encode_text = [&](Text text) {
    std::vector<Piece> pieces;
    const bool at_start = text.at_start();
    pieces.push_back({std::move(text), at_start});
    if (pre_tokenizer) pre_tokenizer(pieces);
    for (const Piece& piece : pieces) {
      if (piece.text.empty()) continue;
      check<ShapeError>(piece.text.bytes().size() < UINT32_MAX, "tokenizer: expected a piece of text below 4 GiB, found ", piece.text.bytes().size(), " bytes");
      tokens.clear();
      model->encode(piece.text.bytes(), tokens);
      for (const ModelToken& token : tokens) put(token.id, piece.text, token.begin, token.end);
      ++word;
    }
  };
  const Text text = to_text(bytes, traced);
  // Where nothing is cut out, the stages work on the text itself.
  for (const Segment& segment : added.raw().split(text.bytes())) {
    const auto begin = static_cast<std::size_t>(segment.text.data() - text.bytes().data()), end = begin + segment.text.size();
    if (segment.id >= 0) {
      put(segment.id, text, begin, end);
      ++word;
      continue;
    }
    Text normalized = text.slice(begin, end);
    if (normalizer) normalizer(normalized);
    for (const Segment& inner : added.normalized().split(normalized.bytes())) {
      const auto first = static_cast<std::size_t>(inner.text.data() - normalized.bytes().data()), last = first + inner.text.size();
      if (inner.id < 0) {
        encode_text(normalized.slice(first, last));
        continue;
      }
      put(inner.id, normalized, first, last);
      ++word;
    }
  }
  return out;
}

namespace {

// Takes tokens off the right ends until `most` are left.
void truncate(std::vector<EncodedTokens>& texts, std::size_t most, Truncation truncation) {
  std::size_t total = 0;
  for (const EncodedTokens& text : texts) total += text.ids.size();
  if (total <= most) return;
  const auto keep = [&](std::size_t index, std::size_t count) {
    texts[index].ids.resize(count);
    texts[index].origins.resize(count);
  };
  if (texts.size() == 1) return keep(0, most);
  const std::size_t first = texts[0].ids.size(), second = texts[1].ids.size();
  if (truncation == Truncation::longest_first) {
    // As taking them one by one off the longer: the shorter stays whole while it is not more than half.
    const std::size_t shorter = std::min({first, second, most / 2});
    keep(first <= second ? 0 : 1, shorter);
    return keep(first <= second ? 1 : 0, most - shorter);
  }
  const std::size_t cut = truncation == Truncation::only_first ? 0 : 1, other = cut == 0 ? second : first;
  check<ConfigError>(other <= most, "tokenizer: expected room for the ", cut == 0 ? "second" : "first", " text's ", other, " tokens beside the special ones, found room for ", most,
                     ": raise max_length, or truncate the longest first");
  keep(cut, most - other);
}

Encoding join(const TokenizerState& state, std::vector<EncodedTokens> texts, const EncodeOptions& options) {
  const std::vector<TemplateItem>& items = texts.size() == 1 ? state.post_processor.single : state.post_processor.pair;
  if (options.max_length > 0) {
    const auto special = options.add_special_tokens ? static_cast<std::size_t>(std::count_if(items.begin(), items.end(), [](const TemplateItem& item) { return item.sequence < 0; })) : 0;
    check<ConfigError>(options.max_length > special, "tokenizer: max_length: expected more than the ", special, " special tokens, found ", options.max_length);
    truncate(texts, options.max_length - special, options.truncation);
  }
  Encoding out;
  for (const TemplateItem& item : items) {
    if (item.sequence < 0) {
      if (!options.add_special_tokens) continue;
      out.ids.push_back(item.id);
      out.origins.push_back({});
    } else {
      const EncodedTokens& text = texts[static_cast<std::size_t>(item.sequence)];
      out.ids.insert(out.ids.end(), text.ids.begin(), text.ids.end());
      for (TokenOrigin origin : text.origins) {
        origin.sequence = item.sequence;
        out.origins.push_back(origin);
      }
    }
    out.type_ids.resize(out.ids.size(), item.type_id);
  }
  return out;
}

}  // namespace

}  // namespace detail

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<std::int64_t> ids = state_->encode(text, false).ids;
  const auto& items = state_->post_processor.single;
  if (!add_special_tokens || items.size() == 1) return ids;
  std::vector<std::int64_t> whole;
  whole.reserve(ids.size() + items.size());
  for (const detail::TemplateItem& item : items) {
    if (item.sequence < 0) whole.push_back(item.id);
    else whole.insert(whole.end(), ids.begin(), ids.end());
  }
  return whole;
}

Encoding Tokenizer::encode_text(std::string_view text, const EncodeOptions& options) const {
  return detail::join(*state_, {state_->encode(text, true)}, options);
}

Encoding Tokenizer::encode_pair(std::string_view a, std::string_view b, const EncodeOptions& options) const {
  return detail::join(*state_, {state_->encode(a, true), state_->encode(b, true)}, options);
}

Encoding Tokenizer::encode_words(const std::vector<std::string>& words, const EncodeOptions& options) const {
  detail::EncodedTokens all;
  for (std::size_t i = 0; i < words.size(); ++i) {
    detail::EncodedTokens one = state_->encode(words[i], true);
    for (TokenOrigin& origin : one.origins) origin.word = static_cast<std::int64_t>(i);
    all.ids.insert(all.ids.end(), one.ids.begin(), one.ids.end());
    all.origins.insert(all.origins.end(), one.origins.begin(), one.origins.end());
  }
  return detail::join(*state_, {std::move(all)}, options);
}

}  // namespace cambium
