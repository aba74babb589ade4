// The Llama family: Llama, Mistral, Qwen2 and Qwen3, one decoder whose differences are settings.
#pragma once

#include "nn/activation.h"
#include "nn/models/causal_lm.h"

namespace cambium {

struct LlamaConfig : ModelConfig {
  double rms_norm_eps = 1e-6, attention_dropout = 0.0, initializer_range = 0.02;
  UnaryFunction activation = UnaryFunction::silu;
  bool query_bias = false;         ///< of q_proj, k_proj and v_proj
  bool output_bias = false;        ///< of o_proj
  bool mlp_bias = false;
  bool query_key_norm = false;     ///< RMS norm of each head before the rotation (Qwen3)
  std::vector<std::int64_t> windows;  ///< of each layer; 0: none
  Tensor frequencies;              ///< f32 (head_dim / 2)
};

/// Grouped-query attention with rotary positions. Ainslie et al. 2023, arXiv 2305.13245; Su et al. 2021, arXiv 2104.09864.
class LlamaAttention final : public Module {
 public:
  LlamaAttention(const LlamaConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "LlamaAttention"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;  ///< (B, T, C) -> (B, T, C)

 private:
  Child<Layer> q_proj_{*this, "q_proj"}, k_proj_{*this, "k_proj"}, v_proj_{*this, "v_proj"}, o_proj_{*this, "o_proj"};
  std::optional<Child<Layer>> q_norm_, k_norm_;
  std::int64_t layer_, heads_, kv_heads_, head_dim_, window_;
  double dropout_;
  Tensor frequencies_;
};

/// down(f(gate(x)) up(x)). Shazeer 2020, arXiv 2002.05202.
class LlamaMlp final : public Module {
 public:
  LlamaMlp(const LlamaConfig& config, DType dtype);
  std::string_view type_name() const override { return "LlamaMLP"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Child<Layer> gate_proj_{*this, "gate_proj"}, up_proj_{*this, "up_proj"}, down_proj_{*this, "down_proj"};
  UnaryFunction activation_;
};

class LlamaDecoderLayer final : public Module {
 public:
  LlamaDecoderLayer(const LlamaConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "LlamaDecoderLayer"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;

 private:
  Child<LlamaAttention> self_attn_{*this, "self_attn"};
  Child<LlamaMlp> mlp_{*this, "mlp"};
  Child<Layer> input_layernorm_{*this, "input_layernorm"}, post_attention_layernorm_{*this, "post_attention_layernorm"};
};

class LlamaModel final : public Module {
 public:
  LlamaModel(const LlamaConfig& config, DType dtype);
  std::string_view type_name() const override { return "LlamaModel"; }

  Child<Layer> embed_tokens{*this, "embed_tokens"};
  Child<ModuleList<LlamaDecoderLayer>> layers{*this, "layers"};
  Child<Layer> norm{*this, "norm"};
};

class LlamaForCausalLM final : public CausalLM {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  LlamaForCausalLM(LlamaConfig config, DType dtype);
  std::string_view type_name() const override { return "LlamaForCausalLM"; }
  const ModelConfig& config() const override { return config_; }
  const LlamaConfig& llama_config() const { return config_; }
  std::string input_embedding_path() const override { return "model.embed_tokens"; }
  std::string output_embedding_path() const override { return "lm_head"; }

 protected:
  Tensor embed(const Tensor& input_ids, const ForwardContext& context) const override;
  Tensor enter(const Tensor& embeddings, const DecoderCall& call) const override;
  std::size_t layer_count() const override { return model_->layers->size(); }
  Tensor run_layer(std::size_t index, const Tensor& hidden, const DecoderCall& call) const override;
  const Layer& final_norm() const override { return *model_->norm; }
  const Layer& head() const override { return *lm_head_; }

 private:
  LlamaConfig config_;
  Child<LlamaModel> model_{*this, "model"};
  Child<Layer> lm_head_{*this, "lm_head"};
};

}  // namespace cambium
