// The calls that users of PEFT know, on the tuner that does the work.
#include "peft/peft_model.h"

#include <cstdio>
#include <iostream>

#include "peft/prompt_tuner.h"

namespace cambium {

namespace {

/// The tuner of a method: one row per alternative of PeftConfig.
std::shared_ptr<Tuner> make_tuner(std::shared_ptr<PretrainedModel> base, const PeftConfig& config) {
  if (std::holds_alternative<LoraConfig>(config)) return std::make_shared<LoraModel>(std::move(base));
  if (std::holds_alternative<IA3Config>(config)) return std::make_shared<IA3Model>(std::move(base));
  return std::make_shared<PromptTuner>(std::move(base));
}

std::string with_commas(std::int64_t number) {
  std::string digits = std::to_string(number);
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

void check_unwrapped(const std::shared_ptr<PretrainedModel>& base) {
  check<StateError>(base != nullptr, "get_peft_model: there is no base model");
  check<StateError>(base->parent() == nullptr, "get_peft_model: this model is wrapped already: use add_adapter() on that PeftModel, or unload() it first");
}

}  // namespace

PeftModel::PeftModel(std::shared_ptr<PretrainedModel> base, PeftConfig config, const PeftModelOptions& options) {
  check_unwrapped(base);
  base_model.set(make_tuner(std::move(base), config));
  base_model->inject_adapter(options.adapter_name, config, {options.autocast_adapter_dtype, options.key, options.prompt_text_ids, options.tokenizer});
}

PeftModel::PeftModel(std::shared_ptr<PretrainedModel> base, const std::string& folder, const std::string& adapter_name, const AdapterLoadOptions& options) {
  check_unwrapped(base);
  base_model.set(make_tuner(std::move(base), folder.ends_with(".gguf") ? PeftConfig(LoraConfig{}) : read_peft_config(folder)));
  cambium::load_adapter(*base_model, folder, adapter_name, options);
}

ModelOutput PeftModel::forward(const ModelInput& input, const ForwardContext& context) const try {
  if (!context.adapter_names.empty()) check_adapter_names(*base_model, context, (input.input_ids.defined() ? input.input_ids : input.inputs_embeds).size(0));
  return base_model->forward(input, context);
} catch (const DeviceError&) {
  check_one_device("forward");
  throw;
}

std::vector<std::int64_t> PeftModel::generate(const std::vector<std::int64_t>& input_ids, const GenerationOptions& options, const ForwardContext& context) const {
  return base_model->generate(from_vector(input_ids, {1, static_cast<std::int64_t>(input_ids.size())}), Tensor(), options, context).front();
}

void PeftModel::set_requires_grad(const std::vector<std::string>& names, bool value) {
  check<StateError>(!base_model->is_prompt_learning(), "set_requires_grad: not for prompts: set_adapter() decides what is trained");
  base_model->set_requires_grad(names, value);
}

IA3Model& PeftModel::ia3() const {
  auto* model = dynamic_cast<IA3Model*>(base_model.get().get());
  check<StateError>(model != nullptr, "the adapters are not IA3 but ", base_model->type_name());
  return *model;
}

LoraModel& PeftModel::lora() const {
  auto* model = dynamic_cast<LoraModel*>(base_model.get().get());
  check<StateError>(model != nullptr, "the adapters are not LoRA but ", base_model->type_name());
  return *model;
}

void PeftModel::add_adapter(const std::string& name, PeftConfig config, const AdapterOptions& options) {
  check<ConfigError>(adapters().empty() || config.index() == base_model->config(adapters().front()).index(), "add_adapter: '", name, "' is of another method than the adapters that are there");
  base_model->inject_adapter(name, config, options);
}

std::vector<LayerStatus> PeftModel::get_layer_status() const {
  check<StateError>(!base_model->is_prompt_learning(), "get_layer_status: prompts wrap no layers");
  return cambium::get_layer_status(*base_model);
}

std::vector<NamedParameter> PeftModel::trainable_parameters() const {
  std::vector<NamedParameter> out;
  for (auto& entry : named_parameters())
    if (entry.second->tensor.requires_grad()) out.push_back(std::move(entry));
  return out;
}

std::int64_t PeftModel::trainable_parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, slot] : trainable_parameters()) count += slot->tensor.count();
  return count;
}

std::string PeftModel::trainable_parameters_line() const {
  const std::int64_t trainable = trainable_parameter_count(), all = parameter_count();
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.4f", all == 0 ? 0.0 : 100.0 * static_cast<double>(trainable) / static_cast<double>(all));
  return "trainable params: " + with_commas(trainable) + " || all params: " + with_commas(all) + " || trainable%: " + percent;
}

void PeftModel::print_trainable_parameters() const { std::cout << trainable_parameters_line() << std::endl; }

void PeftModel::save_pretrained(const std::string& folder, const std::vector<std::string>& selected, const AdapterSaveOptions& options) const {
  const std::vector<std::string> names = selected.empty() ? adapters() : selected;
  for (const std::string& name : names) peft_config(name);  // an unknown one is an error before anything is written
  for (const std::string& name : names) save_adapter(*base_model, name, name == "default" ? folder : folder + "/" + name, options);
}

}  // namespace cambium
