// Tokenizer: text to token ids and back, read from a tokenizer.json, a model folder, a SentencePiece .model, a vocab.txt or a GGUF file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cambium {

class GgufFile;

namespace detail {
struct TokenizerState;
}

/// A byte-level BPE vocabulary as a GGUF file holds it. The rules of cutting come from a name.
struct TokenizerLists {
  std::vector<std::string> tokens;       ///< by id, bytes in GPT-2's printable alphabet
  std::vector<std::int32_t> token_types; ///< 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; empty: all normal
  std::vector<std::string> merges;       ///< "left right", by rank
  std::string pre_tokenizer;             ///< "smollm", "gpt-2", "llama-bpe", "qwen2", "default", …
  std::optional<std::int64_t> bos_id, eos_id, pad_id;
  std::vector<std::int64_t> stop_ids;    ///< further ids that end a text
  std::optional<bool> add_bos, add_eos;  ///< what encode(text, true) puts around; absent: as usual for the pre_tokenizer
  std::string chat_template;
};

/// Which of two texts gives up tokens when an encoding is too long.
enum class Truncation : std::uint8_t { longest_first, only_first, only_second };

struct EncodeOptions {
  bool add_special_tokens = true;  ///< those that the tokenizer puts around a text or between two
  std::size_t max_length = 0;      ///< of all ids, special ones included, cut at the right end of a text; 0: no limit
  Truncation truncation = Truncation::longest_first;
};

/// Where a token of an encoding came from.
struct TokenOrigin {
  std::int64_t sequence = -1;       ///< 0 the first text, 1 the second, -1: put in by the tokenizer
  std::int64_t word = -1;           ///< index in the words of encode_words, else of the pieces between which no token reaches; -1: none
  std::size_t begin = 0, end = 0;   ///< bytes of that text (of that word in encode_words); equal where the token stands for none
};

/// Token ids with what belongs to each; all three lists are of one length.
struct Encoding {
  std::vector<std::int64_t> ids, type_ids;
  std::vector<TokenOrigin> origins;
};

/// Immutable after loading: copies are cheap and share everything, and threads may use one at once.
class Tokenizer {
 public:
  /// A tokenizer.json, a SentencePiece .model, BERT's vocab.txt (with the tokenizer_config.json beside it), a .gguf file, or a folder
  /// with the first there is of tokenizer.json, spiece.model, tokenizer.model and vocab.txt, and perhaps with tokenizer_config.json,
  /// special_tokens_map.json, generation_config.json, chat_template.jinja. FileError: not there, or not readable as what it is.
  /// ConfigError: contents that contradict themselves, or a kind of tokenizer that is not supported.
  /// A .model alone follows SentencePiece itself: control pieces are not found in text, nothing is put around it.
  /// Truncation and padding asked for in the file are not done: that is the caller's business.
  static Tokenizer from_file(const std::string& path);
  /// Whether a folder holds a file that from_file reads.
  static bool exists(const std::string& folder);
  /// The text of a tokenizer.json; `where` starts messages.
  static Tokenizer from_json(std::string_view json, const std::string& where);
  static Tokenizer from_lists(const TokenizerLists& lists, const std::string& where);
  static Tokenizer from_gguf(const GgufFile& file);

  /// Ids of a text. Bytes that are not UTF-8 count as U+FFFD, one for each maximal subpart. The text of special tokens is
  /// recognised; `add_special_tokens` says whether the tokenizer also puts its own (BOS, say) around the text. A character that
  /// the vocabulary cannot express is dropped, as in the reference. Takes time n log n at most.
  std::vector<std::int64_t> encode(std::string_view text, bool add_special_tokens = false) const;

  /// The same ids with type ids and origins. Begin and end are bytes of the text as it was given, whatever normalization did.
  /// ConfigError: max_length leaves no room for the special tokens.
  Encoding encode_text(std::string_view text, const EncodeOptions& options = {}) const;
  /// Two texts as one: [CLS] a [SEP] b [SEP] and type ids 0 and 1 for BERT, say.
  Encoding encode_pair(std::string_view a, std::string_view b, const EncodeOptions& options = {}) const;
  /// A text that is given in words, each encoded on its own: for labels that belong to words. Tokenizers that see blanks need them
  /// in the words, as the reference library does.
  Encoding encode_words(const std::vector<std::string>& words, const EncodeOptions& options = {}) const;

  /// Text of ids: always valid UTF-8. Ids without a token add nothing, as in the reference.
  std::string decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens = false) const;

  /// Largest id + 1: the rows that an embedding needs at least.
  std::int64_t vocab_size() const;
  std::optional<std::int64_t> token_to_id(std::string_view token) const;
  /// As stored, for byte-level models in GPT-2's alphabet. NameError if no token has this id.
  std::string id_to_token(std::int64_t id) const;
  bool is_special(std::int64_t id) const;

  std::optional<std::int64_t> bos_id() const;
  std::optional<std::int64_t> eos_id() const;
  std::optional<std::int64_t> pad_id() const;
  /// Every id that ends a generated text: eos_id and those that the model's files name beside it.
  const std::vector<std::int64_t>& stop_ids() const;
  /// Empty if the files give none.
  const std::string& chat_template() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const detail::TokenizerState> state);
  std::shared_ptr<const detail::TokenizerState> state_;
};

/// Decodes ids one by one and gives out only whole characters. Everything given out, joined, is what decode() gives for all ids,
/// but that bytes of <0xHH> tokens which turn out invalid later may already have been given out.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens = false);
  /// Text that became complete with this id; often empty in the middle of a character.
  std::string push(std::int64_t id);
  /// What is left; the decoder then starts anew.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::vector<std::int64_t> ids_;   // the last stretch that was given out whole, and what came since
  std::size_t context_ = 0;         // ids of that stretch
  std::size_t given_ = 0;           // bytes of ids_' text given out
  std::size_t settled_ = 0;         // ids of ids_ that no doubtful character waits for
};

}  // namespace cambium
