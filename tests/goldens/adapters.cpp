// Adapters against stored numbers.
#include "tests/goldens/adapters.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "autograd/ops.h"
#include "nn/optim/adamw.h"
#include "peft/peft_model.h"
#include "peft/trainable_tokens.h"
#include "tests/goldens/combinations.h"
#include "tests/temporary_folder.h"
#include "tests/goldens/prompt_methods.h"

namespace cambium::test {

namespace fs = std::filesystem;

namespace {

constexpr const char* kName = "default";

void compare_targets(const CaseFiles& files, const PeftModel& model, Comparison& out) {
  Json expected = files.json.at("targets");
  for (const auto& [layer_path, layer] : model.base_model->adapter_layers()) {
    const auto* tokens = dynamic_cast<const TrainableTokens*>(layer);
    const std::string path = tokens ? layer_path + ".token_adapter" : layer_path;
    if (!expected.contains(path)) {
      out.failure("'" + path + "' is adapted and should not be");
      continue;
    }
    const Json row = expected.at(path);
    expected.erase(path);
    if (const auto* lora = dynamic_cast<const LoraLayer*>(layer)) {
      out.within("targets", std::fabs(static_cast<double>(lora->r(kName)) - row.at("r").get<double>()), 0.0);
      out.within("targets", std::fabs(lora->lora_alpha(kName) - row.at("alpha").get<double>()), 0.0);
      out.within("targets", std::fabs(lora->scaling(kName) - row.at("scaling").get<double>()), 1e-12);
    } else if (const auto* ia3 = dynamic_cast<const IA3Layer*>(layer)) {
      out.same("targets", ia3->is_feedforward() == row.at("is_feedforward").get<bool>(), path);
    } else {
      out.same("targets", tokens != nullptr && row.at("class") == "TrainableTokensLayer", path);
    }
  }
  for (const auto& [path, row] : expected.items()) out.failure("'" + path + "' is not adapted");
}

/// What we write of the adapter that was read: the same keys, shapes, types and values, and every field of the configuration.
void compare_saved(const CaseFiles& files, const PeftModel& model, Comparison& out) {
  const fs::path stored = fs::path(files.folder) / "adapter";
  const TemporaryFolder folder;
  model.save_pretrained(folder.path());
  const auto expected = read_tensors((stored / "adapter_model.safetensors").string()), found = read_tensors(folder.file("adapter_model.safetensors"));
  for (const auto& [key, tensor] : expected) {
    if (!found.contains(key)) out.failure("saved: '" + key + "' is missing");
    else if (found.at(key).dtype() != tensor.dtype()) out.failure("saved: '" + key + "' has another type");
    else out.close("saved", found.at(key), tensor, 0.0);
  }
  for (const auto& [key, tensor] : found)
    if (!expected.contains(key)) out.failure("saved: '" + key + "' should not be there");
  const Json wanted = read_json_file((stored / "adapter_config.json").string()), written = read_json_file(folder.file("adapter_config.json"));
  for (const auto& [key, value] : wanted.items())
    out.same("saved config", written.contains(key) && written.at(key) == value, key);
  out.same("saved config", written.size() == wanted.size(), "other keys");
}

/// The trainable parameters under the keys of the adapter file.
std::vector<NamedParameter> file_parameters(const PeftModel& model) {
  std::vector<NamedParameter> out;
  for (const auto& [key, slot] : model.base_model->adapter_state(kName))
    if (slot->tensor.requires_grad()) out.emplace_back(key, slot);
  return out;
}

void compare_set(const std::string& kind, const std::vector<NamedTensor>& found, const std::map<std::string, Tensor>& expected, double tolerance, Comparison& out) {
  std::map<std::string, Tensor> rest = expected;
  for (const auto& [key, tensor] : found) {
    if (!rest.contains(key)) {
      out.failure(kind + ": '" + key + "' is not in the file");
      continue;
    }
    out.close(kind, tensor, rest.at(key), tolerance);
    rest.erase(key);
  }
  for (const auto& [key, tensor] : rest) out.failure(kind + ": '" + key + "' was not found");
}

/// Weights, logits and loss of the model with the adapter merged into it.
void compare_merged(const CaseFiles& files, Comparison& out) {
  NoGrad no_grad;
  if (files.json.contains("merge_error")) {
    PeftModel refused = PeftModel::from_pretrained(load_base(files), (fs::path(files.folder) / "adapter").string(), kName);
    bool failed = false;
    try {
      refused.merge_adapter();
    } catch (const StateError&) {
      failed = true;
    }
    out.same("merge_error", failed && refused.base_model->merged_adapters().empty(), "it was merged");
  }
  if (!files.json.contains("merged_loss")) return;
  PeftModel model = PeftModel::from_pretrained(load_base(files), (fs::path(files.folder) / "adapter").string(), kName);
  const std::shared_ptr<PretrainedModel> merged = model.merge_and_unload();
  std::map<std::string, Tensor> state;  // under every name, also of tied parameters
  merged->visit([&](const std::string& path, Module& module) {
    for (const Param* p : module.own_parameters()) state.emplace(path + "." + p->name(), p->get());
  });
  for (const auto& [key, tensor] : read_tensors((fs::path(files.folder) / "merged.safetensors").string()))
    out.close("merged", state.contains(key) ? state.at(key) : Tensor(), tensor, 2e-5);
  const ModelOutput result = merged->forward(files.input());
  out.within("merged_loss", std::fabs(loss_of(files.task(), files.input(), result).item() - std::stod(files.json.at("merged_loss").get<std::string>())), files.tolerance("loss"));
  // Where merging changes the head as well, the file has these logits apart.
  const char* name = files.io.contains("merged_logits") ? "merged_logits" : "logits";
  out.close("merged_logits", result.logits, files.io.at(name), files.tolerance("logits"), files.compare_mask());
  // from_pretrained, merge_and_unload, generate: the way of most users.
  if (files.json.contains("generate") && !files.io.contains("merged_logits")) compare_generation(files, *merged, "with_adapter", out);
}

void compare_layers(const CaseFiles& files, Comparison& out) {
  PeftModel model = PeftModel::from_pretrained(load_base(files), (fs::path(files.folder) / "adapter").string(), kName, {.is_trainable = true});
  {
    NoGrad no_grad;
    ModelInput input = files.input();
    input.want_hidden_states = true;
    const ModelOutput found = model.forward(input);
    out.close("logits", found.logits, files.io.at("logits"), files.tolerance("logits"), files.compare_mask());
    const double loss = std::stod(files.json.at("loss").get<std::string>()), found_loss = loss_of(files.task(), input, found).item();
    out.within("loss", std::fabs(found_loss - loss), files.tolerance("loss"));
    out.within("loss", std::fabs(found_loss - files.io.at("loss").item()), files.tolerance("loss"));
    compare_hidden_states(files, found, out);
  }
  out.within("trainable_params", std::fabs(static_cast<double>(model.trainable_parameter_count()) - files.json.at("trainable_params").get<double>()), 0.0);
  out.within("all_params", std::fabs(static_cast<double>(model.parameter_count()) - files.json.at("all_params").get<double>()), 0.0);
  compare_targets(files, model, out);
  compare_saved(files, model, out);
  if (files.json.contains("generate")) compare_generation(files, model.model(), "with_adapter", out);
  compare_training(files, model, file_parameters(model), out);
  compare_merged(files, out);
}

}  // namespace

void compare_training(const CaseFiles& files, const PeftModel& model, const std::vector<NamedParameter>& parameters, Comparison& out) {
  ForwardContext context;
  context.training = true;
  ModelInput input = files.input();
  input.want_logits = files.task() == Task::feature_extraction;
  const Json& o = files.json.at("optimizer");
  if (o.at("name") != "adamw") out.failure("optimizer '" + o.at("name").get<std::string>() + "' is not known");
  AdamWConfig config;
  config.learning_rate = o.at("lr").get<double>();
  config.beta1 = o.at("betas").at(0).get<double>();
  config.beta2 = o.at("betas").at(1).get<double>();
  config.epsilon = o.at("eps").get<double>();
  config.weight_decay = o.at("weight_decay").get<double>();
  config.missing_gradient = MissingGradient::zero;
  std::vector<NamedParameter> trained;  // a file may name one parameter twice
  for (const NamedParameter& parameter : parameters)
    if (std::none_of(trained.begin(), trained.end(), [&](const NamedParameter& other) { return other.second == parameter.second; })) trained.push_back(parameter);
  AdamW optimizer(trained, config);
  const Json& losses = files.json.at("losses");
  const std::size_t steps = o.at("steps").get<std::size_t>();
  out.same("steps", losses.size() == steps + 1, "a loss before each step and one after the last are expected");
  for (std::size_t step = 0; step < losses.size(); ++step) {
    const Tensor loss = loss_of(files.task(), input, model.forward(input, context));
    out.within("losses", std::fabs(loss.item() - std::stod(losses.at(step).get<std::string>())), files.tolerance("losses"));
    if (step == steps) break;
    backward(loss);
    if (step == 0) {
      std::vector<NamedTensor> grads;
      for (const auto& [key, slot] : parameters) grads.emplace_back(key, slot->tensor.grad().defined() ? slot->tensor.grad() : zeros_like(slot->tensor));
      compare_set("grads", grads, read_tensors((fs::path(files.folder) / "grads.safetensors").string()), files.tolerance("grads"), out);
    }
    optimizer.step();
    optimizer.zero_grad();
  }
  std::vector<NamedTensor> after;
  for (const auto& [key, slot] : parameters) after.emplace_back(key, detach(slot->tensor));
  compare_set("after", after, read_tensors((fs::path(files.folder) / "after.safetensors").string()), files.tolerance("after"), out);
}

Comparison compare_case(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const Json json = read_json_file((fs::path(folder) / "case.json").string());
  const std::string kind = json.value("kind", ""), method = json.value("peft_type", "");
  if (kind == "two_adapters") return compare_two_adapters(folder, name);
  if (kind == "two_ia3") return compare_two_ia3(folder, name);
  if (!kind.empty()) {
    out.failure("kind '" + kind + "' is not supported");
  } else {
    const CaseFiles files(folder);
    compare_base(files, *load_base(files), out);
    if (method == "LORA" || method == "IA3") compare_layers(files, out);
    else if (is_prompt_method(method)) compare_prompt_method(files, out);
    else out.failure("method '" + method + "' is not supported");
  }
  return out;
}

}  // namespace cambium::test
