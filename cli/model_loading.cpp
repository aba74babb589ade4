// Loading models for a task, with adapters and heads; which classes there are.
#include <algorithm>
#include <filesystem>

#include "cli/command.h"

namespace cambium::cli {

namespace {

Task task_of(TaskType type) {
  switch (type) {
    case TaskType::SEQ_CLS: return Task::sequence_classification;
    case TaskType::SEQ_2_SEQ_LM: return Task::seq2seq_lm;
    case TaskType::CAUSAL_LM: return Task::causal_lm;
    case TaskType::TOKEN_CLS: return Task::token_classification;
    case TaskType::QUESTION_ANS: return Task::question_answering;
    default: return Task::feature_extraction;
  }
}

bool is_gguf(const std::string& path) { return path.ends_with(".gguf"); }

/// Whether the architecture in the configuration is one for this task.
bool names_task(const std::string& path, Task task) {
  LoadOptions load;
  load.meta = true;
  try {
    return load_pretrained(path, std::nullopt, load)->task() == task;
  } catch (const ConfigError&) {
    return false;  // one of another task, which is not supported and not asked for
  }
}

/// LABEL_0, LABEL_1, …: names that say no more than the number.
bool are_generic(const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] != "LABEL_" + std::to_string(i)) return false;
  return true;
}

std::vector<std::string> generic_names(std::int64_t count) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < count; ++i) names.push_back("LABEL_" + std::to_string(i));
  return names;
}

}  // namespace

std::optional<Tokenizer> find_tokenizer(const std::string& model_path) {
  if (std::filesystem::is_directory(model_path) && !Tokenizer::exists(model_path)) return std::nullopt;
  if (is_gguf(model_path) && !GgufFile(model_path).has("tokenizer.ggml.model")) return std::nullopt;
  return Tokenizer::from_file(model_path);
}

const Tokenizer& LoadedModel::need_tokenizer() const {
  check<ConfigError>(tokenizer.has_value(), path, ": this model has no tokenizer: give token ids instead of text, or add a tokenizer.json, spiece.model or vocab.txt to the folder");
  return *tokenizer;
}

ModelFacts look_at_model(const SharedOptions& options, ModelRequest request) {
  ModelFacts facts;
  const std::string folder = options.adapters.empty() ? std::string() : parse_adapter(options.adapters.front(), 0).first;
  if (is_gguf(folder)) {
    request.task = request.task.value_or(Task::causal_lm);  // GGUF knows no other adapters
  } else if (!folder.empty()) {
    const PeftConfig config = read_peft_config(folder);
    const std::optional<TaskType> type = std::visit([](const auto& c) { return c.task_type; }, config);
    const bool has_mean_head = std::filesystem::exists(std::filesystem::path(folder) / "mean_head.safetensors");
    if (has_mean_head && (!request.task || *request.task == Task::sequence_classification)) request.mean_head = true;
    if (!request.task && type && !has_mean_head) request.task = task_of(*type);
    if (request.label_names.empty()) request.label_names = read_label_names(folder);
  } else if (std::filesystem::exists(std::filesystem::path(options.model) / "mean_head.safetensors") && (!request.task || *request.task == Task::sequence_classification)) {
    request.mean_head = true;  // a model trained in full, with its head beside it
    if (request.label_names.empty()) request.label_names = read_label_names(options.model);
  }
  if (request.mean_head) {
    check<ConfigError>(!request.task || *request.task == Task::sequence_classification, "--head mean: a head of classes of texts, not of the task ",
                       task_name(request.task.value_or(Task::feature_extraction)));
    request.task = Task::feature_extraction;
  }
  LoadOptions load;
  load.meta = true;
  if (is_gguf(options.model)) load.meta = false;  // mapped, not read
  const auto chosen = load_pretrained(options.model, request.task, load);
  facts.config = chosen->config();
  facts.data_task = request.mean_head ? Task::sequence_classification : chosen->task();
  facts.own_head = !is_gguf(options.model) && !request.mean_head && names_task(options.model, chosen->task());
  request.task = chosen->task();
  request.complete = true;
  facts.request = std::move(request);
  return facts;
}

