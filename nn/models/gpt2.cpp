// GPT-2.
#include "nn/models/gpt2.h"

#include <cmath>

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

Gpt2Model::Gpt2Model(const Gpt2Config& c, DType dtype) {
  wte.set(table(c.vocab_size, c, dtype));
  wpe.set(table(c.max_position_embeddings, c, dtype));
  drop.set(std::make_shared<Dropout>(c.embd_pdrop));
  h.set(std::make_shared<ModuleList<Gpt2Block>>());
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) h->append(std::make_shared<Gpt2Block>(c, i, dtype));
  ln_f.set(norm_layer(c, dtype));
}

Gpt2ForCausalLM::Gpt2ForCausalLM(Gpt2Config config, DType dtype) : config_(std::move(config)) {
  transformer_.set(std::make_shared<Gpt2Model>(config_, dtype));
  auto head = std::make_shared<Linear>(meta({config_.vocab_size, config_.hidden_size}, dtype));
  if (config_.tie_word_embeddings) head->weight().tie(dynamic_cast<Embedding&>(*transformer_->wte).weight);
  lm_head_.set(std::move(head));
}

Tensor Gpt2ForCausalLM::embed(const Tensor& input_ids, const ForwardContext& context) const { return transformer_->wte->forward(input_ids, context); }

Tensor Gpt2ForCausalLM::enter(const Tensor& embeddings, const DecoderCall& call) const {
  return transformer_->drop->forward(embeddings + transformer_->wpe->forward(call.positions, call.context), call.context);
}

Tensor Gpt2ForCausalLM::run_layer(std::size_t index, const Tensor& hidden, const DecoderCall& call) const { return (*transformer_->h)[index].forward(hidden, call); }

}  // namespace cambium
