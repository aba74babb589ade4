// The Llama family.
#include "nn/models/llama.h"

#include "nn/embedding.h"
#include "nn/models/projection.h"
#include "nn/norm.h"

namespace cambium {

namespace {

std::shared_ptr<Layer> rms(std::int64_t width, const LlamaConfig& c, DType dtype) { return std::make_shared<RmsNorm>(meta({width}, dtype), c.rms_norm_eps); }

}  // namespace

LlamaAttention::LlamaAttention(const LlamaConfig& c, std::int64_t layer, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), kv_heads_(c.num_key_value_heads), head_dim_(c.head_dim), window_(c.windows.at(static_cast<std::size_t>(layer))),
      dropout_(c.attention_dropout), frequencies_(c.frequencies) {
  q_proj_.set(projection(c.hidden_size, heads_ * head_dim_, c.query_bias, dtype));
  k_proj_.set(projection(c.hidden_size, kv_heads_ * head_dim_, c.query_bias, dtype));
  v_proj_.set(projection(c.hidden_size, kv_heads_ * head_dim_, c.query_bias, dtype));
  o_proj_.set(projection(heads_ * head_dim_, c.hidden_size, c.output_bias, dtype));
  if (c.query_key_norm) {
    q_norm_.emplace(*this, "q_norm", rms(head_dim_, c, dtype));
    k_norm_.emplace(*this, "k_norm", rms(head_dim_, c, dtype));
  }
}

void LlamaAttention::move_kept(Device device) {
  if (frequencies_.defined()) frequencies_ = to_device(frequencies_, device);
}

Tensor LlamaAttention::forward(const Tensor& x, const DecoderCall& call) const {
  const std::int64_t batch = x.size(0), time = x.size(1);
  const auto heads = [&](const Child<Layer>& layer, std::int64_t count) { return reshape(layer->forward(x, call.context), {batch, time, count, head_dim_}); };
  Tensor q = heads(q_proj_, heads_), k = heads(k_proj_, kv_heads_), v = heads(v_proj_, kv_heads_);
  if (q_norm_) {
    q = (*q_norm_)->forward(q, call.context);
    k = (*k_norm_)->forward(k, call.context);
  }
  q = rotary(q, call.positions, frequencies_);
  k = rotary(k, call.positions, frequencies_);
  const Tensor mixed = call.attend(layer_, q, k, v, call.mask(window_, dropout_, *this));
  return o_proj_->forward(reshape(mixed, {batch, time, heads_ * head_dim_}), call.context);
}

LlamaMlp::LlamaMlp(const LlamaConfig& c, DType dtype) : activation_(c.activation) {
  gate_proj_.set(projection(c.hidden_size, c.intermediate_size, c.mlp_bias, dtype));
  up_proj_.set(projection(c.hidden_size, c.intermediate_size, c.mlp_bias, dtype));
  down_proj_.set(projection(c.intermediate_size, c.hidden_size, c.mlp_bias, dtype));
}

Tensor LlamaMlp::forward(const Tensor& x, const ForwardContext& context) const {
  return down_proj_->forward(gated(activation_, gate_proj_->forward(x, context), up_proj_->forward(x, context)), context);
}

LlamaDecoderLayer::LlamaDecoderLayer(const LlamaConfig& c, std::int64_t layer, DType dtype) {
  self_attn_.set(std::make_shared<LlamaAttention>(c, layer, dtype));
  mlp_.set(std::make_shared<LlamaMlp>(c, dtype));
  input_layernorm_.set(rms(c.hidden_size, c, dtype));
  post_attention_layernorm_.set(rms(c.hidden_size, c, dtype));
}

Tensor LlamaDecoderLayer::forward(const Tensor& x, const DecoderCall& call) const {
  const Tensor attended = x + self_attn_->forward(input_layernorm_->forward(x, call.context), call);
  return attended + mlp_->forward(post_attention_layernorm_->forward(attended, call.context), call.context);
}

LlamaDecoder::LlamaDecoder(Module& owner, LlamaConfig config, DType dtype)
    : config_(std::move(config)), embed_tokens_(owner, "embed_tokens"), layers_(owner, "layers"), norm_(owner, "norm") {
  embed_tokens_.set(std::make_shared<Embedding>(meta({config_.vocab_size, config_.hidden_size}, dtype), config_.pad_token_id));
  layers_.set(std::make_shared<ModuleList<DecoderLayer>>());
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) layers_->append(std::make_shared<LlamaDecoderLayer>(config_, i, dtype));
  norm_.set(rms(config_.hidden_size, config_, dtype));
}

}  // namespace cambium
