// Injection, switching, merging and taking adapters out again.
#include "peft/tuner.h"

#include <algorithm>
#include <set>

#include "peft/targets.h"

namespace cambium {

namespace {

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

std::string described(const ModuleSelection& selection) { return selection.is_pattern() ? "'" + selection.pattern() + "'" : listed(selection.names()); }

/// Whether `entry` stands in the path as complete components, so that the path is inside such a module or is one.
bool inside(const std::string& path, const std::string& entry) { return ("." + path + ".").find("." + entry + ".") != std::string::npos; }

bool is_bias(std::string_view name) { return name == "bias" || name.ends_with(".bias"); }

}  // namespace

std::vector<std::pair<std::string, AdapterLayer*>> Tuner::adapter_layers() const {
  std::vector<std::pair<std::string, AdapterLayer*>> out;
  model->visit([&](const std::string& path, Module& module) {
    if (auto* layer = dynamic_cast<AdapterLayer*>(&module)) out.emplace_back(path, layer);
  });
  return out;
}

std::vector<std::pair<std::string, ModulesToSave*>> Tuner::saved_modules() const {
  std::vector<std::pair<std::string, ModulesToSave*>> out;
  model->visit([&](const std::string& path, Module& module) {
    if (auto* wrapper = dynamic_cast<ModulesToSave*>(&module)) out.emplace_back(path, wrapper);
  });
  return out;
}

std::vector<std::string> Tuner::adapters() const {
  std::vector<std::string> out;
  for (const auto& [name, config] : configs_) out.push_back(name);
  return out;
}

bool Tuner::has_adapter(const std::string& name) const {
  return std::any_of(configs_.begin(), configs_.end(), [&](const auto& entry) { return entry.first == name; });
}

const PeftConfig& Tuner::config(const std::string& name) const {
  check_names({name});
  return std::find_if(configs_.begin(), configs_.end(), [&](const auto& entry) { return entry.first == name; })->second;
}

void Tuner::check_names(const std::vector<std::string>& names) const {
  for (const std::string& name : names) check<NameError>(has_adapter(name), "no adapter '", name, "': there is ", listed(adapters()));
}

std::vector<std::string> Tuner::merged_adapters() const {
  std::vector<std::string> out;
  for (const auto& [path, layer] : adapter_layers())
    for (const std::string& name : layer->merged_adapters())
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  return out;
}

std::vector<Tuner::Site> Tuner::find_sites(const Plan& plan, const std::string& method) const {
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
  for (const std::string& entry : matcher.unused_exclusions(all)) const_cast<Tuner*>(this)->warn("exclude_modules: '" + entry + "' matches no module");
  return sites;
}

void Tuner::inject_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) {
  check<NameError>(!name.empty() && name.find_first_of("./") == std::string::npos, "adapter name '", name, "' is empty or holds a dot or a slash");
  check<NameError>(!has_adapter(name), "there is an adapter '", name, "' already");
  PeftConfig completed = config;
  const std::size_t warnings_before = warnings_.size();
  try {
    const Plan p = plan(completed);
    bool any_bias = p.trains_bias;
    for (const auto& [other, other_config] : configs_) any_bias = any_bias || trained_biases(other_config) != "none";
    check<ConfigError>(configs_.empty() || !any_bias, "adapter '", name, "': only a single adapter may train biases of the base: set bias to none on all");

    const std::vector<Site> sites = find_sites(p, "adapter '" + name + "'");
    const bool transposed = dynamic_cast<LinearLike*>(sites.front().slot->module().get())->weight_is_transposed();
    adjust(completed, transposed);
    for (const Site& site : sites) {
      std::shared_ptr<Module> module = site.slot->module();
      auto layer = std::dynamic_pointer_cast<AdapterLayer>(module);
      if (!layer) {
        layer = wrap(std::dynamic_pointer_cast<LinearLike>(module));
        site.slot->replace(layer);
      }
      layer->set_enabled(enabled_);
      add_to_layer(*layer, site.path, name, completed, options);
    }
    if (!p.modules_to_save.empty()) {
      std::vector<Site> kept;
      std::string skip;
      model->visit_slots([&](const std::string& path, ChildSlot& slot) {
        if (!slot.module() || (!skip.empty() && path.starts_with(skip))) return;
        if (std::none_of(p.modules_to_save.begin(), p.modules_to_save.end(), [&](const std::string& entry) { return path.ends_with(entry); })) return;
        kept.push_back({path, &slot});
        skip = path + ".";
      });
      for (const Site& site : kept) {
        auto wrapper = std::dynamic_pointer_cast<ModulesToSave>(site.slot->module());
        if (!wrapper) {
          auto layer = std::dynamic_pointer_cast<Layer>(site.slot->module());
          check<ConfigError>(layer && !std::dynamic_pointer_cast<AdapterLayer>(layer), "modules_to_save: '", site.path, "' is a ", site.slot->module()->type_name(), ", which cannot be trained as a copy");
          wrapper = std::make_shared<ModulesToSave>(layer);
          site.slot->replace(wrapper);
        }
        wrapper->set_enabled(enabled_);
        wrapper->add_adapter(name, !options.autocast_adapter_dtype);
      }
    }
  } catch (...) {
    strip(name);
    warnings_.resize(warnings_before);
    throw;
  }
  configs_.emplace_back(name, completed);
  config = completed;
  if (configs_.size() == 1) set_adapter({name});
  else set_requires_grad({name}, false);  // it is not active; what the others are is left alone
}

