// `cambium train`: model, data and method in, run folder out.
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>

#include "cli/command.h"
#include "cli/method_options.h"
#include "cli/progress.h"
#include "cli/run_folder.h"

namespace cambium::cli {

namespace {

struct TrainArguments {
  SharedOptions shared;
  TrainOptions train;
  DataArguments data;
  std::string data_path, eval_path, method = "lora", out, resume, head;
  double eval_fraction = 0;
  std::int64_t steps = 0, save_every = 0;
  bool no_shuffle = false, method_given = false;
  std::optional<double> learning_rate;
  std::shared_ptr<Json> fields = std::make_shared<Json>(Json::object());  ///< of the method's configuration that were given
};

void check_arguments(const TrainArguments& a) {
  check<ConfigError>(a.resume.empty(), "--resume: continuing a run is not in this version: start from an adapter with --adapter");
  check<ConfigError>(a.save_every == 0, "--save-every: checkpoints are not in this version: the adapter is saved at the end and on Ctrl-C");
  check<ConfigError>(a.head.empty() || a.head == "hf" || a.head == "mean", "--head: expected hf or mean, found '", a.head, "'");
  check_fields(*a.fields, find_method(a.method));
  check<ConfigError>(a.method != "full" || a.shared.adapters.empty(), "--method full: --adapter makes no sense with it");
  check<ConfigError>(a.shared.adapters.size() <= 1, "--adapter: train continues one adapter, found ", a.shared.adapters.size());
  check<ConfigError>(a.shared.adapters.empty() || a.fields->empty(), "--adapter: the adapter's own configuration counts: leave out --", a.fields->empty() ? "" : a.fields->items().begin().key());
  check<ConfigError>(a.eval_path.empty() || a.eval_fraction == 0, "--eval-data and --eval-fraction: give one of them");
}

/// Options that the task has no use for are errors.
void check_for_task(const TrainArguments& a, Task task) {
  const std::string_view name = task_name(task);
  const bool sequences = task == Task::sequence_classification, language = task == Task::causal_lm || task == Task::seq2seq_lm;
  check<ConfigError>(task != Task::feature_extraction, "--task feature: features have no loss: train a classifier on them with --task seq-cls --head mean");
  check<ConfigError>(a.head.empty() || sequences, "--head: a choice of the task seq-cls, not of ", name);
  check<ConfigError>(!a.train.head_learning_rate || !language, "--head-learning-rate: the task ", name, " has no head of its own");
  check<ConfigError>(a.data.labels.empty() || sequences || task == Task::token_classification, "--labels: the task ", name, " has no classes");
  check<ConfigError>(!a.train.packing || task == Task::causal_lm, "--packing: for the task causal-lm only, not for ", name);
  check<ConfigError>(a.data.options.max_target_length == 0 || task == Task::seq2seq_lm, "--max-target-length: for the task seq2seq only, not for ", name);
  check<ConfigError>(!a.data.options.train_on_prompt || task == Task::causal_lm, "--train-on-prompt: for the task causal-lm only, not for ", name);
}

std::string data_line(const char* what, const Dataset& d) {
  std::string line = concat_text(what, d.path, ": ", d.examples.size(), " rows (", name_of(d.kind), "), ", d.tokens, " tokens, ", d.targets, " targets");
  if (!d.label_names.empty()) line += concat_text(", ", d.label_names.size(), " classes");
  if (d.cut_rows > 0) line += concat_text(", ", d.cut_rows, " rows cut by ", d.cut_tokens, " tokens in all");
  return line;
}

/// A row of metrics.jsonl.
Json metrics_row(std::int64_t step, const EvalResult& e) {
  Json row{{"step", step}, {"eval_loss", e.loss}};
  const Json measures = eval_json(e);
  for (const auto& [key, value] : measures.items())
    if (key != "loss" && key != "tokens" && key != "confusion") row[key] = value;
  return row;
}

/// The adapter's configuration from the options that were given.
PeftConfig config_of(const TrainArguments& a, const Method& method, TaskType type) {
  Json fields = *a.fields;
  fields["peft_type"] = std::string(method.peft_type);
  fields["task_type"] = std::string(name_of(type));
  if (fields.value("prompt_tuning_init", "") == "TEXT" && !fields.contains("tokenizer_name_or_path")) fields["tokenizer_name_or_path"] = a.shared.model;
  return parse_peft_config(fields.dump(), "options");
}

/// All that training needs, checked, before anything is written.
struct Prepared {
  ModelFacts facts;
  LoadedModel model;
  Trainable trainable;
  const Method* method = nullptr;
  std::string adapter_name = "default";
  Dataset data;
  std::optional<Dataset> eval_data;
  std::int64_t steps = 0;
};

void load_data(TrainArguments& a, Prepared& p, const Tokenizer* tokenizer) {
  DataOptions& options = a.data.options;
  options.first_token_is_target = p.trainable.first_token_is_target;
  a.train.max_length = options.max_length;
  p.data = load_dataset(a.data_path, tokenizer, options);
  if (!a.eval_path.empty()) {
    DataOptions whole = options;  // a language model's held-out rows are not cut to what training can afford, so that perplexities can be compared
    const std::int64_t positions = p.facts.config.max_position_embeddings;
    if (options.task == Task::causal_lm) whole.max_length = std::max<std::int64_t>(options.max_length, std::min<std::int64_t>(1024, positions > 0 ? positions : 1024));
    p.eval_data = load_dataset(a.eval_path, tokenizer, whole);
  } else if (a.eval_fraction != 0) {
    p.eval_data = split_off(p.data, a.eval_fraction, a.shared.seed);
  }
}

void prepare(TrainArguments& a, Prepared& p) {
  const RandomKey key{a.shared.seed, 0};
  if (!a.shared.adapters.empty()) p.adapter_name = parse_adapter(a.shared.adapters.front(), 0).second;
  a.data.options.kind = parse_data_kind(a.data.kind);
  ModelRequest request;
  if (!a.data.task.empty()) request.task = parse_task(a.data.task);
  request.mean_head = a.head == "mean";
  request.trainable_adapter = true;
  request.label_names = split_commas(a.data.labels);
  request.key = key;
  p.facts = look_at_model(a.shared, request);
  const Task task = a.data.options.task = p.facts.data_task;
  check_for_task(a, task);
  check<ConfigError>(a.head != "hf" || !p.facts.request.mean_head, "--head hf: the adapter was trained with the mean head, whose file lies beside it");
  if (task == Task::sequence_classification || task == Task::token_classification) choose_labels(p.facts, find_label_names(a.data_path, a.data.options));
  const std::optional<Tokenizer> tokenizer = find_tokenizer(a.shared.model);
  adapt_data_options(a.data.options, p.facts, tokenizer ? &*tokenizer : nullptr, a.data.max_length);

  LoadedModel& model = p.model;
  model = load_model(a.shared, p.facts.request);
  p.method = model.peft ? &find_method_by_type(peft_type_of(model.peft->peft_config(p.adapter_name))) : &find_method(a.method);
  check<ConfigError>(!model.peft || !a.method_given || p.method->name == a.method, "--method ", a.method, ": the adapter in --adapter is ", p.method->name);
  if (p.method->name == "full") model.train_base();
  else if (!model.peft) model.add_adapter(config_of(a, *p.method, model.task_type()), key.fold("adapter"));
  p.trainable = model.trainable();
  check<ConfigError>(!a.train.head_learning_rate || !p.trainable.head_parameters.empty(), "--head-learning-rate: no head is trained");
  load_data(a, p, tokenizer ? &*tokenizer : nullptr);

  a.train.seed = a.shared.seed;
  a.train.shuffle = !a.no_shuffle;
  if (a.steps != 0) a.train.steps = a.steps;
  a.train.learning_rate = a.learning_rate.value_or(p.method->learning_rate);
  p.steps = planned_steps(p.data, a.train);
}

void announce(const TrainArguments& a, const Prepared& p) {
  const LoadedModel& model = p.model;
  const auto tell = [&](const std::string& line) { say(a.shared, line); };
  if (model.peft)
    for (const std::string& warning : model.peft->base_model->warnings()) tell("warning: " + warning);
  tell(concat_text("model    ", a.shared.model, " (", model.base->config().model_type, ", ", model.base->parameter_count(), " parameters), task ", task_name(p.facts.data_task)));
  for (const std::string& name : model.base->newly_initialized()) tell("new      " + name + " is not in the files: it starts from random values");
  std::string line = model.peft ? model.peft->trainable_parameters_line() : concat_text("trainable params: ", model.trainable_parameter_count(), " of the model itself");
  if (model.head) line += concat_text(", and ", model.head->parameter_count(), " of the mean head");
  tell(concat_text("method   ", p.method->name, ", ", line));
  tell(data_line("data     ", p.data));
  if (p.eval_data) tell(data_line("held out ", *p.eval_data));
  const std::string accumulated = a.train.gradient_accumulation > 1 ? concat_text(" x ", a.train.gradient_accumulation) : "", packed = a.train.packing ? concat_text(" packed to ", a.train.max_length, " tokens") : "",
                    head = a.train.head_learning_rate ? concat_text(" (head ", *a.train.head_learning_rate, ")") : "";
  tell(concat_text("steps    ", p.steps, " of ", a.train.batch_size, accumulated, " rows", packed, ", learning rate ", a.train.learning_rate, head, " ", a.train.schedule));
}

/// What run.json says.
Json resolved(const TrainArguments& a, const Prepared& p) {
  const TrainOptions& t = a.train;
  const DataOptions& d = a.data.options;
  const Json config = p.model.peft ? parse_json(to_json(p.model.peft->peft_config(p.adapter_name)), "peft_config") : Json(nullptr);
  return Json{{"command", "train"}, {"model", a.shared.model}, {"adapter", a.shared.adapters}, {"dtype", a.shared.dtype}, {"threads", a.shared.threads}, {"seed", a.shared.seed},
              {"data", a.data_path}, {"eval_data", a.eval_path}, {"eval_fraction", a.eval_fraction}, {"task", std::string(task_name(p.facts.data_task))}, {"data_kind", std::string(name_of(p.data.kind))},
              {"label_names", p.data.label_names}, {"method", std::string(p.method->name)}, {"head", p.model.head ? "mean" : "hf"}, {"peft_config", config}, {"steps", p.steps},
              {"batch_size", t.batch_size}, {"gradient_accumulation", t.gradient_accumulation}, {"max_length", t.max_length}, {"max_target_length", d.max_target_length}, {"packing", t.packing},
              {"shuffle", t.shuffle}, {"learning_rate", t.learning_rate}, {"head_learning_rate", t.head_learning_rate ? Json(*t.head_learning_rate) : Json(nullptr)}, {"schedule", t.schedule},
              {"warmup_steps", t.warmup_steps}, {"weight_decay", t.weight_decay}, {"max_grad_norm", t.max_grad_norm}, {"prompt_separator", d.prompt_separator}, {"train_on_prompt", d.train_on_prompt}};
}

int run(TrainArguments& a) {
  check_arguments(a);
  catch_signals();
  apply_shared(a.shared);
  Prepared p;
  prepare(a, p);
  announce(a, p);
  RunFolder folder(a.out);
  folder.write_config(resolved(a, p), {a.data_path, a.eval_path});

  std::optional<EvalResult> before, after;
  if (p.eval_data) {
    before = evaluate(p.trainable, *p.eval_data, a.train.batch_size, &stop_requested());
    folder.add_metrics(metrics_row(0, *before));
    say(a.shared, "before   " + eval_line(*before));
  }
  Progress progress(a.shared.quiet);
  TrainCallbacks callbacks;
  callbacks.stop = &stop_requested();
  callbacks.on_step = [&](const StepMetrics& m) {
    folder.add_metrics(m);
    progress.update(m);
  };
  callbacks.on_eval = [&](std::int64_t step, const EvalResult& e) {
    after = e;
    progress.finish();
    folder.add_metrics(metrics_row(step, e));
    say(a.shared, concat_text("step ", step, "   held out: ", eval_line(e)));
  };
  const TrainResult result = train(p.trainable, p.data, a.train, p.eval_data ? &*p.eval_data : nullptr, callbacks);
  progress.finish();

  const bool adapted = p.model.peft != nullptr;
  const std::string saved = (folder.path() / (adapted ? "adapter" : "model")).string();
  p.model.save(saved, p.adapter_name);
  if (result.stopped) say(a.shared, concat_text("stopped by a signal after step ", result.steps, " of ", p.steps, ": everything is saved"));
  say(a.shared, concat_text("done     ", result.steps, " steps in ", std::fixed, std::setprecision(1), result.seconds, " s, loss ", std::setprecision(4), result.losses.front(), " -> ", result.losses.back()));
  if (before && after) {
    say(a.shared, "held out before: " + eval_line(*before));
    say(a.shared, "held out after:  " + eval_line(*after));
    if (after->confusion) say(a.shared, class_table(*after->confusion, p.data.label_names));
  }
  say(a.shared, "saved    " + saved);
  const std::string place = adapted ? "--model " + a.shared.model + " --adapter " + saved : "--model " + saved;
  const bool language = p.facts.data_task == Task::causal_lm || p.facts.data_task == Task::seq2seq_lm;
  say(a.shared, "try      cambium " + (language ? "generate " + place + " --prompt \"…\"" : "eval " + place + " --data FILE"));
  Json json{{"losses", result.losses}, {"steps", result.steps}, {"tokens", result.tokens}, {"seconds", result.seconds}, {"stopped", result.stopped}, {"out", folder.path().string()},
            {adapted ? "adapter" : "saved_model", saved}, {"trainable_params", p.model.trainable_parameter_count()}};
  if (!p.data.label_names.empty()) json["label_names"] = p.data.label_names;
  if (before) json["eval_before"] = eval_json(*before);
  if (after) json["eval"] = eval_json(*after);
  answer(a.shared, json);
  return signal_exit_code();
}

}  // namespace

Run add_train(CLI::App& program) {
  auto a = std::make_shared<TrainArguments>();
  CLI::App& c = *program.add_subcommand("train", "fine-tune a model on a file of examples");
  add_shared(c, a->shared, {.seed = true});
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--data", a->data_path, "training rows: .jsonl, .csv, .tsv or .txt")->required()->type_name("FILE");
  c.add_option("--eval-data", a->eval_path, "held-out rows")->type_name("FILE");
  c.add_option("--eval-fraction", a->eval_fraction, "part of the rows to hold out instead");
  add_data_options(c, a->data);
  c.add_option_function<std::string>("--method", [a](const std::string& text) {
    a->method = text;
    a->method_given = true;
  }, "lora, ia3, prompt-tuning, prefix-tuning, p-tuning or full [lora]");
  add_method_options(c, a->fields);
  c.add_option("--head", a->head, "of seq-cls: hf, the model's own, or mean, a linear layer on the mean of the tokens [hf]");
  c.add_option("--steps", a->steps, "number of updates; default: by --epochs")->check(CLI::PositiveNumber);
  c.add_option("--epochs", a->train.epochs)->capture_default_str();
  c.add_option("--batch-size", a->train.batch_size, "rows a step")->capture_default_str();
  c.add_option("--gradient-accumulation", a->train.gradient_accumulation, "batches a step")->capture_default_str();
  c.add_flag("--packing", a->train.packing, "fill rows up to --max-length with several examples");
  c.add_flag("--no-shuffle", a->no_shuffle, "rows in the order of the file");
  c.add_option("--learning-rate", a->learning_rate, "default: 2e-4 (lora), 3e-3 (ia3), 1e-2 (prompt and prefix tuning), 1e-3 (p-tuning), 2e-5 (full)");
  c.add_option("--head-learning-rate", a->train.head_learning_rate, "of a classification head; default: the same");
  c.add_option("--schedule", a->train.schedule, "constant, linear or cosine")->capture_default_str();
  c.add_option("--warmup-steps", a->train.warmup_steps)->capture_default_str();
  c.add_option("--weight-decay", a->train.weight_decay)->capture_default_str();
  c.add_option("--max-grad-norm", a->train.max_grad_norm, "0: no clipping")->capture_default_str();
  c.add_option("--eval-every", a->train.eval_every, "steps; default: before and after")->check(CLI::NonNegativeNumber);
  c.add_option("--save-every", a->save_every)->group("not in this version");
  c.add_option("--resume", a->resume)->expected(0, 1)->default_str("latest")->group("not in this version");
  c.add_option("--out", a->out, "run folder; default: runs/<time>")->type_name("DIR");
  c.footer("Examples:\n  cambium train --model SmolLM2-135M-Instruct.Q4_1.gguf --data train.jsonl --eval-data heldout.jsonl \\\n    --target-modules q_proj,v_proj --r 8 --lora-alpha 16 --learning-rate 1e-3 --batch-size 4 --epochs 1\n"
           "  cambium train --model all-MiniLM-L6-v2 --task seq-cls --data train.jsonl --eval-data test.jsonl \\\n    --target-modules query,value --head mean --learning-rate 2e-3 --head-learning-rate 6e-3 --batch-size 16 --max-length 64");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
