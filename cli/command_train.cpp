// `cambium train`: model, data and method in, run folder out.
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/run_folder.h"

namespace cambium::cli {

namespace {

struct TrainArguments {
  SharedOptions shared;
  TrainOptions train;
  DataOptions data;
  std::string data_path, eval_path, data_kind = "auto", task = "causal-lm", method = "lora", out, resume, head;
  double eval_fraction = 0;
  std::int64_t steps = 0, save_every = 0;
  bool no_shuffle = false;
  std::optional<double> learning_rate;
  std::optional<std::int64_t> max_length;
  Json lora = Json::object();  ///< fields of the method's configuration that were given
};

/// Options of the LoRA configuration: each is one of PEFT's fields with dashes, and its text becomes the field's JSON.
enum class Field { integer, number, flag, text, list, names, pattern, init };
struct LoraOption { const char* name; Field kind; const char* help; };
constexpr LoraOption kLoraOptions[] = {
    {"r", Field::integer, "rank [8]"},
    {"lora-alpha", Field::number, "scaling is alpha / r [8]"},
    {"lora-dropout", Field::number, "on the adapter's input [0]"},
    {"target-modules", Field::names, "comma-separated names, a regular expression, or all-linear; default: by architecture"},
    {"exclude-modules", Field::names, "names or a regular expression that win over --target-modules"},
    {"fan-in-fan-out", Field::flag, "weights are stored (in, out); corrected to what the layers are"},
    {"bias", Field::text, "none, all or lora_only [none]"},
    {"use-rslora", Field::flag, "scaling alpha / sqrt(r)"},
    {"modules-to-save", Field::list, "comma-separated modules that are trained in full"},
    {"init-lora-weights", Field::init, "true, false or gaussian [true]"},
    {"layers-to-transform", Field::list, "comma-separated numbers of layers"},
    {"layers-pattern", Field::list, "names of the containers of the layers"},
    {"rank-pattern", Field::pattern, "name=rank,…: ranks of some modules"},
    {"alpha-pattern", Field::pattern, "name=alpha,…"},
};

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');)
    if (!part.empty()) out.push_back(part);
  return out;
}

Json number_of(const std::string& text, const std::string& option) {
  try {
    const Json value = parse_json(text, option);
    if (value.is_number()) return value;
  } catch (const Error&) {  // told below with the option's name
  }
  fail<ConfigError>("--", option, ": expected a number, found '", text, "'");
}

Json field_json(const LoraOption& option, const std::string& text) {
  switch (option.kind) {
    case Field::integer: case Field::number: return number_of(text, option.name);
    case Field::text: return text;
    case Field::init: return text == "true" ? Json(true) : text == "false" ? Json(false) : Json(text);
    case Field::names:
      // A name has letters, digits, underscores and dots between them; anything else is meant as a pattern.
      if (text == "all-linear" || text.find_first_of("*+?[](){}|^$\\") != std::string::npos) return text;
      return split_commas(text);
    case Field::list: {
      Json list = Json::array();
      for (const std::string& part : split_commas(text)) list.push_back(std::string_view(option.name) == "layers-to-transform" ? number_of(part, option.name) : Json(part));
      return list;
    }
    case Field::pattern: {
      Json object = Json::object();
      for (const std::string& part : split_commas(text)) {
        const std::size_t equals = part.rfind('=');
        check<ConfigError>(equals != std::string::npos, "--", option.name, ": expected name=number, found '", part, "'");
        object[part.substr(0, equals)] = number_of(part.substr(equals + 1), option.name);
      }
      return object;
    }
    default: return true;
  }
}

void check_supported(const TrainArguments& a) {
  check<ConfigError>(a.resume.empty(), "--resume: continuing a run is not in this version: start from an adapter with --adapter");
  check<ConfigError>(a.save_every == 0, "--save-every: checkpoints are not in this version: the adapter is saved at the end and on Ctrl-C");
  check<ConfigError>(a.head.empty(), "--head: classification is not in this version");
  check<ConfigError>(a.task == "causal-lm", "--task: only causal-lm is in this version, found '", a.task, "'");
  check<ConfigError>(a.method == "lora" || a.method == "full", "--method: only lora and full are in this version, found '", a.method, "'");
  check<ConfigError>(a.method == "lora" || (a.lora.empty() && a.shared.adapters.empty()), "--method full: options of an adapter make no sense with it");
  check<ConfigError>(a.shared.adapters.size() <= 1, "--adapter: train continues one adapter, found ", a.shared.adapters.size());
  check<ConfigError>(a.shared.adapters.empty() || a.lora.empty(), "--adapter: the adapter's own configuration counts: leave out --", a.lora.empty() ? "" : a.lora.items().begin().key());
  check<ConfigError>(a.eval_path.empty() || a.eval_fraction == 0, "--eval-data and --eval-fraction: give one of them");
}

std::string data_line(const char* what, const Dataset& d) {
  std::string line = concat_text(what, d.path, ": ", d.examples.size(), " rows (", name_of(d.kind), "), ", d.tokens, " tokens, ", d.targets, " of them learned");
  if (d.cut_rows > 0) line += concat_text(", ", d.cut_rows, " rows cut by ", d.cut_tokens, " tokens in all");
  return line;
}

Json eval_json(const EvalResult& e) { return Json{{"loss", e.loss}, {"perplexity", e.perplexity}, {"tokens", e.tokens}}; }

int run(TrainArguments& a) {
  check_supported(a);
  catch_signals();
  const std::string adapter_name = a.shared.adapters.empty() ? "default" : parse_adapter(a.shared.adapters.front(), 0).second;
  LoadedModel model = load_model(a.shared, true);
  Trainable trainable;
  if (a.method == "full") {
    for (const auto& [name, slot] : model.base->named_parameters()) {
      NoGrad no_grad;
      slot->tensor = clone(slot->tensor);  // what is mapped from a file cannot be written
      slot->tensor.set_requires_grad(true);
    }
    trainable.parameters = model.base->named_parameters();
  } else {
    if (!model.peft) {
      a.lora["peft_type"] = "LORA";
      a.lora["task_type"] = "CAUSAL_LM";
      PeftModelOptions options;
      options.key = RandomKey{a.shared.seed, 0}.fold("adapter");
      model.peft.reset(new PeftModel(get_peft_model(model.base, parse_peft_config(a.lora.dump(), "options"), options)));
    }
    trainable.parameters = model.peft->trainable_parameters();
  }
  trainable.forward = [&model](const ModelInput& input, const ForwardContext& context) { return model.forward(input, context); };

  a.data.kind = parse_data_kind(a.data_kind);
  const std::int64_t positions = model.base->config().max_position_embeddings;
  a.data.max_length = a.train.max_length = a.max_length.value_or(std::min<std::int64_t>(1024, positions > 0 ? positions : 1024));
  check<ConfigError>(positions <= 0 || a.data.max_length <= positions, "--max-length: the model has ", positions, " positions, found ", a.data.max_length);
  a.data.vocabulary = model.base->config().vocab_size;
  if (!a.data.end_token_id && !(model.tokenizer && model.tokenizer->eos_id()) && !model.base->config().eos_token_ids.empty()) a.data.end_token_id = model.base->config().eos_token_ids.front();
  const Tokenizer* tokenizer = model.tokenizer ? &*model.tokenizer : nullptr;
  Dataset data = load_dataset(a.data_path, tokenizer, a.data);
  std::optional<Dataset> eval_data;
  if (!a.eval_path.empty()) {
    DataOptions whole = a.data;  // held-out rows are not cut to what training can afford, so that perplexities can be compared
    whole.max_length = std::max<std::int64_t>(a.data.max_length, std::min<std::int64_t>(1024, positions > 0 ? positions : 1024));
    eval_data = load_dataset(a.eval_path, tokenizer, whole);
  } else if (a.eval_fraction != 0) eval_data = split_off(data, a.eval_fraction, a.shared.seed);

  a.train.seed = a.shared.seed;
  a.train.shuffle = !a.no_shuffle;
  if (a.steps != 0) a.train.steps = a.steps;
  a.train.learning_rate = a.learning_rate.value_or(a.method == "full" ? 2e-5 : 2e-4);
  const std::int64_t total = planned_steps(data, a.train);

  std::string line;
  if (model.peft) {
    line = model.peft->trainable_parameters_line();
    for (const std::string& warning : model.peft->base_model->warnings()) say(a.shared, "warning: " + warning);
  } else {
    line = concat_text("trainable params: all ", model.base->parameter_count());
  }
  say(a.shared, concat_text("model    ", a.shared.model, " (", model.base->config().model_type, ", ", model.base->parameter_count(), " parameters)"));
  say(a.shared, concat_text("method   ", a.method, ", ", line));
  say(a.shared, data_line("data     ", data));
  if (eval_data) say(a.shared, data_line("held out ", *eval_data));
  say(a.shared, concat_text("steps    ", total, " of ", a.train.batch_size, a.train.gradient_accumulation > 1 ? concat_text(" x ", a.train.gradient_accumulation) : "", " rows",
                            a.train.packing ? concat_text(" packed to ", a.train.max_length, " tokens") : "", ", learning rate ", a.train.learning_rate, " ", a.train.schedule));

  RunFolder folder(a.out);
  folder.write_config(Json{{"command", "train"}, {"model", a.shared.model}, {"adapter", a.shared.adapters}, {"dtype", a.shared.dtype}, {"threads", a.shared.threads},
      {"seed", a.shared.seed}, {"data", a.data_path}, {"eval_data", a.eval_path}, {"eval_fraction", a.eval_fraction}, {"data_kind", name_of(data.kind)}, {"method", a.method},
      {"peft_config", model.peft ? parse_json(to_json(model.peft->peft_config(adapter_name)), "peft_config") : Json(nullptr)}, {"steps", total},
      {"batch_size", a.train.batch_size}, {"gradient_accumulation", a.train.gradient_accumulation}, {"max_length", a.train.max_length}, {"packing", a.train.packing},
      {"shuffle", a.train.shuffle}, {"learning_rate", a.train.learning_rate}, {"schedule", a.train.schedule}, {"warmup_steps", a.train.warmup_steps},
      {"weight_decay", a.train.weight_decay}, {"max_grad_norm", a.train.max_grad_norm}, {"prompt_separator", a.data.prompt_separator}, {"train_on_prompt", a.data.train_on_prompt}},
      {a.data_path, a.eval_path});

  std::optional<EvalResult> before, after;
  if (eval_data) {
    before = evaluate(trainable, *eval_data, a.train.batch_size, &stop_requested());
    folder.add_metrics(Json{{"step", 0}, {"eval_loss", before->loss}, {"perplexity", before->perplexity}});
    say(a.shared, concat_text("before   loss ", before->loss, ", perplexity ", before->perplexity));
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
    folder.add_metrics(Json{{"step", step}, {"eval_loss", e.loss}, {"perplexity", e.perplexity}});
    say(a.shared, concat_text("step ", step, "   held-out loss ", e.loss, ", perplexity ", e.perplexity));
  };
  const TrainResult result = train(trainable, data, a.train, eval_data ? &*eval_data : nullptr, callbacks);
  progress.finish();

  std::string saved;
  if (model.peft) {
    saved = (folder.path() / "adapter").string();
    save_adapter(*model.peft->base_model, adapter_name, saved);
  } else {
    saved = (folder.path() / "model").string();
    save_pretrained(*model.base, saved);
  }
  if (result.stopped) say(a.shared, concat_text("stopped by a signal after step ", result.steps, " of ", total, ": everything is saved"));
  say(a.shared, concat_text("done     ", result.steps, " steps in ", std::fixed, std::setprecision(1), result.seconds, " s, loss ", std::setprecision(4), result.losses.front(), " -> ", result.losses.back()));
  if (before && after) say(a.shared, concat_text("held out perplexity ", std::fixed, std::setprecision(2), before->perplexity, " -> ", after->perplexity));
  say(a.shared, "saved    " + saved);
  say(a.shared, model.peft ? "try      cambium generate --model " + a.shared.model + " --adapter " + saved + " --prompt \"…\"" : "try      cambium generate --model " + saved + " --prompt \"…\"");
  Json json{{"losses", result.losses}, {"steps", result.steps}, {"tokens", result.tokens}, {"seconds", result.seconds}, {"stopped", result.stopped}, {"out", folder.path().string()},
            {model.peft ? "adapter" : "saved_model", saved}};
  if (model.peft) json["trainable_params"] = model.peft->trainable_parameter_count();
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
  c.add_option("--data", a->data_path, "training rows: .jsonl or .txt")->required()->type_name("FILE");
  c.add_option("--eval-data", a->eval_path, "held-out rows")->type_name("FILE");
  c.add_option("--eval-fraction", a->eval_fraction, "part of the rows to hold out instead");
  c.add_option("--data-kind", a->data_kind, "auto, text, completion, instruct, chat, tokens")->capture_default_str();
  c.add_option("--task", a->task, "causal-lm")->capture_default_str();
  c.add_option("--method", a->method, "lora or full")->capture_default_str();
  for (const LoraOption& option : kLoraOptions) {
    std::string key = option.name;
    std::replace(key.begin(), key.end(), '-', '_');
    const std::string flag = std::string("--") + option.name;
    if (option.kind == Field::flag) c.add_flag_callback(flag, [a, key] { a->lora[key] = true; }, option.help);
    else c.add_option_function<std::string>(flag, [a, key, option](const std::string& text) { a->lora[key] = field_json(option, text); }, option.help)->group("LoRA");
  }
  c.add_option("--steps", a->steps, "number of updates; default: by --epochs")->check(CLI::PositiveNumber);
  c.add_option("--epochs", a->train.epochs)->capture_default_str();
  c.add_option("--batch-size", a->train.batch_size, "rows a step")->capture_default_str();
  c.add_option("--gradient-accumulation", a->train.gradient_accumulation, "batches a step")->capture_default_str();
  c.add_option("--max-length", a->max_length, "tokens a row; longer ones are cut; default: the model's limit, at most 1024");
  c.add_flag("--packing", a->train.packing, "fill rows up to --max-length with several examples");
  c.add_flag("--no-shuffle", a->no_shuffle, "rows in the order of the file");
  c.add_option("--learning-rate", a->learning_rate, "default: 2e-4 (lora), 2e-5 (full)");
  c.add_option("--schedule", a->train.schedule, "constant, linear or cosine")->capture_default_str();
  c.add_option("--warmup-steps", a->train.warmup_steps)->capture_default_str();
  c.add_option("--weight-decay", a->train.weight_decay)->capture_default_str();
  c.add_option("--max-grad-norm", a->train.max_grad_norm, "0: no clipping")->capture_default_str();
  c.add_option("--prompt-separator", a->data.prompt_separator, "between prompt and completion; default: a line break");
  c.add_flag("--train-on-prompt", a->data.train_on_prompt, "learn prompts too");
  c.add_option("--prompt-key", a->data.prompt_key)->capture_default_str();
  c.add_option("--completion-key", a->data.completion_key)->capture_default_str();
  c.add_option("--text-key", a->data.text_key)->capture_default_str();
  c.add_option("--eval-every", a->train.eval_every, "steps; default: before and after")->check(CLI::NonNegativeNumber);
  c.add_option("--save-every", a->save_every)->group("not in this version");
  c.add_option("--resume", a->resume)->expected(0, 1)->default_str("latest")->group("not in this version");
  c.add_option("--head", a->head)->group("not in this version");
  c.add_option("--out", a->out, "run folder; default: runs/<time>")->type_name("DIR");
  c.footer("Example:\n  cambium train --model SmolLM2-135M-Instruct.Q4_1.gguf --data train.jsonl --eval-data heldout.jsonl \\\n    --target-modules q_proj,v_proj --r 8 --lora-alpha 16 --learning-rate 1e-3 --batch-size 4 --epochs 1");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
