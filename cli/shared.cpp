// Shared options, answers and signals.
#include <csignal>
#include <filesystem>
#include <iostream>
#include <sstream>

#include <unistd.h>

#include "cli/command.h"
#include "kernels/parallel.h"

namespace cambium::cli {

namespace {

std::atomic<bool> stop_flag{false};
volatile std::sig_atomic_t caught_signal = 0;

void on_signal(int signal) {
  if (caught_signal != 0) _exit(128 + signal);  // the second time: at once
  caught_signal = signal;
  stop_flag.store(true);  // lock-free, so it is allowed here
}

}  // namespace

DType parse_dtype(const std::string& text) {
  if (text == "float32") return DType::f32;
  if (text == "bfloat16") return DType::bf16;
  if (text == "float16") return DType::f16;
  fail<ConfigError>("--dtype: expected float32, bfloat16 or float16, found '", text, "'");
}

GgmlType parse_gguf_type(const std::string& text) {
  std::string upper = text;
  for (char& c : upper)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  for (const GgmlType type : {GgmlType::f32, GgmlType::f16, GgmlType::bf16, GgmlType::q8_0})
    if (ggml_format(type).name == upper) return type;
  fail<ConfigError>("--gguf-type: expected F32, F16, BF16 or Q8_0, found '", text, "'");
}

void add_shared(CLI::App& command, SharedOptions& options, Takes takes) {
  if (takes.model) command.add_option("--model", options.model, "Hugging Face folder or .gguf file")->required();
  if (takes.adapter) command.add_option("--adapter", options.adapters, "PEFT adapter folder or .gguf adapter, DIR or DIR=NAME; repeatable")->take_all()->type_name("DIR[=NAME]");
  if (takes.model) {
    command.add_option("--device", options.device, "cpu, cuda or cuda:N, see cambium devices")->capture_default_str();
    command.add_option("--dtype", options.dtype, "float32, bfloat16 or float16; default: as stored, float32 for GGUF blocks");
  }
  command.add_option("--threads", options.threads, "CPU threads; 0: all that this process may use")->capture_default_str()->check(CLI::NonNegativeNumber);
  if (takes.seed) command.add_option("--seed", options.seed, "of everything random")->capture_default_str();
  command.add_flag("--quiet", options.quiet, "no progress on standard error");
  command.add_flag("--json", options.json, "one JSON object as the last line of standard output");
}

void apply_shared(const SharedOptions& options) {
  kernels::set_threads(options.threads);
  parse_device(options.device);
}

std::pair<std::string, std::string> parse_adapter(const std::string& text, std::size_t index) {
  const std::size_t equals = text.rfind('=');
  if (equals != std::string::npos && !std::filesystem::exists(text)) return {text.substr(0, equals), text.substr(equals + 1)};
  return {text, index == 0 ? "default" : "adapter" + std::to_string(index)};
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');)
    if (!part.empty()) out.push_back(part);
  return out;
}

void add_data_options(CLI::App& c, DataArguments& data) {
  c.add_option("--task", data.task, "causal-lm, seq2seq, seq-cls, token-cls, question-ans or feature; default: by the model's architecture");
  c.add_option("--data-kind", data.kind, "auto, text, completion, instruct, chat, classification, token-classification, question-answering, seq2seq, tokens")->capture_default_str();
  c.add_option("--max-length", data.max_length, "tokens a row; longer ones are cut; default: the model's limit, at most 1024");
  c.add_option("--max-target-length", data.options.max_target_length, "tokens of a seq2seq target; default: --max-length")->check(CLI::PositiveNumber);
  c.add_option("--prompt-separator", data.options.prompt_separator, "between prompt and completion; default: a line break");
  c.add_flag("--train-on-prompt", data.options.train_on_prompt, "learn, or count, prompts too");
  c.add_option("--prompt-key", data.options.prompt_key)->capture_default_str();
  c.add_option("--completion-key", data.options.completion_key)->capture_default_str();
  c.add_option("--text-key", data.options.text_key)->capture_default_str();
  c.add_option("--label-key", data.options.label_key)->capture_default_str();
  c.add_option("--labels", data.labels, "comma-separated names of the classes in their order; default: the model's, or those in the training data, sorted");
}

void answer(const SharedOptions& options, const Json& object) {
  if (options.json) std::cout << object.dump() << std::endl;
}

void say(const SharedOptions& options, const std::string& line) {
  if (!options.quiet) std::cerr << line << std::endl;
}

const std::atomic<bool>& stop_requested() { return stop_flag; }

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int signal_exit_code() { return caught_signal == 0 ? 0 : 128 + caught_signal; }

}  // namespace cambium::cli
