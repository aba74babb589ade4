// Adapters by name: adding, switching, taking out, and copies of modules.
#include "peft/tuner.h"

#include <algorithm>

namespace cambium {

namespace {

/// The head that a task trains in full besides the adapter, by the names it has in the families.
std::vector<std::string> heads_of(std::optional<TaskType> task) {
  if (task == TaskType::SEQ_CLS || task == TaskType::TOKEN_CLS) return {"classifier", "score"};
  if (task == TaskType::QUESTION_ANS) return {"qa_outputs"};
  return {};
}

/// modules_to_save with the heads of the task, each name once.
std::vector<std::string> complete_modules_to_save(PeftConfig& config) {
  return std::visit([](auto& c) {
    std::vector<std::string> names;
    const auto take = [&](const std::vector<std::string>& more) {
      for (const std::string& name : more)
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    if (c.modules_to_save) take(*c.modules_to_save);
    take(heads_of(c.task_type));
    if (c.modules_to_save || !names.empty()) c.modules_to_save = names;
    return names;
  }, config);
}

}  // namespace

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

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

void Tuner::inject_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) {
  check<NameError>(!name.empty() && name.find_first_of("./") == std::string::npos, "adapter name '", name, "' is empty or holds a dot or a slash");
  check<NameError>(!has_adapter(name), "there is an adapter '", name, "' already");
  PeftConfig completed = config;
  const std::size_t warnings_before = warnings_.size();
  std::vector<std::pair<std::shared_ptr<ParameterSlot>, Tensor>> before;  // adapters that change the base (PiSSA) put another tensor into its slots
  for (const auto& [path, slot] : model->named_parameters()) before.emplace_back(slot, slot->tensor);
  try {
    const std::vector<std::string> entries = complete_modules_to_save(completed);
    make_adapter(name, completed, options);
    add_saved_modules(name, entries, options);
  } catch (...) {
    strip_all(name);
    for (const auto& [slot, tensor] : before) slot->tensor = tensor;
    warnings_.resize(warnings_before);
    throw;
  }
  configs_.emplace_back(name, completed);
  config = completed;
  if (configs_.size() == 1) set_adapter({name});
  else set_requires_grad({name}, false);  // it is not active; what the others are is left alone
}

void Tuner::add_saved_modules(const std::string& name, const std::vector<std::string>& entries, const AdapterOptions& options) {
  if (entries.empty()) return;
  std::vector<std::pair<std::string, ChildSlot*>> sites;
  std::string skip;
  model->visit_slots([&](const std::string& path, ChildSlot& slot) {
    if (!slot.module() || (!skip.empty() && path.starts_with(skip))) return;
    if (std::none_of(entries.begin(), entries.end(), [&](const std::string& entry) { return path.ends_with(entry); })) return;
    sites.emplace_back(path, &slot);
    skip = path + ".";
  });
  for (const auto& [path, slot] : sites) {
    auto wrapper = std::dynamic_pointer_cast<ModulesToSave>(slot->module());
    if (!wrapper) {
      auto layer = std::dynamic_pointer_cast<Layer>(slot->module());
      check<ConfigError>(layer && !std::dynamic_pointer_cast<AdapterLayer>(layer), "modules_to_save: '", path, "' is a ", slot->module()->type_name(), ", which cannot be trained as a copy");
      wrapper = std::make_shared<ModulesToSave>(layer);
      slot->replace(wrapper);
    }
    wrapper->set_enabled(enabled_);
    wrapper->add_adapter(name, !options.autocast_adapter_dtype);
  }
}

void Tuner::strip_all(const std::string& name) {
  strip(name);
  for (const auto& [path, wrapper] : saved_modules()) {
    if (wrapper->has_adapter(name)) wrapper->delete_adapter(name);
    if (wrapper->empty()) model->child(path).replace(wrapper->original_module.get());
  }
}

void Tuner::take_back(const std::string& name, const std::vector<std::string>& active_before) {
  strip_all(name);
  std::erase_if(configs_, [&](const auto& entry) { return entry.first == name; });
  active_ = active_before;
}

void Tuner::set_adapter(const std::vector<std::string>& names, bool inference_mode) {
  check_names(names);
  check_activation(names);
  const auto wrappers = saved_modules();
  for (const auto& [path, wrapper] : wrappers) {
    const auto copies = std::count_if(names.begin(), names.end(), [&, w = wrapper](const std::string& name) { return w->has_adapter(name); });
    check<StateError>(copies <= 1, path, ": several of the adapters to activate have their own copy of this module: activate one of them");
  }
  activate(names);
  for (const auto& [path, wrapper] : wrappers) wrapper->set_active(names);
  active_ = names;

  for (const auto& [name, slot] : named_parameters()) slot->tensor.set_requires_grad(false);
  if (inference_mode) return;
  for (const std::string& adapter : active_) {
    const bool frozen = std::visit([](const auto& c) { return c.inference_mode; }, config(adapter));
    if (!frozen) set_requires_grad({adapter}, true);
  }
}

void Tuner::set_requires_grad(const std::vector<std::string>& names, bool value) {
  check_names(names);
  for (const std::string& adapter : names) {
    for (const auto& [key, slot] : trained_parameters(adapter)) slot->tensor.set_requires_grad(value);
    for (const auto& [key, slot] : saved_module_state(adapter)) slot->tensor.set_requires_grad(value);
  }
}

void Tuner::enable_adapter_layers() {
  enabled_ = true;
  for (const auto& [path, wrapper] : saved_modules()) wrapper->set_enabled(true);
}

void Tuner::disable_adapter_layers() {
  enabled_ = false;
  for (const auto& [path, wrapper] : saved_modules()) wrapper->set_enabled(false);
}

void Tuner::delete_adapter(const std::string& name) {
  check_names({name});
  const std::vector<std::string> merged = merged_adapters();
  check<StateError>(std::find(merged.begin(), merged.end(), name) == merged.end(), "delete_adapter: '", name, "' is merged: unmerge it first");
  strip_all(name);
  std::erase_if(configs_, [&](const auto& entry) { return entry.first == name; });
  if (std::erase(active_, name) == 0) return;
  if (active_.empty() && !configs_.empty()) {
    std::vector<std::string> left = adapters();
    active_ = {*std::min_element(left.begin(), left.end())};
    warn("delete_adapter: '" + name + "' was active: '" + active_.front() + "' is active now");
  }
  set_adapter(std::vector<std::string>(active_));
}

void Tuner::merge_adapter(const std::vector<std::string>&, bool) { fail<StateError>("merge_adapter: a ", type_name(), " changes no weights: there is nothing to merge"); }

void Tuner::unmerge_adapter() { fail<StateError>("unmerge_adapter: a ", type_name(), " changes no weights: nothing was merged"); }

std::shared_ptr<PretrainedModel> Tuner::merge_and_unload(bool, const std::vector<std::string>&) {
  fail<StateError>("merge_and_unload: a ", type_name(), " changes no weights: there is nothing to merge: use unload() for the base model");
}

Tensor Tuner::get_delta_weight(const std::string&, const std::string&) const { fail<StateError>("get_delta_weight: a ", type_name(), " changes no weights"); }

std::shared_ptr<PretrainedModel> Tuner::unload() {
  for (const std::string& name : adapters()) strip(name);
  unwrap_saved_modules(false);
  for (const auto& [name, slot] : model->named_parameters()) slot->tensor.set_requires_grad(false);
  forget_adapters();
  return model.get();
}

void Tuner::unwrap_saved_modules(bool keep_copies) {
  for (const auto& [path, wrapper] : saved_modules()) {
    const std::shared_ptr<Layer> module = keep_copies ? wrapper->active_module() : wrapper->original_module.get();
    model->child(path).replace(module);
  }
}

void Tuner::forget_adapters() {
  configs_.clear();
  active_.clear();
  enabled_ = true;
}

void Tuner::warn_once(const std::string& text) const {
  const std::lock_guard lock(warning_);
  if (std::find(warnings_.begin(), warnings_.end(), text) == warnings_.end()) warnings_.push_back(text);
}

std::vector<NamedParameter> Tuner::saved_module_state(const std::string& name) const {
  std::vector<NamedParameter> out;
  for (const auto& [path, wrapper] : saved_modules())
    if (wrapper->has_adapter(name))
      for (const auto& [key, slot] : wrapper->adapter_parameters(name)) out.emplace_back(std::string(key_prefix()) + path + "." + key, slot);
  return out;
}

std::vector<NamedTensor> Tuner::adapter_tensors(const std::string& name) const {
  std::vector<NamedTensor> out;
  for (const auto& [key, slot] : adapter_state(name)) out.emplace_back(key, contiguous(detach(slot->tensor)));
  return out;
}

}  // namespace cambium
