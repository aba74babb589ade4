// Injection into layers, merging and taking adapters out again.
#include "peft/layer_tuner.h"

#include <algorithm>

#include "peft/targets.h"

namespace cambium {

namespace {

std::string described(const ModuleSelection& selection) { return selection.is_pattern() ? "'" + selection.pattern() + "'" : listed(selection.names()); }

/// Whether `entry` stands in the path as complete components, so that the path is inside such a module or is one.
bool inside(const std::string& path, const std::string& entry) { return ("." + path + ".").find("." + entry + ".") != std::string::npos; }

bool is_bias(std::string_view name) { return name == "bias" || name.ends_with(".bias"); }

}  // namespace

std::vector<LayerTuner::Site> LayerTuner::find_sites(const Plan& plan, const std::string& method) {
  const TargetMatcher matcher(plan.targets, plan.excluded, plan.layers, plan.layers_pattern);
  std::vector<Site> sites;
  std::vector<std::string> all, excluded_targets;
  const TargetMatcher without_exclusion(plan.targets, {}, plan.layers, plan.layers_pattern);
  std::string skip;  // below an adapted layer or a saved module nothing is a target
  model->visit_slots([&](const std::string& path, ChildSlot& slot) {
    const std::shared_ptr<Module> module = slot.module();
    if (!module || (!skip.empty() && path.starts_with(skip))) return;
    if (dynamic_cast<AdapterLayer*>(module.get()) || dynamic_cast<ModulesToSave*>(module.get())) skip = path + ".";
    all.push_back(path);
    if (std::any_of(plan.modules_to_save.begin(), plan.modules_to_save.end(), [&](const std::string& entry) { return inside(path, entry); })) return;
    const TargetMatcher::Result result = matcher.match(path);
    if (result == TargetMatcher::Result::excluded && without_exclusion.match(path) == TargetMatcher::Result::yes) excluded_targets.push_back(path);
    if (result != TargetMatcher::Result::yes) return;
    check<ConfigError>(dynamic_cast<LinearLike*>(module.get()) != nullptr && !dynamic_cast<ModulesToSave*>(module.get()), method, ": target '", path, "' is a ", module->type_name(),
                       ": supported are Linear and Conv1D");
    sites.push_back({path, &slot});
  });
  if (sites.empty()) {
    if (!excluded_targets.empty()) fail<ConfigError>(method, ": all targets (", listed(excluded_targets), ") are excluded by exclude_modules");
    std::string text = method + ": no module of the base model matches target_modules " + described(plan.targets);
    if (plan.layers && !plan.layers->empty())
      text += concat_text(" within layers_to_transform ", *plan.layers, plan.layers_pattern ? " and layers_pattern " + listed(*plan.layers_pattern) : std::string());
    fail<ConfigError>(text, ": its modules are called, for example, ", all.empty() ? "nothing" : all.back());
  }
  for (const std::string& entry : matcher.unused_exclusions(all)) warn("exclude_modules: '" + entry + "' matches no module");
  return sites;
}

void LayerTuner::make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) {
  const Plan p = plan(config);
  bool any_bias = p.trains_bias;
  const std::vector<std::string> others = adapters();
  for (const std::string& other : others) any_bias = any_bias || trained_biases(this->config(other)) != "none";
  check<ConfigError>(others.empty() || !any_bias, "adapter '", name, "': only a single adapter may train biases of the base: set bias to none on all");

  const std::vector<Site> sites = find_sites(p, "adapter '" + name + "'");
  adjust(config, dynamic_cast<LinearLike*>(sites.front().slot->module().get())->weight_is_transposed());
  for (const Site& site : sites) {
    std::shared_ptr<Module> module = site.slot->module();
    auto layer = std::dynamic_pointer_cast<AdapterLayer>(module);
    if (!layer) {
      layer = wrap(std::dynamic_pointer_cast<LinearLike>(module));
      site.slot->replace(layer);
    }
    layer->set_enabled(enabled());
    add_to_layer(*layer, site.path, name, config, options);
  }
}

void LayerTuner::strip(const std::string& name) {
  for (const auto& [path, layer] : adapter_layers()) {
    if (layer->has_adapter(name)) layer->delete_adapter(name);
    if (layer->adapters().empty()) model->child(path).replace(layer->base_layer.get());
  }
}

void LayerTuner::activate(const std::vector<std::string>& names) {
  if (!merged_adapters().empty() && names != active_adapters()) {
    warn("set_adapter: adapters were merged: they are unmerged first");
    unmerge_adapter();
  }
  for (const auto& [path, layer] : adapter_layers()) layer->set_active(names);
}

std::vector<NamedParameter> LayerTuner::trained_parameters(const std::string& name) const {
  std::vector<NamedParameter> out;
  for (const auto& [path, layer] : adapter_layers())
    if (layer->has_adapter(name))
      for (const auto& [key, slot] : layer->adapter_parameters(name)) out.emplace_back(path + "." + key, slot);
  for (auto& entry : bias_parameters(name)) out.push_back(std::move(entry));
  return out;
}

