// `cambium generate`: text from a prompt, streamed as it comes; --chat keeps a conversation.
#include <iostream>
#include <sstream>

#include <unistd.h>

#include "cli/command.h"
#include "nn/generation_seq2seq.h"

namespace cambium::cli {

namespace {
struct GenerateArguments {
  SharedOptions shared;
  GenerationOptions options;
  std::string prompt, system, separator;
  bool have_prompt = false, chat = false, special = false, no_end = false;
};

/// The model's continuation of one row: an encoder-decoder's answer to it.
std::vector<std::int64_t> continue_ids(const LoadedModel& model, const std::vector<std::int64_t>& ids, const GenerationOptions& options) {
  if (model.peft && model.peft->base_model->is_prompt_learning()) return model.peft->generate(ids, options);
  if (model.task() != Task::seq2seq_lm) return generate(*model.base, ids, options);
  ModelInput input;
  input.input_ids = from_vector(ids, {1, static_cast<std::int64_t>(ids.size())});
  return generate_seq2seq(*model.base, input, options).front();
}

/// Streams the continuation and gives it back whole.
std::string continue_text(const LoadedModel& model, GenerateArguments& a, const std::vector<std::int64_t>& ids, std::vector<std::int64_t>& out_ids) {
  const std::int64_t limit = model.base->config().max_position_embeddings;
  check<ConfigError>(!ids.empty(), "generate: the prompt has no tokens");
  const bool seq2seq = model.task() == Task::seq2seq_lm;
  check<ConfigError>(seq2seq || limit <= 0 || static_cast<std::int64_t>(ids.size()) + a.options.max_new_tokens <= limit, "generate: ", ids.size(), " tokens of prompt and ", a.options.max_new_tokens,
                     " new ones are more than the model's ", limit, ": lower --max-new-tokens");
  StreamDecoder decoder(model.need_tokenizer(), true);
  std::string text;
  const std::vector<std::int64_t>& stops = *a.options.eos_token_ids;
  a.options.on_token = [&](std::int64_t, std::int64_t token) {
    if (std::find(stops.begin(), stops.end(), token) == stops.end()) {
      const std::string piece = decoder.push(token);
      text += piece;
      if (!a.shared.json || !a.shared.quiet) std::cout << piece << std::flush;
    }
    return !stop_requested();
  };
  out_ids = continue_ids(model, ids, a.options);
  const std::string rest = decoder.finish();
  text += rest;
  std::cout << rest << std::endl;
  return text;
}

int run(GenerateArguments& a) {
  a.options.sampling.do_sample = a.options.sampling.do_sample || a.options.sampling.temperature != 1.0 || a.options.sampling.top_k != 0 || a.options.sampling.top_p != 1.0 || a.options.sampling.min_p != 0.0;
  a.options.sampling.check();
  catch_signals();
  const LoadedModel model = load_model(a.shared);
  check<ConfigError>(model.task() == Task::causal_lm || model.task() == Task::seq2seq_lm, "generate: a model for the task ", task_name(model.task()), " writes no text: use cambium eval or logits");
  const bool seq2seq = model.task() == Task::seq2seq_lm;
  check<ConfigError>(!a.chat || !seq2seq, "--chat: an encoder-decoder keeps no conversation");
  const Tokenizer& tokenizer = model.need_tokenizer();
  a.options.key = RandomKey{a.shared.seed, 0}.fold("generate");
  std::vector<std::int64_t> stops = tokenizer.stop_ids();
  for (std::int64_t id : model.base->config().eos_token_ids) stops.push_back(id);
  a.options.eos_token_ids = a.no_end ? std::vector<std::int64_t>{} : stops;
  std::vector<std::int64_t> ids;
  if (a.chat) {
    std::vector<ChatMessage> messages;
    if (!a.system.empty()) messages.push_back({"system", a.system});
    const bool one_turn = a.have_prompt;
    const bool terminal = isatty(STDIN_FILENO) != 0 && !one_turn;
    Json turns = Json::array();
    for (std::uint64_t turn = 0; !stop_requested(); ++turn) {
      std::string said = a.prompt;
      if (!one_turn) {
        if (terminal) std::cerr << "> " << std::flush;
        if (!std::getline(std::cin, said)) break;
        if (said.empty()) continue;
      }
      messages.push_back({"user", said});
      GenerateArguments now = a;
      now.options.key = a.options.key.fold(turn);
      const std::string reply = continue_text(model, now, tokenizer.encode(chat_prompt(tokenizer, messages)), ids);
      messages.push_back({"assistant", reply});
      turns.push_back(Json{{"user", said}, {"assistant", reply}});
      if (one_turn) break;
    }
    answer(a.shared, Json{{"turns", turns}});
    return signal_exit_code();
  }
  if (!a.have_prompt) {
    std::stringstream all;
    all << std::cin.rdbuf();
    a.prompt = all.str();
  }
  const std::string text = continue_text(model, a, tokenizer.encode(a.prompt + a.separator, a.special || seq2seq), ids);
  answer(a.shared, Json{{"prompt", a.prompt}, {"text", text}, {"ids", ids}});
  return signal_exit_code();
}
}  // namespace

Run add_generate(CLI::App& program) {
  auto a = std::make_shared<GenerateArguments>();
  CLI::App& c = *program.add_subcommand("generate", "continue a text, or talk with --chat");
  add_shared(c, a->shared, {.seed = true});
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option_function<std::string>("--prompt", [a](const std::string& text) {
    a->prompt = text;
    a->have_prompt = true;
  }, "text to continue; default: standard input");
  c.add_option("--prompt-separator", a->separator, "put behind the prompt, as training puts it between prompt and completion; default: nothing");
  c.add_flag("--chat", a->chat, "the model's chat template; without --prompt a conversation, a line a turn");
  c.add_option("--system", a->system, "system message of a chat");
  c.add_flag("--special", a->special, "put the tokenizer's own begin token before the prompt (with an encoder-decoder its tokens are always there)");
  c.add_option("--max-new-tokens", a->options.max_new_tokens)->capture_default_str()->check(CLI::PositiveNumber);
  c.add_flag("--sample", a->options.sampling.do_sample, "draw tokens instead of taking the most likely; implied by the options below");
  c.add_option("--temperature", a->options.sampling.temperature)->capture_default_str();
  c.add_option("--top-k", a->options.sampling.top_k, "0: all")->capture_default_str();
  c.add_option("--top-p", a->options.sampling.top_p)->capture_default_str();
  c.add_option("--min-p", a->options.sampling.min_p)->capture_default_str();
  c.add_option("--repetition-penalty", a->options.sampling.repetition_penalty)->capture_default_str();
  c.add_flag("--ignore-end", a->no_end, "go on behind the end token");
  c.footer("Examples:\n  cambium generate --model SmolLM2-135M-Instruct.Q4_1.gguf --prompt \"Define: LOVE\" --prompt-separator $'\\n' --adapter runs/one/adapter\n"
           "  cambium generate --model SmolLM2-135M-Instruct.Q4_1.gguf --chat");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
