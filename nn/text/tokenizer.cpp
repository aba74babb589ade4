// The path of a text through the stages, and back.
#include "nn/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "kernels/error.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/tokenizer_state.h"
#include "nn/text/unicode.h"
#include "tensor/gguf.h"
#include "tensor/json_reader.h"

namespace cambium {

namespace detail {

namespace {
// In the order in which a folder is searched: the file that spells all rules out first.
constexpr std::array<std::string_view, 4> kTokenizerFiles{"tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt"};
}  // namespace

std::optional<std::int64_t> TokenizerState::find(std::string_view token) const {
  if (const AddedToken* found = added.find(std::string(token))) return found->id;
  const TokenId id = model->vocabulary().find(token);
  return id == kNoToken ? std::nullopt : std::optional<std::int64_t>(id);
}

std::optional<std::string_view> TokenizerState::text(std::int64_t id) const {
  if (const AddedToken* found = added.find(id)) return found->shown;
  if (!model->vocabulary().contains(id)) return std::nullopt;
  return model->vocabulary().token(static_cast<TokenId>(id));
}

std::string TokenizerState::decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (const std::int64_t id : ids) {
    const AddedToken* token = skip_special_tokens ? added.find(id) : nullptr;
    if (token && token->special) continue;
    if (const auto found = text(id)) tokens.emplace_back(*found);
  }
  if (decoder) decoder(tokens);
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!decoder && i > 0) out += ' ';  // without a decoder tokens are words
    out += tokens[i];
  }
  return out;
}

std::string read_text_file(const std::string& path) {
  check<FileError>(std::filesystem::is_regular_file(path), path, ": expected a file, found none");
  std::ifstream stream(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(std::filesystem::file_size(path)), '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  check<FileError>(stream.gcount() == static_cast<std::streamsize>(text.size()), path, ": cannot be read");
  return text;
}

void finish_state(TokenizerState& state, const std::string& where) {
  const Vocabulary& vocabulary = state.model->vocabulary();
  state.vocab_size = vocabulary.id_end();
  for (const AddedToken& token : state.added.tokens()) {
    const TokenId known = vocabulary.find(token.content);
    if (known != kNoToken && known != token.id) {
      fail<ConfigError>(where, ": added token ", quote_for_message(token.content), ": expected its id of the vocab, ", known, ", found ", token.id);
    }
    if (known == kNoToken && vocabulary.contains(token.id)) {
      fail<ConfigError>(where, ": added token ", quote_for_message(token.content), ": id ", token.id, " is already taken in the vocab");
    }
    if (token.id >= 131072 + 2 * vocabulary.id_end()) {
      fail<ConfigError>(where, ": added token ", quote_for_message(token.content), ": expected an id without a large gap below, found ", token.id);
    }
    state.vocab_size = std::max(state.vocab_size, token.id + 1);
  }
  state.added.finish();
  for (const auto* items : {&state.post_processor.single, &state.post_processor.pair}) {
    for (const TemplateItem& item : *items) {
      check<ConfigError>(item.sequence >= 0 || state.text(item.id).has_value(), where, ": post_processor: no token has the id ", item.id);
    }
  }
}

}  // namespace detail

Tokenizer::Tokenizer(std::shared_ptr<const detail::TokenizerState> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& where) {
  return Tokenizer(std::make_shared<detail::TokenizerState>(detail::state_from_json(json, where)));
}

Tokenizer Tokenizer::from_lists(const TokenizerLists& lists, const std::string& where) {
  return Tokenizer(std::make_shared<detail::TokenizerState>(detail::state_from_lists(lists, where)));
}