void LayerTuner::enable_adapter_layers() {
  Tuner::enable_adapter_layers();
  for (const auto& [path, layer] : adapter_layers()) layer->set_enabled(true);
}

void LayerTuner::disable_adapter_layers() {
  for (const std::string& name : active_adapters())
    if (trained_biases(config(name)) != "none") warn("disable_adapter_layers: adapter '" + name + "' trained biases of the base in place: outputs are not the base model's");
  Tuner::disable_adapter_layers();
  for (const auto& [path, layer] : adapter_layers()) layer->set_enabled(false);
}

std::vector<NamedParameter> LayerTuner::bias_parameters(const std::string& adapter) const {
  const std::string which = trained_biases(config(adapter));
  std::vector<NamedParameter> out;
  if (which == "lora_only") {
    for (const auto& [path, layer] : adapter_layers())
      if (layer->has_adapter(adapter) && layer->bias().defined()) out.emplace_back(path + ".base_layer.bias", layer->bias().slot());
  } else if (which == "all") {
    const auto wrappers = saved_modules();
    for (auto& [name, slot] : model->named_parameters()) {
      const bool in_wrapper = std::any_of(wrappers.begin(), wrappers.end(), [&, n = &name](const auto& w) { return n->starts_with(w.first + "."); });
      if (is_bias(name) && !in_wrapper) out.emplace_back(name, slot);
    }
  }
  return out;
}

void LayerTuner::merge_adapter(const std::vector<std::string>& names, bool safe_merge) {
  check_names(names);
  const std::vector<std::string>& chosen = names.empty() ? active_adapters() : names;
  const auto layers = adapter_layers();
  // All or nothing: a layer that refuses brings back the ones merged before it.
  std::vector<std::pair<AdapterLayer*, std::vector<std::string>>> done;
  try {
    for (const auto& [path, layer] : layers) {
      const std::vector<std::string> before = layer->merged_adapters();
      layer->merge(chosen, safe_merge);
      done.emplace_back(layer, before);
    }
  } catch (...) {
    for (auto& [layer, before] : done) {
      layer->unmerge();
      layer->merge(before, false);
    }
    throw;
  }
}

void LayerTuner::unmerge_adapter() {
  const auto layers = adapter_layers();
  for (auto at = layers.rbegin(); at != layers.rend(); ++at) at->second->unmerge();
}

void LayerTuner::unwrap(bool keep_copies) {
  unwrap_saved_modules(keep_copies);
  std::vector<std::pair<ChildSlot*, std::shared_ptr<Module>>> replacements;
  model->visit_slots([&](const std::string&, ChildSlot& slot) {
    if (auto* layer = dynamic_cast<AdapterLayer*>(slot.module().get())) replacements.emplace_back(&slot, layer->base_layer.get());
  });
  for (auto& [slot, module] : replacements) slot->replace(module);
  forget_adapters();
}

std::shared_ptr<PretrainedModel> LayerTuner::merge_and_unload(bool safe_merge, const std::vector<std::string>& names) {
  merge_adapter(names, safe_merge);
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  unwrap(true);
  return model.get();
}

std::shared_ptr<PretrainedModel> LayerTuner::unload() {
  unmerge_adapter();
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  unwrap(false);
  return model.get();
}

Tensor LayerTuner::get_delta_weight(const std::string& layer_path, const std::string& adapter) const {
  check_names({adapter});
  auto layer = std::dynamic_pointer_cast<AdapterLayer>(model->child(layer_path).module());
  check<NameError>(layer != nullptr, "get_delta_weight: '", layer_path, "' has no adapter");
  return layer->get_delta_weight(adapter);
}

std::vector<NamedParameter> LayerTuner::adapter_state(const std::string& name) const {
  std::vector<NamedParameter> out;
  const ModuleSelection& selection = targets(config(name));
  // PEFT saves an adapted embed_tokens or lm_head together with its base weight when the entry is exactly that name or the pattern hits it.
  const auto saves_base = [&](const std::string& path) {
    const std::string last = path.substr(path.rfind('.') + 1);
    if (last != "embed_tokens" && last != "lm_head") return false;
    if (selection.is_pattern()) return selects(selection, path);
    return std::find(selection.names().begin(), selection.names().end(), last) != selection.names().end();
  };
  const std::string prefix(key_prefix());
  for (const auto& [path, layer] : adapter_layers()) {
    if (!layer->has_adapter(name)) continue;
    for (auto& [key, slot] : layer->adapter_parameters(name)) out.emplace_back(prefix + path + "." + key, slot);
    if (saves_base(path)) out.emplace_back(prefix + path + ".base_layer.weight", layer->weight().slot());
  }
  for (auto& entry : saved_module_state(name)) out.push_back(std::move(entry));
  for (const auto& [key, slot] : bias_parameters(name)) out.emplace_back(prefix + key, slot);
  return out;
}

}  // namespace cambium
