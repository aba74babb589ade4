// Writes a small model as a GGUF file, with the names and the order of rows that such files have.
#pragma once

#include <string>
#include <vector>

#include "nn/models/gguf_names.h"
#include "nn/models/model.h"
#include "peft/tensor_edit.h"
#include "tensor/gguf_writer.h"
#include "tensor/json.h"

namespace cambium::test {

inline void save_tiny_gguf(const PretrainedModel& model, const std::string& path, GgmlType type = GgmlType::f32) {
  const Json config = parse_json(model.config().json, "config");
  const std::string model_type = config.at("model_type").get<std::string>();
  const GgufArchitecture& architecture = *gguf_architecture_of_model(model_type);
  const std::string prefix = std::string(architecture.name) + ".";
  const auto integer = [&](const char* key) { return config.at(key).get<std::uint32_t>(); };
  GgufMetadata metadata;
  metadata.set("general.architecture", std::string(architecture.name)).set("general.name", "tiny");
  if (model_type == "gpt2") {
    metadata.set(prefix + "embedding_length", integer("n_embd")).set(prefix + "block_count", integer("n_layer")).set(prefix + "attention.head_count", integer("n_head"));
    metadata.set(prefix + "context_length", integer("n_positions")).set(prefix + "feed_forward_length", 4 * integer("n_embd")).set(prefix + "attention.layer_norm_epsilon", 1e-5F);
  } else {
    metadata.set(prefix + "embedding_length", integer("hidden_size")).set(prefix + "block_count", integer("num_hidden_layers"));
    metadata.set(prefix + "attention.head_count", integer("num_attention_heads")).set(prefix + "attention.head_count_kv", integer("num_key_value_heads"));
    metadata.set(prefix + "attention.key_length", integer("head_dim")).set(prefix + "context_length", integer("max_position_embeddings"));
    metadata.set(prefix + "feed_forward_length", integer("intermediate_size")).set(prefix + "attention.layer_norm_rms_epsilon", 1e-5F);
  }
  std::vector<GgufTensor> tensors;
  for (const auto& [name, tensor] : model.state_dict()) {
    const std::string stored = gguf_name(architecture, name).value();
    Tensor value = detach(tensor);
    const bool query = stored.find(".attn_q.") != std::string::npos || stored.find(".attn_k.") != std::string::npos;
    if (architecture.permuted_queries && query) value = pairs_from_halves(value, config.at("head_dim").get<std::int64_t>());
    if (architecture.transposed && stored.starts_with("blk.") && value.rank() == 2) value = contiguous(transpose(value));
    tensors.push_back({stored, value, value.rank() == 2 ? type : GgmlType::f32});
  }
  save_gguf(path, metadata, tensors);
}

}  // namespace cambium::test
