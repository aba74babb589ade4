// How GGUF files name and lay out the tensors of each architecture. Internal: not installed.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace cambium {

struct GgufArchitecture {
  std::string_view name;         ///< general.architecture
  std::string_view model_type;   ///< of config.json
  std::string_view block;        ///< "model.layers."
  bool permuted_queries = false; ///< rows of q and k are stored for interleaved rotation
  bool transposed = false;       ///< projections are stored (out, in) where the model has (in, out)
  std::span<const std::pair<std::string_view, std::string_view>> names;        ///< of the model, without ".weight"
  std::span<const std::pair<std::string_view, std::string_view>> block_names;  ///< of one block
};

/// Null for an architecture that is not known.
const GgufArchitecture* gguf_architecture(std::string_view name);
std::string known_gguf_architectures();

/// The architecture whose files hold models of this model_type; null if there is none.
const GgufArchitecture* gguf_architecture_of_model(std::string_view model_type);
/// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; nothing for a name that the architecture does not have.
std::optional<std::string> gguf_name(const GgufArchitecture& architecture, std::string_view huggingface_name);
/// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; nothing for a name that the architecture does not have.
std::optional<std::string> huggingface_name(const GgufArchitecture& architecture, std::string_view gguf_name);

}  // namespace cambium
