// Injection into layers, merging and taking adapters out again.
#include "peft/layer_tuner.h"

#include <algorithm>
#include <map>
#include <set>

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
    check<ConfigError>((supports(*module) || dynamic_cast<AdapterLayer*>(module.get())) && !dynamic_cast<ModulesToSave*>(module.get()), method, ": target '", path, "' is a ",
                       module->type_name(), ": supported are ", supported_kinds());
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
  std::optional<bool> transposed;
  for (const Site& site : sites) {
    const std::shared_ptr<Module> module = site.slot->module();
    const auto* adapted = dynamic_cast<const AdapterLayer*>(module.get());
    const auto* matrix = dynamic_cast<const LinearLike*>(adapted ? adapted->base_layer.get().get() : module.get());
    if (matrix != nullptr && !transposed) transposed = matrix->weight_is_transposed();
  }
  adjust(config, transposed);
  for (const Site& site : sites) {
    std::shared_ptr<Module> module = site.slot->module();
    auto layer = std::dynamic_pointer_cast<AdapterLayer>(module);
    if (!layer) {
      layer = wrap(site.path, std::dynamic_pointer_cast<Layer>(module), config);
      site.slot->replace(layer);
    }
    layer->set_enabled(enabled());
    add_to_layer(*layer, site.path, name, config, options);
  }
}

void LayerTuner::strip(const std::string& name) {
  set_aside_.clear();
  for (const auto& [path, layer] : adapter_layers()) {
    if (layer->has_adapter(name)) layer->delete_adapter(name);
    if (layer->adapters().empty()) model->child(path).replace(layer->base_layer.get());
  }
}

void LayerTuner::activate(const std::vector<std::string>& names) {
  set_aside_.clear();
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
  for (auto& [layer, names] : set_aside_) layer->merge(names, false);
  set_aside_.clear();
}

void LayerTuner::disable_adapter_layers() {
  for (const std::string& name : active_adapters())
    if (trained_biases(config(name)) != "none") warn("disable_adapter_layers: adapter '" + name + "' trained biases of the base in place: outputs are not the base model's");
  Tuner::disable_adapter_layers();
  // A disabled layer uses its original weight without any change, but a module that is tied to it would go on with the merged one.
  std::map<const ParameterSlot*, int> holders;
  model->visit([&](const std::string&, Module& module) {
    for (const Param* p : module.own_parameters()) ++holders[p->slot().get()];
  });
  const auto layers = adapter_layers();
  for (auto at = layers.rbegin(); at != layers.rend(); ++at) {
    AdapterLayer* layer = at->second;
    layer->set_enabled(false);
    if (layer->merged_adapters().empty() || holders[layer->weight().slot().get()] < 2) continue;
    set_aside_.insert(set_aside_.begin(), {layer, layer->merged_adapters()});
    layer->unmerge();
  }
}

std::vector<NamedParameter> LayerTuner::bias_parameters(const std::string& adapter) const {
  const std::string which = trained_biases(config(adapter));
  std::vector<NamedParameter> out;
  if (which == "lora_only") {
    for (const auto& [path, layer] : adapter_layers())
      if (layer->has_adapter(adapter) && layer->has_bias()) out.emplace_back(path + ".base_layer.bias", layer->bias().slot());
  } else if (which == "all") {
    const auto wrappers = saved_modules();
    std::set<std::shared_ptr<ParameterSlot>> own;  // adapters have biases too (lora_bias)
    for (const auto& [path, layer] : adapter_layers())
      for (const std::string& name : layer->adapters())
        for (const auto& [key, slot] : layer->adapter_parameters(name)) own.insert(slot);
    for (auto& [name, slot] : model->named_parameters()) {
      const bool in_wrapper = std::any_of(wrappers.begin(), wrappers.end(), [&, n = &name](const auto& w) { return n->starts_with(w.first + "."); });
      if (is_bias(name) && !in_wrapper && !own.contains(slot)) out.emplace_back(name, slot);
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
  set_aside_.clear();
  const auto layers = adapter_layers();
  for (auto at = layers.rbegin(); at != layers.rend(); ++at) at->second->unmerge();  // what was merged last into a shared weight comes out first
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
  const ModuleSelection& selection = target_modules_of(config(name));
  // PEFT saves an adapted embed_tokens or lm_head together with its base weight when the entry is exactly that name or the pattern hits it.
  const auto saves_base = [&](const std::string& path) {
    const std::string last = path.substr(path.rfind('.') + 1);
    if ((last != "embed_tokens" && last != "lm_head") || !saves_embeddings(config(name))) return false;
    if (selection.is_pattern()) return selects(selection, path);
    return std::find(selection.names().begin(), selection.names().end(), last) != selection.names().end();  // exactly that entry, not a longer path
  };
  const std::string prefix(key_prefix());
  for (const auto& [path, layer] : adapter_layers()) {
    if (!layer->has_adapter(name)) continue;
    for (auto& [key, slot] : layer->adapter_parameters(name)) out.emplace_back(prefix + path + "." + key, slot);
    if (saves_base(path)) out.emplace_back(prefix + path + ".base_layer.weight", layer->weight().slot());
  }
  for (auto& entry : saved_module_state(name)) out.push_back(std::move(entry));
  for (const auto& [key, slot] : bias_parameters(name)) out.emplace_back(prefix + key, slot);
  if (trained_biases(config(name)) == "all")  // PEFT takes every name that ends so: a copied module's bias a second time, and the one of its original, which nobody trains
    for (const auto& [path, wrapper] : saved_modules()) {
      if (!wrapper->has_adapter(name)) continue;
      const auto add = [&, path = path](const char* holder, const Module& module) {
        for (const auto& [key, slot] : module.named_parameters())
          if (is_bias(key)) out.emplace_back(prefix + path + holder + key, slot);
      };
      add(".modules_to_save.", *wrapper->copy_of(name));
      add(".original_module.", *wrapper->original_module);
    }
  return out;
}

std::vector<NamedTensor> LayerTuner::adapter_tensors(const std::string& name) const {
  std::map<const ParameterSlot*, Tensor> originals;
  for (const auto& [path, layer] : adapter_layers()) {
    if (layer->merged_adapters().empty()) continue;
    originals.emplace(layer->weight().slot().get(), layer->unmerged_weight());  // of a shared weight, the layer that merged first has the original
    if (layer->has_bias()) originals.emplace(layer->bias().slot().get(), layer->unmerged_bias());
  }
  std::vector<NamedTensor> out;
  for (const auto& [key, slot] : adapter_state(name)) {
    const auto original = originals.find(slot.get());
    out.emplace_back(key, contiguous(detach(original == originals.end() ? slot->tensor : original->second)));
  }
  return out;
}

void LayerTuner::resolve_all_linear(ModuleSelection& targets, std::optional<TaskType> task) const {
  if (!targets.is_pattern()) return;
  std::string lower = targets.pattern();
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (lower == "all-linear") targets = all_linear_targets(*model, model->output_embedding_path(), task);
}

void LayerTuner::adjust_fan_in_fan_out(bool& fan_in_fan_out, std::optional<bool> transposed_weights) {
  if (!transposed_weights || fan_in_fan_out == *transposed_weights) return;
  warn(concat_text("fan_in_fan_out is set to ", *transposed_weights ? "true: the targets are Conv1D" : "false: the targets are Linear"));
  fan_in_fan_out = *transposed_weights;
}

}  // namespace cambium