Tokenizer Tokenizer::from_file(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.ends_with(".gguf")) return from_gguf(GgufFile(path));
  const bool is_folder = fs::is_directory(path);
  fs::path file = path;
  if (is_folder) {
    const auto name = std::find_if(detail::kTokenizerFiles.begin(), detail::kTokenizerFiles.end(), [&](std::string_view found) { return fs::is_regular_file(file / found); });
    check<FileError>(name != detail::kTokenizerFiles.end(), "tokenizer: ", path, ": expected a folder with a tokenizer.json, spiece.model, tokenizer.model or vocab.txt, found none of them");
    file /= *name;
  }
  check<FileError>(fs::is_regular_file(file), "tokenizer: ", file.string(), ": expected a tokenizer.json, a .model, a vocab.txt or a folder with one, found none");
  const std::string where = file.string();
  auto state = std::make_shared<detail::TokenizerState>([&] {
    if (file.extension() == ".txt") return detail::state_from_vocab_file(where);
    if (file.extension() != ".model") return detail::state_from_json(detail::read_text_file(where), where);
    if (is_folder) return detail::state_from_sentencepiece_folder(path, where);
    detail::TokenizerState alone = detail::state_from_sentencepiece(detail::read_sentencepiece_file(detail::read_text_file(where), where), false, where);
    detail::finish_state(alone, where);
    return alone;
  }());
  if (is_folder) detail::read_companions(*state, path);
  return Tokenizer(std::move(state));
}

bool Tokenizer::exists(const std::string& folder) {
  return std::any_of(detail::kTokenizerFiles.begin(), detail::kTokenizerFiles.end(), [&](std::string_view name) { return std::filesystem::is_regular_file(std::filesystem::path(folder) / name); });
}

std::string Tokenizer::decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens) const {
  const std::string bytes = state_->decode(ids, skip_special_tokens);
  return detail::is_valid_utf8(bytes) ? bytes : detail::repair_utf8(bytes);
}

std::int64_t Tokenizer::vocab_size() const { return state_->vocab_size; }
std::optional<std::int64_t> Tokenizer::token_to_id(std::string_view token) const { return state_->find(token); }

std::string Tokenizer::id_to_token(std::int64_t id) const {
  const auto text = state_->text(id);
  check<NameError>(text.has_value(), "id_to_token: expected the id of a token, found ", id, " in a vocabulary of ", vocab_size());
  return std::string(*text);
}

bool Tokenizer::is_special(std::int64_t id) const {
  const detail::AddedToken* token = state_->added.find(id);
  return token && token->special;
}

std::optional<std::int64_t> Tokenizer::bos_id() const { return state_->bos_id; }
std::optional<std::int64_t> Tokenizer::eos_id() const { return state_->eos_id; }
std::optional<std::int64_t> Tokenizer::pad_id() const { return state_->pad_id; }
const std::vector<std::int64_t>& Tokenizer::stop_ids() const { return state_->stop_ids; }
const std::string& Tokenizer::chat_template() const { return state_->chat_template; }

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::push(std::int64_t id) {
  if (!tokenizer_.state_->text(id) || (skip_special_tokens_ && tokenizer_.is_special(id))) return {};
  ids_.push_back(id);
  const std::string bytes = tokenizer_.state_->decode(ids_, skip_special_tokens_);
  const std::size_t whole = bytes.size() - detail::unfinished_utf8(bytes);
  // A decoder of <0xHH> tokens shows an unfinished character as U+FFFD. No character needs more than four tokens.
  const bool doubtful = std::string_view(bytes).substr(0, whole).ends_with(detail::kReplacementCharacter);
  if (doubtful && whole > given_ && ids_.size() - settled_ < 4) return {};
  settled_ = ids_.size();
  if (whole <= given_) return {};
  std::string text = detail::repair_utf8(std::string_view(bytes).substr(given_, whole - given_));
  given_ = whole;
  if (whole == bytes.size()) {
    // Keep this stretch as the context of the next: decoders may treat the first token differently. One without text is no context:
    // a decoder may still wait for its first.
    std::vector<std::int64_t> stretch(ids_.begin() + static_cast<std::ptrdiff_t>(context_), ids_.end());
    const std::size_t size = tokenizer_.state_->decode(stretch, skip_special_tokens_).size();
    if (size > 0) {
      context_ = settled_ = stretch.size();
      ids_ = std::move(stretch);
      given_ = size;
    }
  }
  return text;
}

std::string StreamDecoder::finish() {
  const std::string bytes = tokenizer_.state_->decode(ids_, skip_special_tokens_);
  std::string rest = bytes.size() > given_ ? detail::repair_utf8(std::string_view(bytes).substr(given_)) : std::string();
  ids_.clear();
  context_ = given_ = settled_ = 0;
  return rest;
}

}  // namespace cambium
