// LoRA adapters as GGUF files, as llama.cpp and its kin read them.
#pragma once

#include <string>
#include <vector>

#include "kernels/ggml_types.h"
#include "peft/lora_adapter.h"

namespace cambium {

/// What a base model's config.json, or its equivalent of a GGUF file, has to say for a conversion: names of tensors and the order of rows differ by architecture.
/// `model` is a folder, a config.json or a .gguf file; the answer is the text of the configuration, as in ModelConfig::json.
std::string read_base_config(const std::string& model);

/// The factors of a GGUF adapter in Hugging Face's names and order of rows (those of Llama's q and k lie permuted in GGUF). ConfigError when the file is no LoRA adapter, is for another
/// architecture or has alpha 0; NameError for a tensor that is no factor or belongs to no tensor of the architecture; ShapeError.
LoraAdapter read_gguf_adapter(const std::string& path, const std::string& base_config);

/// Writes it: alpha always, one for all modules (where scaling differs, it goes into B). type: F32, F16, BF16, or Q8_0 for ranks that are multiples of 32.
/// ConfigError for what the format cannot say: DoRA, biases, copies of modules, replaced rows, an adapter on a tied head, modules that the architecture has no name for.
void write_gguf_adapter(const LoraAdapter& adapter, const std::string& base_config, const std::string& path, GgmlType type = GgmlType::f32);

}  // namespace cambium
