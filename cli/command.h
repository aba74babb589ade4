// What the commands share: options, models with adapters, answers as JSON, signals.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cambium.h"
#include "tensor/json.h"

namespace cambium::cli {

/// --model, --adapter, --device, --dtype, --threads, --seed, --quiet, --json.
struct SharedOptions {
  std::string model, device = "cpu", dtype;
  std::vector<std::string> adapters;
  int threads = 0;
  std::uint64_t seed = 0;
  bool quiet = false, json = false;
};

/// Which of the shared options a command takes besides --threads, --quiet and --json.
struct Takes {
  bool model = true, adapter = true, seed = false;
};
void add_shared(CLI::App& command, SharedOptions& options, Takes takes = {});
/// Threads and device, before anything is computed.
void apply_shared(const SharedOptions& options);

/// What a model is loaded for.
struct ModelRequest {
  std::optional<Task> task;                ///< absent: the adapter's, or the one its architecture names
  bool mean_head = false;                  ///< classes from the mean of the tokens
  bool trainable_adapter = false;
  std::vector<std::string> label_names;    ///< empty: the adapter's, or the model's own
  std::string problem_type;                ///< of classes; empty: told by the labels
  std::optional<std::int64_t> num_labels;  ///< of a head without names
  RandomKey key;                           ///< of heads that the files do not hold
  bool complete = false;                   ///< look_at_model() has seen it
};

/// A model with its tokenizer, adapters and head; `peft` is null without adapters.
struct LoadedModel : TaskModel {
  std::optional<Tokenizer> tokenizer;
  std::string path;
  const Tokenizer* tokenizer_or_null() const { return tokenizer ? &*tokenizer : nullptr; }
  const Tokenizer& need_tokenizer() const;  ///< ConfigError if the model has none
};
LoadedModel load_model(const SharedOptions& options, ModelRequest request = {});
/// What the files say before the model is loaded: its configuration, and the request completed by the adapter's files and the architecture.
struct ModelFacts {
  ModelConfig config;
  ModelRequest request;
  Task data_task = Task::causal_lm;  ///< what rows are read for
  bool own_head = false;             ///< the files are of a model with a head for this task
};
ModelFacts look_at_model(const SharedOptions& options, ModelRequest request);
/// Classes for training data with the labels `found`: the model's own if they cover them, else the data's.
void choose_labels(ModelFacts& facts, const std::vector<std::string>& found);
/// Settings of rows that depend on the model: limits, vocabulary, end token, classes.
void adapt_data_options(DataOptions& data, const ModelFacts& facts, const Tokenizer* tokenizer, std::optional<std::int64_t> max_length);

/// --data-kind and what else says how rows are read.
struct DataArguments {
  DataOptions options;
  std::string kind = "auto", task, labels;
  std::optional<std::int64_t> max_length;
};
void add_data_options(CLI::App& command, DataArguments& data);
std::vector<std::string> split_commas(const std::string& text);

/// The measures of an evaluation as they apply, in one line and as JSON.
std::string eval_line(const EvalResult& result);
Json eval_json(const EvalResult& result);
/// Precision, recall and F1 of each class and the confusion matrix, as a table for a terminal.
std::string class_table(const Confusion& confusion, const std::vector<std::string>& names);

/// The tokenizer beside a model; nothing if there is none.
std::optional<Tokenizer> find_tokenizer(const std::string& model_path);
/// "DIR=NAME" or "DIR"; also of .gguf adapters.
std::pair<std::string, std::string> parse_adapter(const std::string& text, std::size_t index);

DType parse_dtype(const std::string& text);          ///< float32, bfloat16, float16; ConfigError
GgmlType parse_gguf_type(const std::string& text);   ///< F32, F16, BF16, Q8_0 in any case; ConfigError

/// Prints the answer as the last line of standard output if --json was given.
void answer(const SharedOptions& options, const Json& object);
/// A line on standard error unless --quiet.
void say(const SharedOptions& options, const std::string& line);

/// Set by SIGINT or SIGTERM; the second one ends the program at once.
const std::atomic<bool>& stop_requested();
void catch_signals();
/// 130 or 143 after a signal, else 0.
int signal_exit_code();

// One per command: adds it to the program and gives what runs it.
using Run = std::function<int()>;
Run add_train(CLI::App& program);
Run add_eval(CLI::App& program);
Run add_generate(CLI::App& program);
Run add_merge(CLI::App& program);
Run add_combine(CLI::App& program);
Run add_convert(CLI::App& program);
Run add_extract(CLI::App& program);
Run add_inspect(CLI::App& program);
Run add_tokenize(CLI::App& program);
Run add_logits(CLI::App& program);
Run add_devices(CLI::App& program);

}  // namespace cambium::cli
