// Where LoRA adapters go and with which options.
#include "peft/lora_model.h"

#include <algorithm>
#include <cmath>

#include "peft/targets.h"

namespace cambium {

std::vector<std::pair<std::string, LoraLinear*>> LoraModel::lora_layers() const {
  std::vector<std::pair<std::string, LoraLinear*>> out;
  for (const auto& [path, layer] : adapter_layers())
    if (auto* lora = dynamic_cast<LoraLinear*>(layer)) out.emplace_back(path, lora);
  return out;
}

LayerTuner::Plan LoraModel::plan(PeftConfig& config) {
  auto& c = std::get<LoraConfig>(config);
  validate(c);
  const LoraInit init = parse_lora_init(c.init_lora_weights);
  check<ConfigError>(!c.use_dora && !c.lora_bias && !c.trainable_token_indices.given() && !init.changes_base() && init.way != LoraInit::Way::orthogonal,
                     "LoraConfig: use_dora, lora_bias, trainable_token_indices, pissa, olora and orthogonal are not supported yet");
  if (!c.target_modules.given()) {
    const std::string& type = model->config().model_type;
    const std::optional<ModuleSelection> defaults = default_lora_targets(type);
    check<ConfigError>(defaults.has_value(), "LoraConfig: no default target_modules are known for architecture '", type, "': give target_modules");
    c.target_modules = *defaults;
  }
  if (c.target_modules.is_pattern()) {
    std::string lower = c.target_modules.pattern();
    std::transform(lower.begin(), lower.end(), lower.begin(), [](char ch) { return ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch + 32) : ch; });
    if (lower == "all-linear") c.target_modules = all_linear_targets(*model, model->output_embedding_path(), c.task_type);
  }
  if (!c.base_model_name_or_path) c.base_model_name_or_path = model->config().name_or_path;
  return {c.target_modules, c.exclude_modules, c.layers_to_transform, c.layers_pattern, c.modules_to_save.value_or(std::vector<std::string>{}), c.bias != "none"};
}

void LoraModel::add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const {
  auto* lora = dynamic_cast<LoraLinear*>(&layer);
  check<ConfigError>(lora != nullptr, "'", path, "' carries adapters of another method (", layer.type_name(), ")");
  const auto& c = std::get<LoraConfig>(config);
  const auto* rank = find_pattern(c.rank_pattern, path);
  const auto* alpha = find_pattern(c.alpha_pattern, path);
  LoraLayerOptions o;
  o.r = rank ? rank->second : c.r;
  o.alpha = alpha ? alpha->second : c.lora_alpha;
  o.dropout = c.lora_dropout;
  o.use_rslora = c.use_rslora;
  o.init = c.init_lora_weights;
  o.keep_dtype = !options.autocast_adapter_dtype;
  lora->add_adapter(name, o, options.key.fold(path).fold(name));
}

void LoraModel::adjust(PeftConfig& config, bool transposed_weights) {
  auto& c = std::get<LoraConfig>(config);
  if (c.fan_in_fan_out != transposed_weights) {
    warn(concat_text("fan_in_fan_out is set to ", transposed_weights ? "true: the targets are Conv1D" : "false: the targets are Linear"));
    c.fan_in_fan_out = transposed_weights;
  }
  const auto unused = [&](const auto& pattern, const char* field) {
    for (const auto& entry : pattern) {
      bool used = false;
      model->visit([&](const std::string& path, Module& module) {
        used = used || (dynamic_cast<LinearLike*>(&module) != nullptr && find_pattern(std::vector{entry}, path) != nullptr);
      });
      if (!used) warn(concat_text(field, ": '", entry.first, "' matches no module"));
    }
  };
  unused(c.rank_pattern, "rank_pattern");
  unused(c.alpha_pattern, "alpha_pattern");
}

RescaleAdapterScale::RescaleAdapterScale(LoraModel& model, double factor) {
  check<ConfigError>(std::isfinite(factor), "rescale_adapter_scale: expected a finite factor");
  for (const auto& [path, layer] : model.lora_layers())
    for (const std::string& name : layer->active())
      if (layer->has_adapter(name)) {
        old_.push_back({layer, name, layer->scaling(name)});
        layer->set_scaling(name, factor * layer->scaling(name));
      }
}

RescaleAdapterScale::~RescaleAdapterScale() {
  for (const Old& old : old_) old.layer->set_scaling(old.adapter, old.scaling);
}

}  // namespace cambium