void Tuner::strip(const std::string& name) {
  for (const auto& [path, layer] : adapter_layers()) {
    if (layer->has_adapter(name)) layer->delete_adapter(name);
    if (layer->adapters().empty()) model->child(path).replace(layer->base_layer.get());
  }
  for (const auto& [path, wrapper] : saved_modules()) {
    if (wrapper->has_adapter(name)) wrapper->delete_adapter(name);
    if (wrapper->empty()) model->child(path).replace(wrapper->original_module.get());
  }
}

void Tuner::take_back(const std::string& name, const std::vector<std::string>& active_before) {
  strip(name);
  std::erase_if(configs_, [&](const auto& entry) { return entry.first == name; });
  active_ = active_before;
}

void Tuner::set_adapter(const std::vector<std::string>& names, bool inference_mode) {
  check_names(names);
  const auto wrappers = saved_modules();
  for (const auto& [path, wrapper] : wrappers) {
    const auto copies = std::count_if(names.begin(), names.end(), [&, w = wrapper](const std::string& name) { return w->has_adapter(name); });
    check<StateError>(copies <= 1, path, ": several of the adapters to activate have their own copy of this module: activate one of them");
  }
  if (!merged_adapters().empty() && names != active_) {
    warn("set_adapter: adapters were merged: they are unmerged first");
    unmerge_adapter();
  }
  for (const auto& [path, layer] : adapter_layers()) layer->set_active(names);
  for (const auto& [path, wrapper] : wrappers) wrapper->set_active(names);
  active_ = names;
  apply_trainability(inference_mode);
}

