// What adapters a model carries and in which state: layer by layer, and summed up.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "peft/tuner.h"

namespace cambium {

/// One adapted layer.
struct LayerStatus {
  std::string name, module_type;
  bool enabled = true;
  std::vector<std::string> active_adapters, merged_adapters, available_adapters;
  std::vector<std::pair<std::string, bool>> requires_grad;  ///< by adapter: whether all its parameters here are trained
};

/// The whole model. What differs from layer to layer is "irregular", as in PEFT; adapters that a layer lacks do not count as a difference.
struct ModelStatus {
  std::string base_model_type, adapter_model_type;
  std::vector<std::pair<std::string, std::string>> peft_types;  ///< by adapter
  std::int64_t trainable_params = 0, total_params = 0, num_adapter_layers = 0;
  std::string enabled;                                            ///< "true", "false" or "irregular"
  std::vector<std::string> active_adapters, merged_adapters;      ///< {"irregular"} when layers differ
  std::vector<std::pair<std::string, std::string>> requires_grad; ///< by adapter: "true", "false" or "irregular"
  std::vector<std::string> available_adapters;
};

std::vector<LayerStatus> get_layer_status(const Tuner& tuner);
ModelStatus get_model_status(const Tuner& tuner);

}  // namespace cambium
