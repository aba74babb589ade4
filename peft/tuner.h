// Tuner: a base model with named adapters of one method, as PeftModel and the files see it. What wraps layers derives through LayerTuner, prompts through PromptTuner.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nn/generation.h"
#include "nn/models/model.h"
#include "nn/text/tokenizer.h"
#include "peft/adapter_layer.h"
#include "peft/config.h"
#include "peft/modules_to_save.h"

namespace cambium {

struct AdapterOptions {
  bool autocast_adapter_dtype = true;  ///< adapters of a 16-bit base in float32
  RandomKey key{};                     ///< of the initial values
  /// For a prompt that starts as a text: its ids, or what makes them of prompt_tuning_init_text. Neither: the tokenizer that the configuration names.
  std::vector<std::int64_t> prompt_text_ids = {};
  std::optional<Tokenizer> tokenizer = std::nullopt;
  bool from_file = false;              ///< values come from a file next: initial ones that cost something are not made
};

class Tuner : public Module {
 public:
  Child<PretrainedModel> model{*this, "model"};

  explicit Tuner(std::shared_ptr<PretrainedModel> base) { model.set(std::move(base)); }

  /// Adds an adapter; the first one becomes active. The configuration is completed (targets from the table, sizes from the model's configuration, heads of the task among
  /// modules_to_save, …). On any error the model is as it was.
  void inject_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options);

  /// The base model with the active adapter, or with what the context names instead.
  virtual ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const { return model->forward(input, context); }

  /// Continues texts as cambium::generate() does, with the active adapter.
  virtual std::vector<std::vector<std::int64_t>> generate(const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options = {},
                                                          const ForwardContext& context = {}) const {
    return cambium::generate(*model, input_ids, attention_mask, options, context);
  }

  /// Adapted layers with their paths below the base model, in order of declaration; none for prompts.
  std::vector<std::pair<std::string, AdapterLayer*>> adapter_layers() const;
  std::vector<std::pair<std::string, ModulesToSave*>> saved_modules() const;

  std::vector<std::string> adapters() const;
  bool has_adapter(const std::string& name) const;
  const PeftConfig& config(const std::string& name) const;  ///< NameError listing what is there
  const std::vector<std::string>& active_adapters() const { return active_; }
  std::vector<std::string> merged_adapters() const;
  bool enabled() const { return enabled_; }

  /// Makes exactly these active, in this order, and their parameters trainable unless `inference_mode` (theirs or the argument's) forbids; others are frozen.
  void set_adapter(const std::vector<std::string>& names, bool inference_mode = false);
  void set_requires_grad(const std::vector<std::string>& names, bool value);
  virtual void enable_adapter_layers();
  virtual void disable_adapter_layers();
  /// If it was the only active one, the alphabetically first of the others becomes active. StateError while it is merged.
  void delete_adapter(const std::string& name);
  /// Undoes inject_adapter() for an adapter that could not be completed.
  void take_back(const std::string& name, const std::vector<std::string>& active_before);

  /// Names empty: the active ones. A name that does not exist is a NameError. StateError for methods that change no weights.
  virtual void merge_adapter(const std::vector<std::string>& names = {}, bool safe_merge = false);
  virtual void unmerge_adapter();
  /// Takes the adapters out and gives the base model back, with or without what they learned.
  virtual std::shared_ptr<PretrainedModel> merge_and_unload(bool safe_merge = false, const std::vector<std::string>& names = {});
  virtual std::shared_ptr<PretrainedModel> unload();
  /// What the adapter adds to the weight of one layer, in the weight's layout.
  virtual Tensor get_delta_weight(const std::string& layer_path, const std::string& adapter) const;

  /// The parameters that an adapter's file holds, under their keys there ("base_model.model.….lora_A.weight").
  virtual std::vector<NamedParameter> adapter_state(const std::string& name) const = 0;
  /// What is written: adapter_state(), unless the file holds what is computed from the parameters.
  virtual std::vector<NamedTensor> adapter_tensors(const std::string& name) const;
  /// What training needs to go on and adapter_state() lacks, for a file of ours beside PEFT's; empty for methods whose file says it all.
  virtual std::vector<NamedParameter> encoder_state(const std::string&) const { return {}; }
  /// Whether the adapter's file holds only what its encoder gave, so that training goes on from encoder_state() alone.
  virtual bool is_prompt_learning() const { return false; }
  /// What the method puts before the path of a module of the base in a file.
  virtual std::string_view key_prefix() const = 0;
  /// What was done otherwise than asked for, each once. Not to be read while a forward runs.
  const std::vector<std::string>& warnings() const { return warnings_; }

 protected:
  /// The method's part of inject_adapter(): completes the configuration and makes what it needs. On an error strip() is called.
  virtual void make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) = 0;
  /// Takes out what make_adapter() made, also if it came half the way.
  virtual void strip(const std::string& name) = 0;
  /// Checks that these can be active together, before anything is changed.
  virtual void check_activation(const std::vector<std::string>&) const {}
  virtual void activate(const std::vector<std::string>&) {}
  /// What of an adapter is trained, but for its copies of modules.
  virtual std::vector<NamedParameter> trained_parameters(const std::string& name) const = 0;
  /// Copies of modules with the keys that they have in the adapter's file.
  std::vector<NamedParameter> saved_module_state(const std::string& name) const;
  /// Puts the base model's modules back in place of copies: the active copy, or the original.
  void unwrap_saved_modules(bool keep_copies);
  void forget_adapters();
  void check_names(const std::vector<std::string>& names) const;
  void warn(std::string text) { warnings_.push_back(std::move(text)); }
  void warn_once(const std::string& text) const;  ///< also from a forward, of which several may run at once

 private:
  void add_saved_modules(const std::string& name, const std::vector<std::string>& entries, const AdapterOptions& options);
  void strip_all(const std::string& name);

  std::vector<std::pair<std::string, PeftConfig>> configs_;
  std::vector<std::string> active_;
  mutable std::vector<std::string> warnings_;
  mutable std::mutex warning_;
  bool enabled_ = true;
};

/// "a, b", or "none".
std::string listed(const std::vector<std::string>& names);

}  // namespace cambium
