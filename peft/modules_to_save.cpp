// Copies of modules, one per adapter.
#include "peft/modules_to_save.h"

#include <algorithm>

#include "peft/mixed_batch.h"

namespace cambium {

namespace {

/// The type of a module's first parameter, or that of x for one without any.
DType parameter_type(const Module& module, const Tensor& x) {
  const auto parameters = module.named_parameters();
  return parameters.empty() ? x.dtype() : parameters.front().second->tensor.dtype();
}

Tensor in_float_type(const Tensor& x, DType dtype) { return is_float(x.dtype()) ? to_dtype(x, dtype) : x; }

}  // namespace

Tensor ModulesToSave::forward(const Tensor& x, const ForwardContext& context) const {
  if (!context.adapter_names.empty()) return forward_by_rows(*this, x, context, [this](const std::string& name) { return has_adapter(name); });
  const Layer& layer = chosen(context);
  if (&layer == original_module.get().get()) return layer.forward(x, context);
  return in_float_type(layer.forward(in_float_type(x, parameter_type(layer, x)), context), parameter_type(*original_module, x));
}

Tensor ModulesToSave::forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const {
  if (!context.adapter_names.empty()) return Layer::forward_loss(hidden, targets, count, context);
  const Layer& layer = chosen(context);
  return layer.forward_loss(in_float_type(hidden, parameter_type(layer, hidden)), targets, count, context);
}

Child<Layer>* ModulesToSave::find(const std::string& name) const {
  for (const auto& slot : modules_to_save_->slots)
    if (slot->name() == name) return slot.get();
  return nullptr;
}

void ModulesToSave::add_adapter(const std::string& name, bool keep_dtype) {
  check<StateError>(!has_adapter(name), path(), ": there is a copy for adapter '", name, "' already");
  const std::shared_ptr<Layer> copy = std::dynamic_pointer_cast<Layer>(original_module->copy());
  check<ConfigError>(copy != nullptr, path(), ": modules_to_save: a ", original_module->type_name(), " cannot be trained as a copy");
  if (!keep_dtype)
    for (const auto& [parameter, slot] : copy->named_parameters())
      if (item_size(slot->tensor.dtype()) == 2) slot->tensor = slot->tensor.is_meta() ? meta(slot->tensor.shape(), DType::f32) : to_dtype(detach(slot->tensor), DType::f32);
  modules_to_save_->slots.push_back(std::make_unique<Child<Layer>>(*modules_to_save_, name, copy));
}

void ModulesToSave::delete_adapter(const std::string& name) {
  std::erase_if(modules_to_save_->slots, [&](const auto& slot) { return slot->name() == name; });
  std::erase(active_, name);
}

std::shared_ptr<Layer> ModulesToSave::copy_of(const std::string& name) const {
  const Child<Layer>* found = find(name);
  check<NameError>(found != nullptr, path(), ": no copy for adapter '", name, "'");
  return found->get();
}

void ModulesToSave::set_active(const std::vector<std::string>& names) {
  const auto copies = std::count_if(names.begin(), names.end(), [&](const std::string& name) { return has_adapter(name); });
  check<StateError>(copies <= 1, path(), ": several of the adapters to activate have their own copy of this module: activate one of them");
  active_ = names;
}

std::shared_ptr<Layer> ModulesToSave::active_module() const {
  for (const std::string& name : active_)
    if (const Child<Layer>* found = find(name)) return found->get();
  return original_module.get();
}

const Layer& ModulesToSave::chosen(const ForwardContext& context) const {
  if (context.override_adapters || enabled_)
    for (const std::string& name : context.override_adapters ? context.adapters : active_)
      if (const Child<Layer>* found = find(name)) return **found;
  return *original_module;
}

std::vector<NamedParameter> ModulesToSave::adapter_parameters(const std::string& adapter) const { return copy_of(adapter)->named_parameters(); }

LinearLike& ModulesToSave::matrix() const {
  auto* linear = dynamic_cast<LinearLike*>(active_module().get());
  check<StateError>(linear != nullptr, path(), ": a ", original_module->type_name(), " has no matrix");
  return *linear;
}

}  // namespace cambium
