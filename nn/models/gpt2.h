// GPT-2: learned positions, layer norms before each half, Conv1D projections. Radford et al. 2019.
#pragma once

#include "nn/activation.h"
#include "nn/models/decoder.h"

namespace cambium {

struct Gpt2Config : DecoderConfig {
  double layer_norm_epsilon = 1e-5, embd_pdrop = 0.0, attn_pdrop = 0.0, resid_pdrop = 0.0;
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

class Gpt2Block final : public DecoderLayer {
 public:
  Gpt2Block(const Gpt2Config& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "GPT2Block"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const override;

 private:
  Child<Layer> ln_1_{*this, "ln_1"};
  Child<Gpt2Attention> attn_{*this, "attn"};
  Child<Layer> ln_2_{*this, "ln_2"};
  Child<Gpt2Mlp> mlp_{*this, "mlp"};
};

class Gpt2Decoder final : public Decoder {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  Gpt2Decoder(Module& owner, Gpt2Config config, DType dtype);
  std::string_view type_name() const override { return "GPT2Model"; }
  const Gpt2Config& config() const override { return config_; }
  const Child<Layer>& embedding() const override { return wte_; }
  const ModuleList<DecoderLayer>& layers() const override { return *h_; }
  const Layer& final_norm() const override { return *ln_f_; }
  Tensor enter(const Tensor& embeddings, DecoderCall& call) const override;
  bool positions_are_limited() const override { return true; }

 private:
  Gpt2Config config_;
  Child<Layer> wte_, wpe_, drop_;
  Child<ModuleList<DecoderLayer>> h_;
  Child<Layer> ln_f_;
};

}  // namespace cambium
