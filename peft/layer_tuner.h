// LayerTuner: methods whose adapters wrap layers of the base model. LoRA derives from it; what does not depend on the method lives here.
#pragma once

#include "peft/file_keys.h"
#include "peft/tuner.h"

namespace cambium {

class LayerTuner : public Tuner {
 public:
  using Tuner::Tuner;

  void enable_adapter_layers() override;
  void disable_adapter_layers() override;
  void merge_adapter(const std::vector<std::string>& names = {}, bool safe_merge = false) override;
  void unmerge_adapter() override;
  std::shared_ptr<PretrainedModel> merge_and_unload(bool safe_merge = false, const std::vector<std::string>& names = {}) override;
  std::shared_ptr<PretrainedModel> unload() override;
  Tensor get_delta_weight(const std::string& layer_path, const std::string& adapter) const override;

  /// Adapter weights, copies of modules, trained biases, base embeddings that PEFT saves with their adapter.
  std::vector<NamedParameter> adapter_state(const std::string& name) const override;
  /// The same as they are to be written: tensors of the base without what is merged into them.
  std::vector<NamedTensor> adapter_tensors(const std::string& name) const override;
  std::string_view key_prefix() const override { return kKeyPrefix; }

 protected:
  /// What the method knows: the list of fields that decide where adapters go, and how to make one.
  struct Plan {
    ModuleSelection targets, excluded;
    std::optional<std::vector<std::int64_t>> layers;
    std::optional<std::vector<std::string>> layers_pattern;
    std::vector<std::string> modules_to_save;
    bool trains_bias = false;
  };
  virtual Plan plan(PeftConfig& config) = 0;
  /// Whether the method knows what to do with a module of this kind, and the kinds in words.
  virtual bool supports(const Module& module) const = 0;
  virtual std::string supported_kinds() const = 0;
  virtual std::shared_ptr<AdapterLayer> wrap(const std::string& path, std::shared_ptr<Layer> base, const PeftConfig& config) const = 0;
  virtual void add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const = 0;
  /// Corrects the configuration by what was found; whether weights are stored (in, out) is unknown when only embeddings were.
  virtual void adjust(PeftConfig& config, std::optional<bool> transposed_weights) = 0;
  virtual std::string trained_biases(const PeftConfig&) const { return "none"; }  ///< none, all, lora_only
  /// Whether the base weights of adapted embeddings and heads belong into the adapter's file when they are called so.
  virtual bool saves_embeddings(const PeftConfig&) const { return true; }
  /// "all-linear" becomes the list of modules that it means.
  void resolve_all_linear(ModuleSelection& targets, std::optional<TaskType> task) const;
  void adjust_fan_in_fan_out(bool& fan_in_fan_out, std::optional<bool> transposed_weights);

  void make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) override;
  /// Layers left without adapters are unwrapped.
  void strip(const std::string& name) override;
  /// Merged layers are unmerged first.
  void activate(const std::vector<std::string>& names) override;
  std::vector<NamedParameter> trained_parameters(const std::string& name) const override;

 private:
  struct Site { std::string path; ChildSlot* slot; };
  std::vector<Site> find_sites(const Plan& plan, const std::string& method);
  std::vector<NamedParameter> bias_parameters(const std::string& adapter) const;
  void unwrap(bool keep_copies);
  /// Layers that are merged into a weight which another module shares: while adapters are disabled they have to be unmerged in earnest.
  std::vector<std::pair<AdapterLayer*, std::vector<std::string>>> set_aside_;
};

}  // namespace cambium
