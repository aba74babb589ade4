// PeftModel: a base model with adapters, and the calls that users of PEFT know.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/models/model.h"
#include "peft/combine.h"
#include "peft/config.h"
#include "peft/ia3_model.h"
#include "peft/lora_model.h"
#include "peft/mixed_batch.h"
#include "peft/save_load.h"
#include "peft/status.h"

namespace cambium {

struct PeftModelOptions {
  std::string adapter_name = "default";
  bool autocast_adapter_dtype = true;
  RandomKey key{};  ///< of the adapters' initial values
  /// For prompt_tuning_init TEXT: see AdapterOptions.
  std::vector<std::int64_t> prompt_text_ids = {};
  std::optional<Tokenizer> tokenizer = std::nullopt;
};

class PeftModel : public Module {
 public:
  std::string_view type_name() const override { return "PeftModel"; }
  Child<Tuner> base_model{*this, "base_model"};

  PeftModel(std::shared_ptr<PretrainedModel> base, PeftConfig config, const PeftModelOptions& options = {});

  /// Loads the adapter in `folder` onto a base model. Frozen unless `is_trainable`.
  static PeftModel from_pretrained(std::shared_ptr<PretrainedModel> base, const std::string& folder, const std::string& adapter_name = "default", AdapterLoadOptions options = {}) {
    return PeftModel(std::move(base), folder, adapter_name, options);
  }

  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const;
  /// As cambium::generate(), with the active adapter; for prompts and prefixes, too, which generate() of model() knows nothing of.
  std::vector<std::vector<std::int64_t>> generate(const Tensor& input_ids, const Tensor& attention_mask = {}, const GenerationOptions& options = {}, const ForwardContext& context = {}) const {
    check_adapter_names(*base_model, context, input_ids.size(0));
    return base_model->generate(input_ids, attention_mask, options, context);
  }
  std::vector<std::int64_t> generate(const std::vector<std::int64_t>& input_ids, const GenerationOptions& options = {}, const ForwardContext& context = {}) const;
  PretrainedModel& model() const { return *base_model->model; }
  LoraModel& lora() const;  ///< StateError when the method is another one
  IA3Model& ia3() const;

  void add_adapter(const std::string& name, PeftConfig config, const AdapterOptions& options = {});
  LoadReport load_adapter(const std::string& folder, const std::string& name, const AdapterLoadOptions& options = {}) { return cambium::load_adapter(*base_model, folder, name, options); }
  void set_adapter(const std::string& name) { base_model->set_adapter({name}); }
  void set_adapter(const std::vector<std::string>& names) { base_model->set_adapter(names); }
  void set_requires_grad(const std::vector<std::string>& names, bool value);  ///< StateError for prompts, as in PEFT: set_adapter() decides there
  void delete_adapter(const std::string& name) { base_model->delete_adapter(name); }
  void enable_adapter_layers() { base_model->enable_adapter_layers(); }
  void disable_adapter_layers() { base_model->disable_adapter_layers(); }
  void merge_adapter(const std::vector<std::string>& names = {}, bool safe_merge = false) { base_model->merge_adapter(names, safe_merge); }
  void unmerge_adapter() { base_model->unmerge_adapter(); }
  std::shared_ptr<PretrainedModel> merge_and_unload(bool safe_merge = false, const std::vector<std::string>& names = {}) { return base_model->merge_and_unload(safe_merge, names); }
  std::shared_ptr<PretrainedModel> unload() { return base_model->unload(); }
  Tensor get_delta_weight(const std::string& layer_path, const std::string& adapter) const { return base_model->get_delta_weight(layer_path, adapter); }
  /// Several adapters into a new one, frozen and not active (peft/combine.h). On any error the model is as it was.
  CombinationReport add_weighted_adapter(const std::vector<std::string>& adapters, const std::vector<double>& weights, const std::string& name, const CombineOptions& options = {}) {
    return cambium::add_weighted_adapter(*base_model, adapters, weights, name, options);
  }
  CombinationReport add_weighted_adapter(const std::vector<std::string>& adapters, const std::vector<double>& weights, const std::string& name, const std::string& combination_type) {
    return add_weighted_adapter(adapters, weights, name, CombineOptions{.combination_type = combination_type});
  }

  const PeftConfig& peft_config(const std::string& name) const { return base_model->config(name); }
  std::vector<std::string> adapters() const { return base_model->adapters(); }
  const std::vector<std::string>& active_adapters() const { return base_model->active_adapters(); }
  std::vector<LayerStatus> get_layer_status() const;  ///< StateError for prompts, which wrap no layers
  ModelStatus get_model_status() const { return cambium::get_model_status(*base_model); }

  /// Parameters that an optimizer is to train, with their full names.
  std::vector<NamedParameter> trainable_parameters() const;
  std::int64_t trainable_parameter_count() const;
  /// "trainable params: 460,800 || all params: 134,975,808 || trainable%: 0.3414"
  std::string trainable_parameters_line() const;
  void print_trainable_parameters() const;  ///< writes that line to standard output

  /// The adapter `default` goes into `folder`, every other into a sub-folder of its name. `selected` empty: all.
  void save_pretrained(const std::string& folder, const std::vector<std::string>& selected = {}, const AdapterSaveOptions& options = {}) const;

 private:
  PeftModel(std::shared_ptr<PretrainedModel> base, const std::string& folder, const std::string& adapter_name, const AdapterLoadOptions& options);
};

/// The base model's output without adapters for as long as it lives; then the state is as it was.
class DisableAdapter {
 public:
  explicit DisableAdapter(PeftModel& model) : model_(model), before_(model.base_model->enabled()) { model.disable_adapter_layers(); }
  ~DisableAdapter() {
    if (before_) model_.enable_adapter_layers();
  }
  DisableAdapter(const DisableAdapter&) = delete;
  DisableAdapter& operator=(const DisableAdapter&) = delete;

 private:
  PeftModel& model_;
  bool before_;
};

/// Wraps a base model, which is changed: its targeted layers now carry the adapter. The result cannot be moved, but it can be returned and kept with auto.
inline PeftModel get_peft_model(std::shared_ptr<PretrainedModel> base, PeftConfig config, const PeftModelOptions& options = {}) {
  return PeftModel(std::move(base), std::move(config), options);
}

}  // namespace cambium
