// Where IA3 adapters go, and whether they scale inputs or outputs there.
#include "peft/ia3_model.h"

#include <algorithm>

#include "nn/pattern.h"
#include "peft/targets.h"

namespace cambium {

namespace {

/// A pattern for the whole path, or a list of endings; unlike targets, these end anywhere, as in PEFT: "wo" also means "two".
bool is_feedforward(const ModuleSelection& selection, const std::string& path) {
  if (!selection.given()) return false;
  if (selection.is_pattern()) return Pattern(selection.pattern()).matches_whole(path);
  return std::any_of(selection.names().begin(), selection.names().end(), [&](const std::string& name) { return path.ends_with(name); });
}

}  // namespace

std::vector<std::pair<std::string, IA3Layer*>> IA3Model::ia3_layers() const {
  std::vector<std::pair<std::string, IA3Layer*>> out;
  for (const auto& [path, layer] : adapter_layers())
    if (auto* ia3 = dynamic_cast<IA3Layer*>(layer)) out.emplace_back(path, ia3);
  return out;
}

LayerTuner::Plan IA3Model::plan(PeftConfig& config) {
  auto& c = std::get<IA3Config>(config);
  validate(c);
  const std::string& type = model->config().model_type;
  const std::optional<IA3Targets> defaults = default_ia3_targets(type);
  if (!c.target_modules.given()) {
    check<ConfigError>(defaults.has_value(), "IA3Config: no default target_modules are known for architecture '", type, "': give target_modules");
    c.target_modules = defaults->targets;
  }
  if (!c.feedforward_modules.given()) {
    check<ConfigError>(defaults.has_value(), "IA3Config: no default feedforward_modules are known for architecture '", type, "': give feedforward_modules, which may be an empty list");
    c.feedforward_modules = defaults->feedforward;
  }
  resolve_all_linear(c.target_modules, c.task_type);
  if (!c.base_model_name_or_path) c.base_model_name_or_path = model->config().name_or_path;
  return {c.target_modules, c.exclude_modules, std::nullopt, std::nullopt, c.modules_to_save.value_or(std::vector<std::string>{}), false};
}

std::shared_ptr<AdapterLayer> IA3Model::wrap(const std::string& path, std::shared_ptr<Layer> base, const PeftConfig& config) const {
  return std::make_shared<IA3Layer>(std::move(base), is_feedforward(std::get<IA3Config>(config).feedforward_modules, path));
}

void IA3Model::add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const {
  auto* ia3 = dynamic_cast<IA3Layer*>(&layer);
  check<ConfigError>(ia3 != nullptr, "'", path, "' carries adapters of another method (", layer.type_name(), ")");
  const auto& c = std::get<IA3Config>(config);
  check<ConfigError>(ia3->is_feedforward() == is_feedforward(c.feedforward_modules, path), "'", path, "' is ", ia3->is_feedforward() ? "" : "no ",
                     "feed-forward module for the adapters that are there: all adapters of a layer have to agree");
  ia3->add_adapter(name, c.init_ia3_weights, !options.autocast_adapter_dtype, options.key.fold(path).fold(name));
}

void IA3Model::adjust(PeftConfig& config, std::optional<bool> transposed_weights) { adjust_fan_in_fan_out(std::get<IA3Config>(config).fan_in_fan_out, transposed_weights); }

}  // namespace cambium
