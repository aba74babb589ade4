// Prompt methods against stored numbers.
#include "tests/goldens/prompt_methods.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "nn/embedding.h"
#include "peft/peft_model.h"
#include "peft/prompt_tuner.h"
#include "tests/goldens/adapters.h"

namespace cambium::test {

namespace fs = std::filesystem;

namespace {

constexpr const char* kAdapterName = "default";

std::string adapter_folder(const CaseFiles& files) { return (fs::path(files.folder) / "adapter").string(); }

const PromptTuner& tuner_of(const PeftModel& model) { return dynamic_cast<const PromptTuner&>(*model.base_model); }

void compare_output(const CaseFiles& files, const PeftModel& model, Comparison& out) {
  NoGrad no_grad;
  const ModelInput input = files.input();
  const ModelOutput found = model.forward(input);
  out.close("logits", found.logits, files.io.at("logits"), files.tolerance("logits"), files.compare_mask());
  const double loss = std::stod(files.json.at("loss").get<std::string>()), found_loss = loss_of(files.task(), input, found).item();
  out.within("loss", std::fabs(found_loss - loss), files.tolerance("loss"));
  out.within("loss", std::fabs(found_loss - files.io.at("loss").item()), files.tolerance("loss"));
  if (!found.loss.defined()) return;
  ModelInput without = input;
  without.want_logits = false;
  out.within("loss", std::fabs(model.forward(without).loss.item() - loss), files.tolerance("loss"));
}

/// What is written has PEFT's keys, shapes, types and values; so has the configuration.
void compare_saved_prompts(const CaseFiles& files, const PeftModel& model, Comparison& out) {
  std::map<std::string, Tensor> stored = read_tensors((fs::path(adapter_folder(files)) / "adapter_model.safetensors").string());
  for (const auto& [key, tensor] : model.base_model->adapter_tensors(kAdapterName)) {
    if (!stored.contains(key)) {
      out.failure("saved: '" + key + "' is not in the file");
      continue;
    }
    out.same("saved types", tensor.dtype() == stored.at(key).dtype(), key);
    out.close("saved", tensor, stored.at(key), 5e-6);
    stored.erase(key);
  }
  for (const auto& [key, tensor] : stored) out.failure("saved: '" + key + "' was not written");
  Json expected = read_json_file((fs::path(adapter_folder(files)) / "adapter_config.json").string());
  Json found = parse_json(to_json(model.peft_config(kAdapterName)), "to_json");
  // PEFT repeats the names of heads each time a configuration passes through it.
  if (Json& names = expected.at("modules_to_save"); names.is_array()) {
    std::vector<std::string> once = names.get<std::vector<std::string>>();
    std::sort(once.begin(), once.end());
    once.erase(std::unique(once.begin(), once.end()), once.end());
    names = once;
  }
  // Here it says where the base model lies, there where it lay.
  for (Json* config : {&expected, &found})
    for (const char* key : {"base_model_name_or_path", "tokenizer_name_or_path"}) config->erase(key);
  for (const auto& [key, value] : expected.items()) out.same("config", found.contains(key) && found.at(key) == value, key + " is " + (found.contains(key) ? found.at(key).dump() : "missing"));
  for (const auto& [key, value] : found.items()) out.same("config", expected.contains(key), key + " is not in the file");
}

/// The rows that a text gives.
void compare_text_rows(const CaseFiles& files, const PeftModel& model, Comparison& out) {
  NoGrad no_grad;
  const auto ids = files.json.at("prompt_row_ids").get<std::vector<std::int64_t>>();
  const auto& embedding = dynamic_cast<const Layer&>(*model.model().child(model.model().input_embedding_path()).module());
  out.close("text rows", tuner_of(model).prompt_embeddings(kAdapterName), embedding.forward(from_vector(ids, {static_cast<std::int64_t>(ids.size())}, comparison_device()), {}), 0.0);
}

/// The encoder's parameters and trained heads under the names of params.safetensors.
std::vector<NamedParameter> stored_parameters(const PeftModel& model) {
  std::vector<NamedParameter> out = model.base_model->encoder_state(kAdapterName);
  for (auto& [key, slot] : model.base_model->adapter_state(kAdapterName))
    if (key != "prompt_embeddings") out.emplace_back(key, slot);
  return out;
}

}  // namespace

bool is_prompt_method(const std::string& peft_type) { return peft_type == "PROMPT_TUNING" || peft_type == "PREFIX_TUNING" || peft_type == "P_TUNING"; }

void compare_prompt_method(const CaseFiles& files, Comparison& out) {
  {
    const PeftModel loaded = PeftModel::from_pretrained(load_base(files), adapter_folder(files), kAdapterName);
    out.same("loaded", loaded.trainable_parameter_count() == 0, "has trainable parameters");
    compare_output(files, loaded, out);
    if (files.json.contains("generate")) {
      compare_generation(files, [&](const Tensor& ids, const Tensor& mask, const GenerationOptions& options) { return loaded.generate(ids, mask, options); }, "with_adapter", out);
    }
  }
  PeftConfig config = read_peft_config(adapter_folder(files));
  std::visit([](auto& c) { c.inference_mode = false; }, config);
  if (auto* prompt = std::get_if<PromptTuningConfig>(&config); prompt && prompt->tokenizer_name_or_path)
    prompt->tokenizer_name_or_path = (fs::path(files.base).parent_path() / fs::path(*prompt->tokenizer_name_or_path).filename()).string();
  PeftModel model = get_peft_model(load_base(files), config);
  if (files.json.contains("prompt_row_ids")) compare_text_rows(files, model, out);
  out.within("trainable_params", std::fabs(static_cast<double>(model.trainable_parameter_count()) - files.json.at("trainable_params").get<double>()), 0.0);
  out.within("all_params", std::fabs(static_cast<double>(model.parameter_count()) - files.json.at("all_params").get<double>()), 0.0);

  const std::vector<NamedParameter> parameters = stored_parameters(model);
  std::map<std::string, Tensor> stored = read_tensors((fs::path(files.folder) / "params.safetensors").string());
  for (const auto& [key, slot] : parameters) {
    if (!stored.contains(key) || !(stored.at(key).shape() == slot->tensor.shape())) {
      out.failure("params: '" + key + "' is not in the file, or of another shape");
      return;
    }
    slot->tensor = clone(to_device(stored.at(key), comparison_device()));
    slot->tensor.set_requires_grad(true);
    stored.erase(key);
  }
  for (const auto& [key, tensor] : stored) out.failure("params: the model has no '" + key + "'");
  compare_saved_prompts(files, model, out);
  compare_output(files, model, out);
  compare_training(files, model, parameters, out);
}

}  // namespace cambium::test
