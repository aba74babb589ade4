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

/// A model with its tokenizer and adapters; `peft` is null without adapters.
struct LoadedModel {
  std::shared_ptr<PretrainedModel> base;
  std::unique_ptr<PeftModel> peft;
  std::optional<Tokenizer> tokenizer;
  std::string path;

  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const { return peft ? peft->forward(input, context) : base->forward(input, context); }
  const Tokenizer& need_tokenizer() const;  ///< ConfigError if the model has none
};
LoadedModel load_model(const SharedOptions& options, bool trainable_adapter = false);
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
