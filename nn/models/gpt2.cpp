// GPT-2.
#include "nn/models/gpt2.h"

#include <cmath>

#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace cambium {

namespace {

std::shared_ptr<Layer> conv1d(std::int64_t in, std::int64_t out, DType dtype) { return std::make_shared<Conv1D>(meta({in, out}, dtype), meta({out}, dtype)); }

std::shared_ptr<Layer> norm_layer(const Gpt2Config& c, DType dtype) {
  return std::make_shared<LayerNorm>(meta({c.hidden_size}, dtype), meta({c.hidden_size}, dtype), c.layer_norm_epsilon);
}

std::shared_ptr<Layer> table(std::int64_t rows, const Gpt2Config& c, DType dtype) { return std::make_shared<Embedding>(meta({rows, c.hidden_size}, dtype)); }

}  // namespace

Gpt2Attention::Gpt2Attention(const Gpt2Config& c, std::int64_t layer, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), head_dim_(c.head_dim), dropout_(c.attn_pdrop),
      scale_((c.scale_attn_weights ? 1.0 / std::sqrt(static_cast<double>(c.head_dim)) : 1.0) /
             (c.scale_attn_by_inverse_layer_idx ? static_cast<double>(layer + 1) : 1.0)) {
  c_attn_.set(conv1d(c.hidden_size, 3 * c.hidden_size, dtype));
  c_proj_.set(conv1d(c.hidden_size, c.hidden_size, dtype));
  resid_dropout_.set(std::make_shared<Dropout>(c.resid_pdrop));
}

Tensor Gpt2Attention::forward(const Tensor& x, const DecoderCall& call) const {
  const std::int64_t batch = x.size(0), time = x.size(1);
  const Tensor all = reshape(c_attn_->forward(x, call.context), {batch, time, 3 * heads_, head_dim_});
  AttentionMask mask = call.mask(0, dropout_, *this);
  mask.scale = scale_;
  const Tensor mixed = call.attend_packed(layer_, all, mask);
  return resid_dropout_->forward(c_proj_->forward(reshape(mixed, {batch, time, heads_ * head_dim_}), call.context), call.context);
}

Gpt2Mlp::Gpt2Mlp(const Gpt2Config& c, DType dtype) : activation_(c.activation) {
  c_fc_.set(conv1d(c.hidden_size, c.intermediate_size, dtype));
  c_proj_.set(conv1d(c.intermediate_size, c.hidden_size, dtype));
  dropout_.set(std::make_shared<Dropout>(c.resid_pdrop));
}

Tensor Gpt2Mlp::forward(const Tensor& x, const ForwardContext& context) const {
  return dropout_->forward(c_proj_->forward(apply_activation(activation_, c_fc_->forward(x, context)), context), context);
}

Gpt2Block::Gpt2Block(const Gpt2Config& c, std::int64_t layer, DType dtype) {
  ln_1_.set(norm_layer(c, dtype));
  attn_.set(std::make_shared<Gpt2Attention>(c, layer, dtype));
  ln_2_.set(norm_layer(c, dtype));
  mlp_.set(std::make_shared<Gpt2Mlp>(c, dtype));
}

Tensor Gpt2Block::forward(const Tensor& x, const DecoderCall& call) const {
  const Tensor attended = x + attn_->forward(ln_1_->forward(x, call.context), call);
  return attended + mlp_->forward(ln_2_->forward(attended, call.context), call.context);
}

Gpt2Decoder::Gpt2Decoder(Module& owner, Gpt2Config config, DType dtype)
    : config_(std::move(config)), wte_(owner, "wte"), wpe_(owner, "wpe"), drop_(owner, "drop"), h_(owner, "h"), ln_f_(owner, "ln_f") {
  wte_.set(table(config_.vocab_size, config_, dtype));
  wpe_.set(table(config_.max_position_embeddings, config_, dtype));
  drop_.set(std::make_shared<Dropout>(config_.embd_pdrop));
  h_.set(std::make_shared<ModuleList<DecoderLayer>>());
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) h_->append(std::make_shared<Gpt2Block>(config_, i, dtype));
  ln_f_.set(norm_layer(config_, dtype));
}

Tensor Gpt2Decoder::enter(const Tensor& embeddings, DecoderCall& call) const {
  return drop_->forward(embeddings + wpe_->forward(call.positions, call.context), call.context);
}

}  // namespace cambium