std::vector<NamedParameter> Tuner::bias_parameters(const std::string& adapter) const {
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

void Tuner::apply_trainability(bool inference_mode) {
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  if (inference_mode) return;
  for (const std::string& adapter : active_) {
    const bool frozen = std::visit([](const auto& c) { return c.inference_mode; }, config(adapter));
    if (!frozen) set_requires_grad({adapter}, true);
  }
}

void Tuner::set_requires_grad(const std::vector<std::string>& names, bool value) {
  check_names(names);
  for (const std::string& adapter : names) {
    for (const auto& [path, layer] : adapter_layers())
      if (layer->has_adapter(adapter))
        for (const auto& [key, slot] : layer->adapter_parameters(adapter)) slot->tensor.set_requires_grad(value);
    for (const auto& [path, wrapper] : saved_modules())
      if (wrapper->has_adapter(adapter))
        for (const auto& [key, slot] : wrapper->adapter_parameters(adapter)) slot->tensor.set_requires_grad(value);
    for (const auto& [key, slot] : bias_parameters(adapter)) slot->tensor.set_requires_grad(value);
  }
}

void Tuner::enable_adapter_layers() {
  enabled_ = true;
  for (const auto& [path, layer] : adapter_layers()) layer->set_enabled(true);
  for (const auto& [path, wrapper] : saved_modules()) wrapper->set_enabled(true);
}

void Tuner::disable_adapter_layers() {
  for (const std::string& name : active_)
    if (trained_biases(config(name)) != "none") warn("disable_adapter_layers: adapter '" + name + "' trained biases of the base in place: outputs are not the base model's");
  enabled_ = false;
  for (const auto& [path, layer] : adapter_layers()) layer->set_enabled(false);
  for (const auto& [path, wrapper] : saved_modules()) wrapper->set_enabled(false);
}

void Tuner::merge_adapter(const std::vector<std::string>& names, bool safe_merge) {
  check_names(names);
  const std::vector<std::string>& chosen = names.empty() ? active_ : names;
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

void Tuner::unmerge_adapter() {
  const auto layers = adapter_layers();
  for (auto at = layers.rbegin(); at != layers.rend(); ++at) at->second->unmerge();
}

void Tuner::delete_adapter(const std::string& name) {
  check_names({name});
  const std::vector<std::string> merged = merged_adapters();
  check<StateError>(std::find(merged.begin(), merged.end(), name) == merged.end(), "delete_adapter: '", name, "' is merged: unmerge it first");
  for (const auto& [path, layer] : adapter_layers())
    if (layer->has_adapter(name)) layer->delete_adapter(name);
  for (const auto& [path, wrapper] : saved_modules())
    if (wrapper->has_adapter(name)) wrapper->delete_adapter(name);
  std::erase_if(configs_, [&](const auto& entry) { return entry.first == name; });
  if (std::erase(active_, name) == 0) return;
  if (active_.empty() && !configs_.empty()) {
    std::vector<std::string> left = adapters();
    active_ = {*std::min_element(left.begin(), left.end())};
    warn("delete_adapter: '" + name + "' was active: '" + active_.front() + "' is active now");
  }
  set_adapter(std::vector<std::string>(active_));
}

void Tuner::unwrap(bool keep_copies) {
  std::vector<std::pair<ChildSlot*, std::shared_ptr<Module>>> replacements;
  model->visit_slots([&](const std::string&, ChildSlot& slot) {
    if (auto* layer = dynamic_cast<AdapterLayer*>(slot.module().get())) replacements.emplace_back(&slot, layer->base_layer.get());
    else if (auto* wrapper = dynamic_cast<ModulesToSave*>(slot.module().get())) replacements.emplace_back(&slot, keep_copies ? wrapper->active_module() : wrapper->original_module.get());
  });
  for (auto& [slot, module] : replacements) slot->replace(module);
  configs_.clear();
  active_.clear();
  enabled_ = true;
}

std::shared_ptr<PretrainedModel> Tuner::merge_and_unload(bool safe_merge, const std::vector<std::string>& names) {
  merge_adapter(names, safe_merge);
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  unwrap(true);
  return model.get();
}

std::shared_ptr<PretrainedModel> Tuner::unload() {
  unmerge_adapter();
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  unwrap(false);
  return model.get();
}

Tensor Tuner::get_delta_weight(const std::string& layer_path, const std::string& adapter) const {
  check_names({adapter});
  auto layer = std::dynamic_pointer_cast<AdapterLayer>(model->child(layer_path).module());
  check<NameError>(layer != nullptr, "get_delta_weight: '", layer_path, "' has no adapter");
  return layer->get_delta_weight(adapter);
}

std::vector<NamedParameter> Tuner::adapter_state(const std::string& name) const {
  std::vector<NamedParameter> out;
  const ModuleSelection& targets = std::visit([](const auto& c) -> const ModuleSelection& { return c.target_modules; }, config(name));
  // PEFT saves an adapted embed_tokens or lm_head together with its base weight when the entry is exactly that name or the pattern hits it.
  const auto saves_base = [&](const std::string& path) {
    const std::string last = path.substr(path.rfind('.') + 1);
    if (last != "embed_tokens" && last != "lm_head") return false;
    if (targets.is_pattern()) return selects(targets, path);
    return std::find(targets.names().begin(), targets.names().end(), last) != targets.names().end();
  };
  for (const auto& [path, layer] : adapter_layers()) {
    if (!layer->has_adapter(name)) continue;
    for (auto& [key, slot] : layer->adapter_parameters(name)) out.emplace_back(path + "." + key, slot);
    if (saves_base(path)) out.emplace_back(path + ".base_layer.weight", layer->weight().slot());
  }
  for (const auto& [path, wrapper] : saved_modules())
    if (wrapper->has_adapter(name))
      for (auto& [key, slot] : wrapper->adapter_parameters(name)) out.emplace_back(path + "." + key, slot);
  for (auto& entry : bias_parameters(name)) out.push_back(entry);
  return out;
}

}  // namespace cambium
