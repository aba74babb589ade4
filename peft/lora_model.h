// LoraModel: a base model with LoRA adapters.
#pragma once

#include "peft/lora.h"
#include "peft/layer_tuner.h"

namespace cambium {

class LoraModel final : public LayerTuner {
 public:
  using LayerTuner::LayerTuner;
  std::string_view type_name() const override { return "LoraModel"; }

  std::vector<std::pair<std::string, LoraLinear*>> lora_layers() const;

 protected:
  Plan plan(PeftConfig& config) override;
  std::shared_ptr<AdapterLayer> wrap(std::shared_ptr<LinearLike> base) const override { return std::make_shared<LoraLinear>(std::move(base)); }
  void add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const override;
  void adjust(PeftConfig& config, bool transposed_weights) override;
  std::string trained_biases(const PeftConfig& config) const override { return std::get<LoraConfig>(config).bias; }
  const ModuleSelection& targets(const PeftConfig& config) const override { return std::get<LoraConfig>(config).target_modules; }
};

/// Multiplies the scaling of all active adapters for as long as it lives; the old values come back also after an exception.
class RescaleAdapterScale {
 public:
  RescaleAdapterScale(LoraModel& model, double factor);
  ~RescaleAdapterScale();
  RescaleAdapterScale(const RescaleAdapterScale&) = delete;
  RescaleAdapterScale& operator=(const RescaleAdapterScale&) = delete;

 private:
  struct Old { LoraLinear* layer; std::string adapter; double scaling; };
  std::vector<Old> old_;
};

}  // namespace cambium
