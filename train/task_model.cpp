// What differs from task to task and from method to method when a model is trained.
#include "train/task_model.h"

#include <algorithm>
#include <filesystem>
#include <variant>

#include "autograd/ops.h"
#include "tensor/atomic_file.h"
#include "tensor/json.h"

namespace cambium {

namespace {

constexpr const char* kLabelFile = "label_names.json";

/// What stands behind the last hidden states, which a MeanHead reads: no gradient comes there.
bool is_pooler(const std::string& name) { return name.starts_with("pooler.") || name.find(".pooler.") != std::string::npos; }

bool is_head(const std::string& name) {
  for (const char* head : {"classifier.", "score.", "qa_outputs."})
    if (name.starts_with(head) || name.find(std::string(".") + head) != std::string::npos) return true;
  return false;
}

/// Rows that a method of the adapter puts before every text's embeddings; prefixes stand before keys and values only.
std::int64_t embedded_prompt(const PeftConfig& config) {
  return std::visit(
      [](const auto& c) -> std::int64_t {
        using Config = std::decay_t<decltype(c)>;
        if constexpr (std::is_same_v<Config, PromptTuningConfig> || std::is_same_v<Config, PromptEncoderConfig>) return c.num_virtual_tokens.value_or(0);
        else return 0;
      },
      config);
}

/// Dropout of attention's probabilities makes them whole, between all tokens of a row, so that rows side by side would cost the square of the batch.
bool drops_attention(const ModelConfig& config) {
  const Json json = parse_json(config.json.empty() ? "{}" : config.json, "config");
  for (const char* key : {"attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate"})
    if (json.contains(key) && json[key].is_number() && json[key].get<double>() > 0) return true;
  return false;
}

}  // namespace

ModelOutput TaskModel::forward(const ModelInput& input, const ForwardContext& context) const {
  const auto run = [this](const ModelInput& i, const ForwardContext& c) { return peft ? peft->forward(i, c) : base->forward(i, c); };
  return head ? head->classify(run, input, context) : run(input, context);
}

TaskType TaskModel::task_type() const {
  switch (base->task()) {
    case Task::causal_lm: return TaskType::CAUSAL_LM;
    case Task::seq2seq_lm: return TaskType::SEQ_2_SEQ_LM;
    case Task::sequence_classification: return TaskType::SEQ_CLS;
    case Task::token_classification: return TaskType::TOKEN_CLS;
    case Task::question_answering: return TaskType::QUESTION_ANS;
    default: return TaskType::FEATURE_EXTRACTION;
  }
}

void TaskModel::add_adapter(PeftConfig config, RandomKey key) {
  std::visit([&](auto& c) { c.task_type = task_type(); }, config);
  PeftModelOptions options;
  options.key = key;
  peft.reset(new PeftModel(get_peft_model(base, std::move(config), options)));
}

void TaskModel::train_base() {
  NoGrad no_grad;
  for (const auto& [name, slot] : base->named_parameters()) {
    slot->tensor = clone(slot->tensor);  // what is mapped from a file cannot be written
    slot->tensor.set_requires_grad(!(head && is_pooler(name)));
  }
}

Trainable TaskModel::trainable() const {
  Trainable out;
  out.forward = [this](const ModelInput& input, const ForwardContext& context) { return forward(input, context); };
  std::vector<NamedParameter> all = peft ? peft->named_parameters() : base->named_parameters();
  for (NamedParameter& parameter : all) {
    if (!parameter.second->tensor.requires_grad()) continue;
    if (head && is_pooler(parameter.first) && parameter.first.find("lora_") == std::string::npos && parameter.first.find("ia3_") == std::string::npos) {
      parameter.second->tensor.set_requires_grad(false);  // a bias of the base; an adapter there is the user's mistake, which training names
      continue;
    }
    (is_head(parameter.first) ? out.head_parameters : out.parameters).push_back(std::move(parameter));
  }
  if (head)
    for (const auto& [name, slot] : head->named_parameters()) {
      slot->tensor.set_requires_grad(true);
      out.head_parameters.emplace_back("mean_head." + name, slot);
    }
  const std::int64_t prompt = peft && !peft->active_adapters().empty() ? embedded_prompt(peft->peft_config(peft->active_adapters().front())) : 0;
  const bool language = task() == Task::causal_lm || task() == Task::seq2seq_lm;
  out.first_token_is_target = prompt > 0 && task() == Task::causal_lm;
  out.format.segments = !base->is_causal() && base->task() != Task::seq2seq_lm;
  out.format.pad_id = base->config().pad_token_id.value_or(0);
  if (prompt > 0 && !language) out.format.virtual_tokens = prompt;
  if (out.format.virtual_tokens > 0 || drops_attention(base->config())) out.format.layout = BatchLayout::padded;
  return out;
}

std::int64_t TaskModel::trainable_parameter_count() const {
  const Trainable all = trainable();
  std::int64_t count = 0;
  for (const auto* list : {&all.parameters, &all.head_parameters})
    for (const auto& [name, slot] : *list) count += slot->tensor.count();
  return count;
}

void TaskModel::save(const std::string& folder, const std::string& adapter) const {
  if (peft) save_adapter(*peft->base_model, adapter, folder);
  else save_pretrained(*base, folder);
  if (head) head->save(folder);
  if (!label_names.empty()) write_file((std::filesystem::path(folder) / kLabelFile).string(), Json(label_names).dump(2) + "\n");
}

std::vector<std::string> read_label_names(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / kLabelFile).string();
  if (!std::filesystem::exists(path)) return {};
  const Json list = read_json_file(path);
  check<FileError>(list.is_array(), path, ": expected a list of names");
  std::vector<std::string> names;
  for (const Json& name : list) names.push_back(json_string(name, path));
  return names;
}

}  // namespace cambium
