// `cambium eval`: loss and perplexity of a model on data.
#include <iomanip>
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct EvalArguments {
  SharedOptions shared;
  DataOptions data;
  std::string data_path, data_kind = "auto";
  std::int64_t batch_size = 8;
  std::optional<std::int64_t> max_length;
};

int run(EvalArguments& a) {
  catch_signals();
  const LoadedModel model = load_model(a.shared);
  const ModelConfig& config = model.base->config();
  a.data.kind = parse_data_kind(a.data_kind);
  a.data.max_length = a.max_length.value_or(std::min<std::int64_t>(1024, config.max_position_embeddings > 0 ? config.max_position_embeddings : 1024));
  a.data.vocabulary = config.vocab_size;
  if (!(model.tokenizer && model.tokenizer->eos_id()) && !config.eos_token_ids.empty()) a.data.end_token_id = config.eos_token_ids.front();
  const Dataset data = load_dataset(a.data_path, model.tokenizer ? &*model.tokenizer : nullptr, a.data);
  const Trainable trainable{[&](const ModelInput& input, const ForwardContext& context) { return model.forward(input, context); }, {}};
  const EvalResult result = evaluate(trainable, data, a.batch_size, &stop_requested());
  if (stop_requested()) {
    std::cerr << "cambium: stopped by a signal before all rows were seen" << std::endl;
    return signal_exit_code();
  }
  std::cout << "loss " << std::fixed << std::setprecision(6) << result.loss << "  perplexity " << std::setprecision(4) << result.perplexity << "  targets " << result.tokens << "  rows " << data.examples.size() << std::endl;
  answer(a.shared, Json{{"loss", result.loss}, {"perplexity", result.perplexity}, {"tokens", result.tokens}, {"rows", data.examples.size()}});
  return 0;
}
}  // namespace

Run add_eval(CLI::App& program) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App& c = *program.add_subcommand("eval", "loss and perplexity of a model on a file of examples");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--data", a->data_path, ".jsonl or .txt")->required()->type_name("FILE");
  c.add_option("--data-kind", a->data_kind, "auto, text, completion, instruct, chat, tokens")->capture_default_str();
  c.add_option("--batch-size", a->batch_size)->capture_default_str()->check(CLI::PositiveNumber);
  c.add_option("--max-length", a->max_length, "tokens a row; default: the model's limit, at most 1024");
  c.add_option("--prompt-separator", a->data.prompt_separator, "between prompt and completion; default: a line break");
  c.add_flag("--train-on-prompt", a->data.train_on_prompt, "count prompts too");
  c.add_option("--prompt-key", a->data.prompt_key)->capture_default_str();
  c.add_option("--completion-key", a->data.completion_key)->capture_default_str();
  c.add_option("--text-key", a->data.text_key)->capture_default_str();
  c.footer("Example:\n  cambium eval --model SmolLM2-135M-Instruct.Q4_1.gguf --adapter runs/one/adapter --data heldout.jsonl");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
