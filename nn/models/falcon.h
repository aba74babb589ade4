// Falcon: one fused projection for grouped or single keys, rotary or ALiBi positions, parallel or sequential blocks. Almazrouei et al. 2023, arXiv 2311.16867.
#pragma once

#include <optional>

#include "nn/activation.h"
#include "nn/models/decoder.h"

namespace cambium {

struct FalconConfig : DecoderConfig {
  double layer_norm_epsilon = 1e-5, hidden_dropout = 0.0, attention_dropout = 0.0;
  UnaryFunction activation = UnaryFunction::gelu_erf;
  bool bias = false;          ///< of all projections
  bool parallel = true;       ///< attention and MLP side by side
  bool two_norms = false;     ///< with a norm for each, ln_attn and ln_mlp, instead of one for both
  bool alibi = false;         ///< Press et al. 2021, arXiv 2108.12409, instead of rotary positions
  Tensor frequencies;         ///< f32 (head_dim / 2)
};

/// The projection gives for each group of queries these, their key and their value: one group (7b), num_kv_heads groups (40b) or one for each head (rw).
class FalconAttention final : public Module {
 public:
  FalconAttention(const FalconConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "FalconAttention"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const;  ///< (B, T, C) -> (B, T, C)

 private:
  Child<Layer> query_key_value_{*this, "query_key_value"}, dense_{*this, "dense"};
  std::int64_t layer_, heads_, groups_, head_dim_;
  double dropout_;
  bool alibi_;
  Tensor frequencies_;
  void move_kept(Device device) override;
};

class FalconMlp final : public Module {
 public:
  FalconMlp(const FalconConfig& config, DType dtype);
  std::string_view type_name() const override { return "FalconMLP"; }
  Tensor forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Child<Layer> dense_h_to_4h_{*this, "dense_h_to_4h"}, dense_4h_to_h_{*this, "dense_4h_to_h"};
  UnaryFunction activation_;
};

class FalconDecoderLayer final : public DecoderLayer {
 public:
  FalconDecoderLayer(const FalconConfig& config, std::int64_t layer, DType dtype);
  std::string_view type_name() const override { return "FalconDecoderLayer"; }
  Tensor forward(const Tensor& x, const DecoderCall& call) const override;

 private:
  Child<FalconAttention> self_attention_{*this, "self_attention"};
  Child<FalconMlp> mlp_{*this, "mlp"};
  Child<Layer> attention_dropout_{*this, "attention_dropout"}, hidden_dropout_{*this, "hidden_dropout"};
  std::optional<Child<Layer>> input_layernorm_, post_attention_layernorm_, ln_attn_, ln_mlp_;
};

class FalconDecoder final : public Decoder {
 public:
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  FalconDecoder(Module& owner, FalconConfig config, DType dtype);
  std::string_view type_name() const override { return "FalconModel"; }
  const FalconConfig& config() const override { return config_; }
  const Child<Layer>& embedding() const override { return word_embeddings_; }
  const ModuleList<DecoderLayer>& layers() const override { return *h_; }
  const Layer& final_norm() const override { return *ln_f_; }
  Tensor enter(const Tensor& embeddings, DecoderCall& call) const override;

 private:
  FalconConfig config_;
  Child<Layer> word_embeddings_;
  Child<ModuleList<DecoderLayer>> h_;
  Child<Layer> ln_f_;
};

}  // namespace cambium
