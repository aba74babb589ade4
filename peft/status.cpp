// Status reports.
#include "peft/status.h"

#include <algorithm>

namespace cambium {

namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); }

/// "true", "false", or "irregular" when both occur; "" for nothing.
class Agreement {
 public:
  void add(bool value) { (value ? yes_ : no_) = true; }
  std::string text() const { return yes_ && no_ ? "irregular" : yes_ ? "true" : no_ ? "false" : ""; }

 private:
  bool yes_ = false, no_ = false;
};

/// The adapters among `names` that are in the state in every layer that has them; {"irregular"} when one is in some of its layers only.
template <class InState>
std::vector<std::string> common(const std::vector<LayerStatus>& layers, const std::vector<std::string>& names, InState in_state) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    Agreement agreement;
    for (const LayerStatus& layer : layers)
      if (contains(layer.available_adapters, name)) agreement.add(contains(in_state(layer), name));
    if (agreement.text() == "irregular") return {"irregular"};
    if (agreement.text() == "true") out.push_back(name);
  }
  return out;
}

}  // namespace

std::vector<LayerStatus> get_layer_status(const Tuner& tuner) {
  std::vector<LayerStatus> out;
  for (const auto& [path, layer] : tuner.adapter_layers()) {
    LayerStatus status{path, std::string(layer->type_name()), layer->enabled(), {}, layer->merged_adapters(), layer->adapters(), {}};
    for (const std::string& name : layer->active())
      if (layer->has_adapter(name)) status.active_adapters.push_back(name);
    for (const std::string& name : layer->adapters()) {
      bool all = true;
      for (const auto& [key, slot] : layer->adapter_parameters(name)) all = all && slot->tensor.requires_grad();
      status.requires_grad.emplace_back(name, all);
    }
    out.push_back(std::move(status));
  }
  return out;
}

ModelStatus get_model_status(const Tuner& tuner) {
  const std::vector<LayerStatus> layers = get_layer_status(tuner);
  ModelStatus out;
  out.base_model_type = tuner.model->type_name();
  out.adapter_model_type = tuner.type_name();
  out.available_adapters = tuner.adapters();
  for (const std::string& name : out.available_adapters) out.peft_types.emplace_back(name, peft_type_of(tuner.config(name)));
  for (const auto& [name, slot] : tuner.named_parameters()) {
    out.total_params += slot->tensor.count();
    if (slot->tensor.requires_grad()) out.trainable_params += slot->tensor.count();
  }
  out.num_adapter_layers = static_cast<std::int64_t>(layers.size());
  Agreement enabled;
  for (const LayerStatus& layer : layers) enabled.add(layer.enabled);
  out.enabled = layers.empty() ? (tuner.enabled() ? "true" : "false") : enabled.text();
  out.active_adapters = layers.empty() ? tuner.active_adapters() : common(layers, out.available_adapters, [](const LayerStatus& layer) { return layer.active_adapters; });
  out.merged_adapters = common(layers, out.available_adapters, [](const LayerStatus& layer) { return layer.merged_adapters; });
  for (const std::string& name : out.available_adapters) {
    Agreement trained;
    for (const LayerStatus& layer : layers)
      for (const auto& [adapter, flag] : layer.requires_grad)
        if (adapter == name) trained.add(flag);
    out.requires_grad.emplace_back(name, trained.text());
  }
  return out;
}

}  // namespace cambium
