// GPT-J: interleaved rotary positions on a part of each head; attention and MLP side by side behind one norm. Wang and Komatsuzaki 2021.
#pragma once

#include "nn/activation.h"
#include "nn/models/decoder.h"

namespace cambium {

struct GptjConfig : DecoderConfig {
  double layer_norm_epsilon = 1e-5, embd_pdrop = 0.0, attn_pdrop = 0.0, resid_pdrop = 0.0;
  UnaryFunction activation = UnaryFunction::gelu_tanh;
  Tensor frequencies;  ///< f32 (rotary_dim / 2)
};

class GptjAttention final : public Module {
 public:
  GptjAttention(const GptjConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "GPTJAttention"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;  ///< (B, T, C) -> (B, T, C)

 private:
  Child<Layer> k_proj_{*this, "k_proj"}, v_proj_{*this, "v_proj"}, q_proj_{*this, "q_proj"}, out_proj_{*this, "out_proj"}, resid_dropout_{*this, "resid_dropout"};
  std::int64_t layer_, heads_, head_dim_;
  double dropout_;
  Tensor frequencies_;
  void move_kept(Device device) override;
};

class GptjMlp final : public Module {
 public:
  GptjMlp(const GptjConfig& config, DType dtype);
  std::string_view type_name() const override { return "GPTJMLP"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Child<Layer> fc_in_{*this, "fc_in"}, fc_out_{*this, "fc_out"}, dropout_{*this, "dropout"};
  UnaryFunction activation_;
};

class GptjBlock final : public DecoderLayer {
 public:
  GptjBlock(const GptjConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "GPTJBlock"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const override;

 private:
  Child<Layer> ln_1_{*this, "ln_1"};
  Child<GptjAttention> attn_{*this, "attn"};
  Child<GptjMlp> mlp_{*this, "mlp"};
};

class GptjDecoder final : public Decoder {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  GptjDecoder(Module& owner, GptjConfig config, DType dtype);
  std::string_view type_name() const override { return "GPTJModel"; }
  const GptjConfig& config() const override { return config_; }
  const Child<Layer>& embedding() const override { return wte_; }
  const ModuleList<DecoderLayer>& layers() const override { return *h_; }
  const Layer& final_norm() const override { return *ln_f_; }
  Tensor enter(const Tensor& embeddings, DecoderCall& call) const override { return drop_->forward(embeddings, call.context); }

 private:
  GptjConfig config_;
  Child<Layer> wte_, drop_;
  Child<ModuleList<DecoderLayer>> h_;
  Child<Layer> ln_f_;
};

}  // namespace cambium
