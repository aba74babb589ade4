// Training examples from text files: token ids, and which of them are to be learned.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cambium {

class Tokenizer;

enum class DataKind { automatic, text, completion, instruct, chat, tokens };
std::string_view name_of(DataKind kind);
DataKind parse_data_kind(std::string_view text);  ///< ConfigError listing the kinds

struct DataOptions {
  DataKind kind = DataKind::automatic;        ///< automatic: told by the keys of the first line
  std::int64_t max_length = 1024;             ///< longer rows are cut, and counted
  std::string prompt_separator = "\n";        ///< between prompt and completion, encoded with the prompt
  bool train_on_prompt = false;               ///< false: only completions and assistant turns are learned
  std::string prompt_key = "prompt", completion_key = "completion", text_key = "text";
  std::optional<std::int64_t> end_token_id;   ///< appended to text and completions; absent: the tokenizer's, if it has one
  std::int64_t vocabulary = 0;                ///< > 0: ids are checked against it
};

/// One row. labels[t] is ids[t] where position t is to be predicted from what is before it, and -100 elsewhere, always at t = 0.
struct Example {
  std::vector<std::int64_t> ids, labels;
  std::int64_t line = 0;  ///< in the file, from 1
  std::int64_t targets() const;
};

struct Dataset {
  std::string path;
  DataKind kind = DataKind::text;
  std::vector<Example> examples;
  std::int64_t tokens = 0, targets = 0, cut_rows = 0, cut_tokens = 0;
};

/// Reads .jsonl (one object a line) or .txt (text; rows at blank lines). Every error names file and line; a row in which nothing is left to learn is one.
/// `tokenizer` may be null for DataKind::tokens, lines {"input_ids": […], "labels": […]} that need none.
Dataset load_dataset(const std::string& path, const Tokenizer* tokenizer, const DataOptions& options);

/// Takes a fraction of the rows, chosen by seed, into a second set.
Dataset split_off(Dataset& dataset, double fraction, std::uint64_t seed);

}  // namespace cambium
