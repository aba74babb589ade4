// LoraModel: a base model with LoRA adapters.
#pragma once

#include "peft/layer_tuner.h"
#include "peft/lora.h"

namespace cambium {

class TrainableTokens;  // peft/trainable_tokens.h

class LoraModel final : public LayerTuner {
 public:
  using LayerTuner::LayerTuner;
  std::string_view type_name() const override { return "LoraModel"; }

  std::vector<std::pair<std::string, LoraLayer*>> lora_layers() const;

 protected:
  Plan plan(PeftConfig& config) override;
  bool supports(const Module& module) const override { return AdapterLayer::supports(module); }
  std::string supported_kinds() const override { return "Linear, Conv1D and Embedding"; }
  std::shared_ptr<AdapterLayer> wrap(const std::string& path, std::shared_ptr<Layer> base, const PeftConfig& config) const override;
  void add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const override;
  void adjust(PeftConfig& config, std::optional<bool> transposed_weights) override;
  std::string trained_biases(const PeftConfig& config) const override { return std::get<LoraConfig>(config).bias; }
  /// With trained rows the table is the base's own.
  bool saves_embeddings(const PeftConfig& config) const override { return !std::get<LoraConfig>(config).trainable_token_indices.given(); }
  void make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) override;
  void check_activation(const std::vector<std::string>& names) const override;

 private:
  void train_tokens(const std::string& name, const std::string& module, const std::vector<std::int64_t>& tokens, bool keep_dtype);
  std::vector<TrainableTokens*> token_layers() const;
};

/// Multiplies the scaling of all active adapters for as long as it lives; the old values come back also after an exception.
class RescaleAdapterScale {
 public:
  RescaleAdapterScale(LoraModel& model, double factor);
  ~RescaleAdapterScale();
  RescaleAdapterScale(const RescaleAdapterScale&) = delete;
  RescaleAdapterScale& operator=(const RescaleAdapterScale&) = delete;

 private:
  struct Old { LoraLayer* layer; std::string adapter; double scaling; };
  std::vector<Old> old_;
};

}  // namespace cambium
