// `cambium eval`: what a model makes of data: loss, perplexity, classes, answers.
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct EvalArguments {
  SharedOptions shared;
  DataArguments data;
  std::string data_path, head;
  std::int64_t batch_size = 8;
};

int run(EvalArguments& a) {
  catch_signals();
  apply_shared(a.shared);
  a.data.options.kind = parse_data_kind(a.data.kind);
  ModelRequest request;
  if (!a.data.task.empty()) request.task = parse_task(a.data.task);
  check<ConfigError>(a.head.empty() || a.head == "hf" || a.head == "mean", "--head: expected hf or mean, found '", a.head, "'");
  request.mean_head = a.head == "mean";
  request.label_names = split_commas(a.data.labels);
  const ModelFacts facts = look_at_model(a.shared, request);
  check<ConfigError>(a.head != "hf" || !facts.request.mean_head, "--head hf: the adapter was trained with the mean head, whose file lies beside it");
  const std::optional<Tokenizer> tokenizer = find_tokenizer(a.shared.model);
  const LoadedModel model = load_model(a.shared, facts.request);
  check<ConfigError>(model.base->newly_initialized().empty(), "the model has no head for the task ", task_name(facts.data_task), " yet ('", model.base->newly_initialized().empty() ? "" : model.base->newly_initialized().front(),
                     "' is not in its files): train it, and give its adapter with --adapter");
  adapt_data_options(a.data.options, facts, tokenizer ? &*tokenizer : nullptr, a.data.max_length);
  const Trainable trainable = model.trainable();
  a.data.options.first_token_is_target = trainable.first_token_is_target;
  const Dataset data = load_dataset(a.data_path, tokenizer ? &*tokenizer : nullptr, a.data.options);
  const EvalResult result = evaluate(trainable, data, a.batch_size, &stop_requested());
  if (stop_requested()) {
    std::cerr << "cambium: stopped by a signal before all rows were seen" << std::endl;
    return signal_exit_code();
  }
  std::cout << eval_line(result) << "  (" << result.tokens << " targets in " << data.examples.size() << " rows)" << std::endl;
  if (result.confusion) std::cout << class_table(*result.confusion, data.label_names) << std::flush;
  Json json = eval_json(result);
  json["rows"] = data.examples.size();
  if (result.confusion) json["label_names"] = data.label_names;
  answer(a.shared, json);
  return 0;
}
}  // namespace

Run add_eval(CLI::App& program) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App& c = *program.add_subcommand("eval", "what a model makes of a file of examples: loss, perplexity, accuracy, F1");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--data", a->data_path, ".jsonl, .csv, .tsv or .txt")->required()->type_name("FILE");
  add_data_options(c, a->data);
  c.add_option("--head", a->head, "hf or mean; default: what lies beside the adapter");
  c.add_option("--batch-size", a->batch_size)->capture_default_str()->check(CLI::PositiveNumber);
  c.footer("Examples:\n  cambium eval --model SmolLM2-135M-Instruct.Q4_1.gguf --adapter runs/one/adapter --data heldout.jsonl\n"
           "  cambium eval --model all-MiniLM-L6-v2 --adapter runs/topics/adapter --data test.jsonl");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
