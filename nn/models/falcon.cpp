// Falcon.
#include "nn/models/falcon.h"

#include <cmath>

#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/models/projection.h"
#include "nn/norm.h"
#include "nn/position.h"

namespace cambium {

namespace {

std::shared_ptr<Layer> norm_layer(const FalconConfig& c, DType dtype) {
  return std::make_shared<LayerNorm>(meta({c.hidden_size}, dtype), meta({c.hidden_size}, dtype), c.layer_norm_epsilon);
}

/// Place of each key among the real ones of its row or packed sequence, past first; 0 for padding. int64 (1 or B, P + Tk).
Tensor alibi_positions(const DecoderCall& call) {
  const std::int64_t past = call.past_length(), keys = call.key_count(), rows = call.key_mask.defined() ? call.key_mask.size(0) : 1;
  std::vector<std::int64_t> real(static_cast<std::size_t>(rows * keys), 1), out;
  if (call.key_mask.defined()) real = call.key_mask.to_vector<std::int64_t>();
  std::vector<bool> begins(static_cast<std::size_t>(keys), false);
  if (call.starts.defined()) {
    const std::vector<std::int64_t> starts = call.starts.to_vector<std::int64_t>();
    for (const std::int64_t start : starts)
      if (start < keys) begins[static_cast<std::size_t>(start)] = true;
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < past; ++i) out.push_back(i);
    std::int64_t seen = past;
    for (std::int64_t i = 0; i < keys; ++i) {
      if (begins[static_cast<std::size_t>(i)]) seen = past;
      out.push_back(real[static_cast<std::size_t>(row * keys + i)] != 0 ? seen++ : 0);
    }
  }
  return from_vector(out, {rows, past + keys}, call.positions.device());
}

/// slope * position / sqrt(head size), (1 or B, H, 1, P + Tk), as transformers computes it: slopes are rounded to bfloat16, and so are positions and products unless the
/// mask has become float, as it does where PEFT puts a prompt before it.
Tensor alibi_bias(const FalconConfig& config, const DecoderCall& call, DType dtype) {
  const DType products = call.collected || (call.past && call.mask_given) ? DType::f32 : DType::bf16;
  const std::int64_t heads = config.num_attention_heads;
  const Tensor slopes = to_dtype(to_device(alibi_slopes(heads, DType::bf16), call.positions.device()), products), positions = to_dtype(alibi_positions(call), products);
  const Tensor product = mul(reshape(slopes, {1, heads, 1, 1}), reshape(positions, {positions.size(0), 1, 1, positions.size(1)}));
  return div(to_dtype(product, dtype), std::sqrt(static_cast<double>(config.head_dim)));
}

}  // namespace

FalconAttention::FalconAttention(const FalconConfig& c, std::int64_t layer, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), groups_(c.num_key_value_heads), head_dim_(c.head_dim), dropout_(c.alibi ? c.attention_dropout : 0.0), alibi_(c.alibi),
      frequencies_(c.frequencies) {
  query_key_value_.set(projection(c.hidden_size, (heads_ + 2 * groups_) * head_dim_, c.bias, dtype));
  dense_.set(projection(c.hidden_size, c.hidden_size, c.bias, dtype));
}

void FalconAttention::move_kept(Device device) {
  if (frequencies_.defined()) frequencies_ = to_device(frequencies_, device);
}

Tensor FalconAttention::forward(const Tensor& x, const DecoderCall& call) const {
  const std::int64_t batch = x.size(0), time = x.size(1), group = heads_ / groups_;
  const Tensor fused = reshape(query_key_value_->forward(x, call.context), {batch, time, groups_, group + 2, head_dim_});
  Tensor q = reshape(slice(fused, 3, 0, group), {batch, time, heads_, head_dim_}), k = select(fused, 3, group);
  const Tensor v = select(fused, 3, group + 1);
  if (!alibi_) {
    q = rotary(q, call.positions, frequencies_);
    k = rotary(k, call.positions, frequencies_);
  }
  const Tensor mixed = call.attend(layer_, q, k, v, call.mask(0, dropout_, *this));
  return dense_->forward(reshape(mixed, {batch, time, heads_ * head_dim_}), call.context);
}

FalconMlp::FalconMlp(const FalconConfig& c, DType dtype) : activation_(c.activation) {
  dense_h_to_4h_.set(projection(c.hidden_size, c.intermediate_size, c.bias, dtype));
  dense_4h_to_h_.set(projection(c.intermediate_size, c.hidden_size, c.bias, dtype));
}

Tensor FalconMlp::forward(const Tensor& x, const ForwardContext& context) const {
  return dense_4h_to_h_->forward(apply_activation(activation_, dense_h_to_4h_->forward(x, context)), context);
}

FalconDecoderLayer::FalconDecoderLayer(const FalconConfig& c, std::int64_t layer, DType dtype) {
  self_attention_.set(std::make_shared<FalconAttention>(c, layer, dtype));
  mlp_.set(std::make_shared<FalconMlp>(c, dtype));
  attention_dropout_.set(std::make_shared<Dropout>(c.attention_dropout));
  hidden_dropout_.set(std::make_shared<Dropout>(c.hidden_dropout));
  if (c.two_norms) {
    ln_attn_.emplace(*this, "ln_attn", norm_layer(c, dtype));
    ln_mlp_.emplace(*this, "ln_mlp", norm_layer(c, dtype));
  } else {
    input_layernorm_.emplace(*this, "input_layernorm", norm_layer(c, dtype));
    if (!c.parallel) post_attention_layernorm_.emplace(*this, "post_attention_layernorm", norm_layer(c, dtype));
  }
}

Tensor FalconDecoderLayer::forward(const Tensor& x, const DecoderCall& call) const {
  const ForwardContext& context = call.context;
  const Tensor normed = (ln_attn_ ? *ln_attn_ : *input_layernorm_)->forward(x, context);
  const Tensor attended = self_attention_->forward(normed, call);
  if (post_attention_layernorm_) {
    const Tensor between = attention_dropout_->forward(attended, context) + x;
    return hidden_dropout_->forward(mlp_->forward((*post_attention_layernorm_)->forward(between, context), context), context) + between;
  }
  const Tensor mixed = mlp_->forward(ln_mlp_ ? (*ln_mlp_)->forward(x, context) : normed, context);
  return hidden_dropout_->forward(mixed + attended, context) + x;
}

FalconDecoder::FalconDecoder(Module& owner, FalconConfig config, DType dtype)
    : config_(std::move(config)), word_embeddings_(owner, "word_embeddings"), h_(owner, "h"), ln_f_(owner, "ln_f") {
  word_embeddings_.set(std::make_shared<Embedding>(meta({config_.vocab_size, config_.hidden_size}, dtype)));
  h_.set(std::make_shared<ModuleList<DecoderLayer>>());
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) h_->append(std::make_shared<FalconDecoderLayer>(config_, i, dtype));
  ln_f_.set(norm_layer(config_, dtype));
}

Tensor FalconDecoder::enter(const Tensor& embeddings, DecoderCall& call) const {
  if (config_.alibi) call.bias = alibi_bias(config_, call, embeddings.dtype());
  return embeddings;
}

}  // namespace cambium
