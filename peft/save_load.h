// PEFT adapter folders: adapter_config.json, adapter_model.safetensors, README.md, written and read as huggingface/peft does.
#pragma once

#include <string>
#include <vector>

#include "peft/tuner.h"

namespace cambium {

/// What happened to the tensors of an adapter file.
struct LoadReport {
  std::vector<std::string> missing;     ///< the model wants them, the file has none
  std::vector<std::string> unexpected;  ///< the file has them, the model has no place
  std::vector<std::string> mismatched;  ///< shapes differ
  bool complete() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
};

struct AdapterLoadOptions {
  bool is_trainable = false;
  bool strict = true;  ///< an incomplete report is an error; else what fits is loaded and the report tells the rest
  AdapterOptions adapter;
};

struct AdapterSaveOptions {
  /// The folder of this adapter as it was initialised: an adapter of init_lora_weights "pissa" or "olora" is then written as plain LoRA of twice the rank for the untouched base.
  std::optional<std::string> path_initial_model_for_weight_conversion = std::nullopt;
};

/// The three files of an adapter's folder; keys with their prefix. Each file is written beside its name and renamed, so a failure leaves no half file.
void write_adapter_folder(const PeftConfig& config, const std::vector<NamedTensor>& tensors, const std::string& folder);
/// Writes one adapter's folder, and for a prompt that is trained `prompt_encoder.safetensors` with its encoder, which PEFT ignores. Each file is written beside its name and renamed, so a failure leaves no half file.
void save_adapter(const Tuner& tuner, const std::string& adapter, const std::string& folder, const AdapterSaveOptions& options = {});

/// Adds the adapter in `folder` under the given name. Keys may lack the prefix `base_model.model.`, hold an adapter's name (`lora_A.default.weight`), and spell biases as
/// PEFT 0.4 did (`q_proj.bias`). A prompt can be trained on only if `prompt_encoder.safetensors` is there (StateError). A GGUF LoRA adapter (`x.gguf`) is taken like a folder.
/// On any error the model is as it was.
LoadReport load_adapter(Tuner& tuner, const std::string& folder, const std::string& name, const AdapterLoadOptions& options = {});

/// The same from a configuration and tensors with file keys that are at hand.
LoadReport add_adapter_with_state(Tuner& tuner, const std::string& name, PeftConfig config, const std::vector<NamedTensor>& tensors, const AdapterLoadOptions& options = {});

/// Puts tensors with file keys into an adapter that is there; nothing is changed when the report is incomplete and `strict` is set.
LoadReport set_adapter_state(Tuner& tuner, const std::string& adapter, const std::vector<NamedTensor>& tensors, bool strict);

}  // namespace cambium
