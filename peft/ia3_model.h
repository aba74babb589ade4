// IA3Model: a base model with IA3 adapters.
#pragma once

#include "peft/ia3.h"
#include "peft/layer_tuner.h"

namespace cambium {

class IA3Model final : public LayerTuner {
 public:
  using LayerTuner::LayerTuner;
  std::string_view type_name() const override { return "IA3Model"; }

  std::vector<std::pair<std::string, IA3Layer*>> ia3_layers() const;

 protected:
  Plan plan(PeftConfig& config) override;
  bool supports(const Module& module) const override { return dynamic_cast<const LinearLike*>(&module) != nullptr; }
  std::string supported_kinds() const override { return "Linear and Conv1D"; }
  std::shared_ptr<AdapterLayer> wrap(const std::string& path, std::shared_ptr<Layer> base, const PeftConfig& config) const override;
  void add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const override;
  void adjust(PeftConfig& config, std::optional<bool> transposed_weights) override;
};

}  // namespace cambium
