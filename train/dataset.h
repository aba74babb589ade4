// Training examples from data files: token ids, and what is to be learned from them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/models/model.h"

namespace cambium {

class Tokenizer;

enum class DataKind { automatic, text, completion, instruct, chat, classification, token_classification, question_answering, seq2seq, tokens };
std::string_view name_of(DataKind kind);
DataKind parse_data_kind(std::string_view text);  ///< ConfigError listing the kinds

/// "causal-lm", "seq2seq", "seq-cls", "token-cls", "question-ans", "feature": a task as the command spells it.
std::string_view task_name(Task task);
Task parse_task(std::string_view text);  ///< ConfigError listing them

struct DataOptions {
  Task task = Task::causal_lm;                ///< what the rows are for; a kind that does not serve it is an error
  DataKind kind = DataKind::automatic;        ///< automatic: told by the keys of the first line
  std::int64_t max_length = 1024;             ///< longer rows are cut, and counted
  std::int64_t max_target_length = 0;         ///< of the targets of sequence-to-sequence rows; 0: max_length
  std::string prompt_separator = "\n";        ///< between prompt and completion, encoded with the prompt
  bool train_on_prompt = false;               ///< false: only completions and assistant turns are learned
  bool first_token_is_target = false;         ///< something stands before every row (a learned prompt), so that its first token can be predicted too
  std::string prompt_key = "prompt", completion_key = "completion", text_key = "text", label_key = "label";
  std::optional<std::int64_t> end_token_id;   ///< appended to text and completions; absent: the tokenizer's, if it has one
  std::int64_t vocabulary = 0;                ///< > 0: ids are checked against it
  std::vector<std::string> label_names;       ///< classes by number; a label that is neither a name nor a number of them is an error
};

/// One row: token ids and what the task wants to be said about them. Members that the task has no use for are empty.
struct Example {
  std::vector<std::int64_t> ids;
  /// Causal: labels[t] is ids[t] where position t is to be predicted from what is before it. Sequence to sequence: the target's tokens. Tokens: their classes. -100: not learned.
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> token_types;  ///< segments of pairs
  std::vector<std::int64_t> decoder_ids;  ///< what the decoder reads; empty: the labels, shifted right
  std::int64_t label = -100;              ///< class of the whole row
  std::vector<float> values;              ///< instead: a number to predict, or one 0 or 1 for each class
  std::int64_t answer_start = -100, answer_end = -100;  ///< first and last token of the answer
  std::int64_t line = 0;                  ///< in the file, from 1
  std::int64_t cut = 0;                   ///< tokens beyond the limit that were left out
  std::int64_t targets() const;           ///< how many things are learned: tokens, or 1 for a class, a number or a span
};

struct Dataset {
  std::string path;
  Task task = Task::causal_lm;
  DataKind kind = DataKind::text;
  std::vector<Example> examples;
  std::vector<std::string> label_names;
  std::int64_t tokens = 0, targets = 0, cut_rows = 0, cut_tokens = 0;
  void count();  ///< the sums over the examples
};

/// Reads .jsonl (one object a line), .csv or .tsv (with a header; RFC 4180) or .txt (text; rows at blank lines). Every error names file and line; a row in which
/// nothing is left to learn is one. `tokenizer` may be null for DataKind::tokens, lines that need none: {"input_ids": […], "labels": […]} with a list or a class,
/// and "attention_mask", "token_type_ids", "decoder_input_ids", "start_positions", "end_positions" as the task takes them.
Dataset load_dataset(const std::string& path, const Tokenizer* tokenizer, const DataOptions& options);

/// The classes in a file for sequence or token classification: texts sorted, numbers by value (0 to the largest). Empty for numbers to predict and for 0-or-1 lists.
std::vector<std::string> find_label_names(const std::string& path, const DataOptions& options);

/// Takes a fraction of the rows, chosen by seed, into a second set.
Dataset split_off(Dataset& dataset, double fraction, std::uint64_t seed);

}  // namespace cambium
