// Tuner: the tree around a base model whose layers carry adapters. LoRA derives from it; what does not depend on the method lives here.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/model.h"
#include "peft/adapter_layer.h"
#include "peft/config.h"
#include "peft/modules_to_save.h"

namespace cambium {

struct AdapterOptions {
  bool autocast_adapter_dtype = true;  ///< adapters of a 16-bit base in float32
  RandomKey key{};                     ///< of the initial values
};

class Tuner : public Module {
 public:
  Child<PretrainedModel> model{*this, "model"};

  explicit Tuner(std::shared_ptr<PretrainedModel> base) { model.set(std::move(base)); }

  /// Wraps the layers that the configuration means and adds an adapter to each; the first adapter becomes active. The configuration is completed (targets from the table,
  /// "all-linear" resolved, fan_in_fan_out corrected). On any error the model is as it was.
  void inject_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options);

  /// Adapted layers with their paths below the base model, in order of declaration.
  std::vector<std::pair<std::string, AdapterLayer*>> adapter_layers() const;
  std::vector<std::pair<std::string, ModulesToSave*>> saved_modules() const;

  std::vector<std::string> adapters() const;
  bool has_adapter(const std::string& name) const;
  const PeftConfig& config(const std::string& name) const;  ///< NameError listing what is there
  const std::vector<std::string>& active_adapters() const { return active_; }
  std::vector<std::string> merged_adapters() const;
  bool enabled() const { return enabled_; }

  /// Makes exactly these active, in this order, and their parameters trainable unless `inference_mode` (theirs or the argument's) forbids; others are frozen.
  /// Merged layers are unmerged first.
  void set_adapter(const std::vector<std::string>& names, bool inference_mode = false);
  void set_requires_grad(const std::vector<std::string>& names, bool value);
  void enable_adapter_layers();
  void disable_adapter_layers();
  /// Names empty: the active ones. A name that does not exist is a NameError.
  void merge_adapter(const std::vector<std::string>& names = {}, bool safe_merge = false);
  void unmerge_adapter();
  /// If it was the only active one, the alphabetically first of the others becomes active. StateError while it is merged.
  void delete_adapter(const std::string& name);
  /// Undoes inject_adapter() for an adapter that could not be completed; layers left without adapters are unwrapped.
  void take_back(const std::string& name, const std::vector<std::string>& active_before);
  /// Takes the adapters out and gives the base model back, with or without what they learned.
  std::shared_ptr<PretrainedModel> merge_and_unload(bool safe_merge = false, const std::vector<std::string>& names = {});
  std::shared_ptr<PretrainedModel> unload();
  /// What the adapter adds to the weight of one layer, in the weight's layout.
  Tensor get_delta_weight(const std::string& layer_path, const std::string& adapter) const;

  /// What an adapter's file holds, keys without prefix: adapter weights, copies of modules, trained biases, base embeddings that PEFT saves with their adapter.
  std::vector<NamedParameter> adapter_state(const std::string& name) const;
  const std::vector<std::string>& warnings() const { return warnings_; }

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
  virtual std::shared_ptr<AdapterLayer> wrap(std::shared_ptr<LinearLike> base) const = 0;
  virtual void add_to_layer(AdapterLayer& layer, const std::string& path, const std::string& name, const PeftConfig& config, const AdapterOptions& options) const = 0;
  /// Corrects the configuration by what was found ("fan_in_fan_out").
  virtual void adjust(PeftConfig& config, bool transposed_weights) = 0;
  virtual std::string trained_biases(const PeftConfig& config) const = 0;  ///< none, all, lora_only
  void warn(std::string text) { warnings_.push_back(std::move(text)); }

 private:
  struct Site { std::string path; ChildSlot* slot; };
  void check_names(const std::vector<std::string>& names) const;
  std::vector<Site> find_sites(const Plan& plan, const std::string& method) const;
  void apply_trainability(bool inference_mode);
  void strip(const std::string& name);
  void unwrap(bool keep_copies);
  std::vector<NamedParameter> bias_parameters(const std::string& adapter) const;

  std::vector<std::pair<std::string, PeftConfig>> configs_;
  std::vector<std::string> active_, warnings_;
  bool enabled_ = true;
};

}  // namespace cambium
