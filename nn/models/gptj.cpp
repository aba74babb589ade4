// GPT-J.
#include "nn/models/gptj.h"

#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/models/decoder_model.h"
#include "nn/models/projection.h"
#include "nn/models/registry.h"
#include "nn/models/rope.h"
#include "nn/norm.h"

namespace cambium {

namespace {

std::shared_ptr<Layer> norm_layer(const GptjConfig& c, DType dtype) {
  return std::make_shared<LayerNorm>(meta({c.hidden_size}, dtype), meta({c.hidden_size}, dtype), c.layer_norm_epsilon);
}

GptjConfig read_gptj(const ConfigReader& config, const std::string& json) {
  GptjConfig c;
  read_decoder(config, json, c);
  c.intermediate_size = config.size({"n_inner"}, 4 * c.hidden_size);
  c.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
  c.head_bias = true;
  c.layer_norm_epsilon = config.number("layer_norm_epsilon", 1e-5);
  c.activation = activation_function(config.text("activation_function", "gelu_new"));
  c.embd_pdrop = config.probability("embd_pdrop");
  c.attn_pdrop = config.probability("attn_pdrop");
  c.resid_pdrop = config.probability("resid_pdrop");
  check<ConfigError>(c.head_dim * c.num_attention_heads == c.hidden_size && c.num_key_value_heads == c.num_attention_heads, config.where(),
                     ": GPT-J has as many key heads as query heads, and head sizes that add up to n_embd");
  const std::int64_t rotary_dim = config.size({"rotary_dim"}, 64);
  check<ConfigError>(rotary_dim <= c.head_dim, config.where(), ": 'rotary_dim': expected at most the head size ", c.head_dim, ", found ", rotary_dim);
  c.frequencies = rope_frequencies(config, rotary_dim);
  return c;
}

}  // namespace

GptjAttention::GptjAttention(const GptjConfig& c, std::int64_t layer, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), head_dim_(c.head_dim), dropout_(c.attn_pdrop), frequencies_(c.frequencies) {
  for (Child<Layer>* child : {&k_proj_, &v_proj_, &q_proj_, &out_proj_}) child->set(projection(c.hidden_size, c.hidden_size, false, dtype));
  resid_dropout_.set(std::make_shared<Dropout>(c.resid_pdrop));
}

void GptjAttention::move_kept(Device device) {
  if (frequencies_.defined()) frequencies_ = to_device(frequencies_, device);
}

Tensor GptjAttention::forward(const Tensor& x, const DecoderCall& call) const {
  const std::int64_t batch = x.size(0), time = x.size(1);
  const auto heads = [&](const Child<Layer>& layer) { return reshape(layer->forward(x, call.context), {batch, time, heads_, head_dim_}); };
  const Tensor k = rotary(heads(k_proj_), call.positions, frequencies_, 1.0, true), v = heads(v_proj_), q = rotary(heads(q_proj_), call.positions, frequencies_, 1.0, true);
  const Tensor mixed = call.attend(layer_, q, k, v, call.mask(0, dropout_, *this));
  return resid_dropout_->forward(out_proj_->forward(reshape(mixed, {batch, time, heads_ * head_dim_}), call.context), call.context);
}

GptjMlp::GptjMlp(const GptjConfig& c, DType dtype) : activation_(c.activation) {
  fc_in_.set(projection(c.hidden_size, c.intermediate_size, true, dtype));
  fc_out_.set(projection(c.intermediate_size, c.hidden_size, true, dtype));
  dropout_.set(std::make_shared<Dropout>(c.resid_pdrop));
}

Tensor GptjMlp::forward(const Tensor& x, const ForwardContext& context) const {
  return dropout_->forward(fc_out_->forward(apply_activation(activation_, fc_in_->forward(x, context)), context), context);
}

GptjBlock::GptjBlock(const GptjConfig& c, std::int64_t layer, DType dtype) {
  ln_1_.set(norm_layer(c, dtype));
  attn_.set(std::make_shared<GptjAttention>(c, layer, dtype));
  mlp_.set(std::make_shared<GptjMlp>(c, dtype));
}

Tensor GptjBlock::forward(const Tensor& x, const DecoderCall& call) const {
  const Tensor normed = ln_1_->forward(x, call.context);
  const Tensor attended = attn_->forward(normed, call);
  return attended + mlp_->forward(normed, call.context) + x;
}

GptjDecoder::GptjDecoder(Module& owner, GptjConfig config, DType dtype)
    : config_(std::move(config)), wte_(owner, "wte"), drop_(owner, "drop"), h_(owner, "h"), ln_f_(owner, "ln_f") {
  wte_.set(std::make_shared<Embedding>(meta({config_.vocab_size, config_.hidden_size}, dtype)));
  drop_.set(std::make_shared<Dropout>(config_.embd_pdrop));
  h_.set(std::make_shared<ModuleList<DecoderLayer>>());
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) h_->append(std::make_shared<GptjBlock>(config_, i, dtype));
  ln_f_.set(norm_layer(config_, dtype));
}

std::shared_ptr<PretrainedModel> make_gptj(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return make_decoder_model<GptjDecoder>(chosen, read_gptj(config, json), dtype);
}

}  // namespace cambium
