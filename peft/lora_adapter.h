// LoraAdapter: one LoRA adapter as data, apart from any model: what its folder holds, module by module.
#pragma once

#include <string>
#include <vector>

#include "peft/config.h"
#include "peft/tuner.h"

namespace cambium {

struct LoraAdapter {
  /// ΔW = scaling B A of the module `path`: a (r, in), b (out, r). For an embedding in = rows, out = width, and what is added to its table is ΔWᵀ.
  struct Part {
    std::string path;
    bool embedding = false;
    double scaling = 1.0;
    Tensor a, b;
    Tensor bias;       ///< of B, defined with lora_bias
    Tensor magnitude;  ///< defined with DoRA
  };
  std::string where;               ///< folder, file or adapter's name, for messages
  LoraConfig config;
  std::vector<Part> parts;         ///< by path
  std::vector<NamedTensor> others; ///< copies of modules, trained biases, base weights of embeddings, replaced rows: file keys without prefix
};

/// Sorts the tensors of a file (with or without prefix, with or without an adapter's name in the keys) into parts; the scalings are what the configuration says for each rank.
/// NameError for a factor without its partner, ShapeError for factors that do not belong together.
LoraAdapter make_lora_adapter(const LoraConfig& config, const std::vector<NamedTensor>& tensors, const std::string& where);
/// Reads a PEFT folder; nothing of the base model is needed. ConfigError when it holds another method.
LoraAdapter read_lora_adapter(const std::string& folder, std::vector<std::string>* warnings = nullptr);
/// An adapter of a model, with the scalings that its layers have now. The tensors are shared.
LoraAdapter lora_adapter_of(const Tuner& tuner, const std::string& name);

/// The tensors under the keys that a file has.
std::vector<NamedTensor> file_tensors(const LoraAdapter& adapter);
void write_lora_adapter(const LoraAdapter& adapter, const std::string& folder);
/// Adds it to a model as an adapter that is not trained. On any error the model is as it was.
void add_to_model(Tuner& tuner, const std::string& name, const LoraAdapter& adapter, const AdapterOptions& options = {});

}  // namespace cambium
