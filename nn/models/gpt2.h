// GPT-2: learned positions, layer norms before each half, Conv1D projections. Radford et al. 2019.
#pragma once

#include "nn/activation.h"
#include "nn/dropout.h"
#include "nn/models/causal_lm.h"

namespace cambium {

struct Gpt2Config : ModelConfig {
  double layer_norm_epsilon = 1e-5, embd_pdrop = 0.0, attn_pdrop = 0.0, resid_pdrop = 0.0, initializer_range = 0.02;
  UnaryFunction activation = UnaryFunction::gelu_tanh;
  bool scale_attn_weights = true, scale_attn_by_inverse_layer_idx = false;
};

class Gpt2Attention final : public Module {
 public:
  Gpt2Attention(const Gpt2Config& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "GPT2Attention"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;  ///< (B, T, C) -> (B, T, C)

 private:
  Child<Layer> c_attn_{*this, "c_attn"}, c_proj_{*this, "c_proj"}, resid_dropout_{*this, "resid_dropout"};
  std::int64_t layer_, heads_, head_dim_;
  double dropout_, scale_;
};

class Gpt2Mlp final : public Module {
 public:
  Gpt2Mlp(const Gpt2Config& config, DType dtype);
  std::string_view type_name() const override { return "GPT2MLP"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Child<Layer> c_fc_{*this, "c_fc"}, c_proj_{*this, "c_proj"}, dropout_{*this, "dropout"};
  UnaryFunction activation_;
};

class Gpt2Block final : public Module {
 public:
  Gpt2Block(const Gpt2Config& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "GPT2Block"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;

 private:
  Child<Layer> ln_1_{*this, "ln_1"};
  Child<Gpt2Attention> attn_{*this, "attn"};
  Child<Layer> ln_2_{*this, "ln_2"};
  Child<Gpt2Mlp> mlp_{*this, "mlp"};
};

class Gpt2Model final : public Module {
 public:
  Gpt2Model(const Gpt2Config& config, DType dtype);
  std::string_view type_name() const override { return "GPT2Model"; }

  Child<Layer> wte{*this, "wte"}, wpe{*this, "wpe"}, drop{*this, "drop"};
  Child<ModuleList<Gpt2Block>> h{*this, "h"};
  Child<Layer> ln_f{*this, "ln_f"};
};

class Gpt2ForCausalLM final : public CausalLM {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  Gpt2ForCausalLM(Gpt2Config config, DType dtype);
  std::string_view type_name() const override { return "GPT2LMHeadModel"; }
  const ModelConfig& config() const override { return config_; }
  const Gpt2Config& gpt2_config() const { return config_; }
  std::string input_embedding_path() const override { return "transformer.wte"; }
  std::string output_embedding_path() const override { return "lm_head"; }

 protected:
  Tensor embed(const Tensor& input_ids, const ForwardContext& context) const override;
  Tensor enter(const Tensor& embeddings, const DecoderCall& call) const override;
  std::size_t layer_count() const override { return transformer_->h->size(); }
  Tensor run_layer(std::size_t index, const Tensor& hidden, const DecoderCall& call) const override;
  const Layer& final_norm() const override { return *transformer_->ln_f; }
  const Layer& head() const override { return *lm_head_; }
  bool positions_are_limited() const override { return true; }

 private:
  Gpt2Config config_;
  Child<Gpt2Model> transformer_{*this, "transformer"};
  Child<Layer> lm_head_{*this, "lm_head"};
};

}  // namespace cambium