void choose_labels(ModelFacts& facts, const std::vector<std::string>& found) {
  if (!facts.request.label_names.empty() || found.empty()) return;
  const ModelConfig& config = facts.config;
  std::vector<std::string> own = config.label_names.empty() ? generic_names(config.num_labels) : config.label_names;
  const bool named = !are_generic(own);
  if (facts.own_head || named) {
    // A number stands for the class of that number.
    const bool covered = std::all_of(found.begin(), found.end(), [&](const std::string& name) {
      if (std::find(own.begin(), own.end(), name) != own.end()) return true;
      return !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == std::string::npos && std::stoul(name) < own.size();
    });
    if (covered) {
      facts.request.label_names = std::move(own);
      return;
    }
    const auto stranger = std::find_if(found.begin(), found.end(), [&](const std::string& name) { return std::find(own.begin(), own.end(), name) == own.end(); });
    if (facts.own_head && named && stranger != found.end())
      fail<ConfigError>("the model's classes are ", own.front(), ", … (", own.size(), " in all) and '", *stranger, "' in the data is none of them: give --labels for a new head");
  }
  facts.request.label_names = found;
}

void adapt_data_options(DataOptions& data, const ModelFacts& facts, const Tokenizer* tokenizer, std::optional<std::int64_t> max_length) {
  const ModelConfig& config = facts.config;
  const std::int64_t positions = config.max_position_embeddings;
  data.task = facts.data_task;
  data.max_length = max_length.value_or(std::min<std::int64_t>(1024, positions > 0 ? positions : 1024));
  check<ConfigError>(positions <= 0 || data.max_length <= positions, "--max-length: the model has ", positions, " positions, found ", data.max_length);
  data.vocabulary = config.vocab_size;
  data.label_names = facts.request.label_names;
  if (data.label_names.empty() && (data.task == Task::sequence_classification || data.task == Task::token_classification))
    data.label_names = config.label_names.empty() ? generic_names(config.num_labels) : config.label_names;
  if (!data.end_token_id && !(tokenizer != nullptr && tokenizer->eos_id()) && !config.eos_token_ids.empty()) data.end_token_id = config.eos_token_ids.front();
}

LoadedModel load_model(const SharedOptions& options, ModelRequest request) {
  apply_shared(options);
  if (!request.complete && !is_gguf(options.model)) request = look_at_model(options, std::move(request)).request;
  LoadOptions load;
  load.device = parse_device(options.device);
  if (!options.dtype.empty()) load.dtype = parse_dtype(options.dtype);
  const bool own_classes = !request.mean_head;
  if (own_classes) {
    load.label_names = request.label_names;
    load.num_labels = request.num_labels;
    load.problem_type = request.problem_type;
    load.ignore_mismatched_sizes = !request.label_names.empty();
  }
  load.head_key = request.key.fold("head");
  LoadedModel out;
  out.path = options.model;
  out.label_names = request.label_names;
  out.base = load_pretrained(options.model, request.task, load);
  if (out.label_names.empty() && (out.base->task() == Task::sequence_classification || out.base->task() == Task::token_classification)) out.label_names = out.base->config().label_names;
  out.tokenizer = find_tokenizer(options.model);
  for (std::size_t i = 0; i < options.adapters.size(); ++i) {
    const auto [folder, name] = parse_adapter(options.adapters[i], i);
    AdapterLoadOptions adapter;
    adapter.is_trainable = request.trainable_adapter;
    if (!out.peft) out.peft.reset(new PeftModel(PeftModel::from_pretrained(out.base, folder, name, adapter)));
    else out.peft->load_adapter(folder, name, adapter);
  }
  if (!out.peft) out.base->set_requires_grad(false);
  if (request.mean_head) {
    const std::int64_t width = out.base->config().hidden_size;
    if (!options.adapters.empty()) out.head = MeanHead::load(parse_adapter(options.adapters.front(), 0).first, width);
    else if (std::filesystem::is_directory(options.model)) out.head = MeanHead::load(options.model, width);
    if (!out.head) {
      check<ConfigError>(!out.label_names.empty(), "--head mean: there is no mean_head.safetensors beside the adapter, and no classes are known: train one first");
      out.head = std::make_shared<MeanHead>(width, static_cast<std::int64_t>(out.label_names.size()), request.key.fold("mean head"));
    }
    out.head->to(load.device);
    check<ConfigError>(static_cast<std::int64_t>(out.label_names.size()) == out.head->weight.get().size(0), "the mean head has ", out.head->weight.get().size(0), " classes and there are ",
                       out.label_names.size(), " names: give --labels");
  }
  return out;
}

}  // namespace cambium::cli
