// The Llama family: Llama, Mistral, Qwen2 and Qwen3, one decoder whose differences are settings.
#pragma once

#include "nn/activation.h"
#include "nn/models/decoder.h"

namespace cambium {

struct LlamaConfig : DecoderConfig {
  double rms_norm_eps = 1e-6, attention_dropout = 0.0;
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
  void move_kept(Device device) override;
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

class LlamaDecoderLayer final : public DecoderLayer {
 public:
  LlamaDecoderLayer(const LlamaConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "LlamaDecoderLayer"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const override;

 private:
  Child<LlamaAttention> self_attn_{*this, "self_attn"};
  Child<LlamaMlp> mlp_{*this, "mlp"};
  Child<Layer> input_layernorm_{*this, "input_layernorm"}, post_attention_layernorm_{*this, "post_attention_layernorm"};
};

class LlamaDecoder final : public Decoder {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  LlamaDecoder(Module& owner, LlamaConfig config, DType dtype);
  std::string_view type_name() const override { return "LlamaModel"; }
  const LlamaConfig& config() const override { return config_; }
  const Child<Layer>& embedding() const override { return embed_tokens_; }
  const ModuleList<DecoderLayer>& layers() const override { return *layers_; }
  const Layer& final_norm() const override { return *norm_; }

 private:
  LlamaConfig config_;
  Child<Layer> embed_tokens_;
  Child<ModuleList<DecoderLayer>> layers_;
  Child<Layer> norm_;
};

}  // namespace cambium
