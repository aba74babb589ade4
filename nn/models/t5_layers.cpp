// The layers of T5.
#include <algorithm>
#include <numeric>

#include "autograd/ops/attention.h"
#include "nn/models/checkpointed.h"
#include "nn/models/projection.h"
#include "nn/models/t5.h"
#include "nn/norm.h"
#include "nn/position.h"

namespace cambium {

namespace {


std::shared_ptr<Layer> norm_layer(const T5Config& c, DType dtype) { return std::make_shared<RmsNorm>(meta({c.hidden_size}, dtype), c.layer_norm_epsilon); }

/// What block `i` reads besides its input and its parameters, as far as it is there.
std::vector<Tensor*> read_by_block(T5Call& call, std::size_t i) {
  std::vector<Tensor*> out{&call.bias};
  if (call.encoded.defined()) out.push_back(&call.encoded);
  if (!call.past.layers.empty()) out.insert(out.end(), {&call.past.layers[i].keys, &call.past.layers[i].values});
  return out;
}

std::shared_ptr<Layer> dropout_layer(const T5Config& c) { return std::make_shared<Dropout>(c.dropout); }

}  // namespace

T5Attention::T5Attention(const T5Config& c, std::int64_t layer, bool in_decoder, std::int64_t buckets, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), head_dim_(c.head_dim), buckets_(buckets), max_distance_(c.max_distance), in_decoder_(in_decoder), dropout_(c.dropout) {
  for (Child<Layer>* to_heads : {&q_, &k_, &v_}) to_heads->set(projection(c.hidden_size, heads_ * head_dim_, false, dtype));
  o_.set(projection(heads_ * head_dim_, c.hidden_size, false, dtype));
  if (buckets > 0) relative_attention_bias_.emplace(*this, "relative_attention_bias", std::make_shared<Embedding>(meta({buckets, heads_}, dtype)));
}

Tensor T5Attention::heads(const Child<Layer>& to_heads, const Tensor& x, const ForwardContext& context) const {
  return reshape(to_heads->forward(x, context), {x.size(0), x.size(1), heads_, head_dim_});
}

Tensor T5Attention::finish(const Tensor& mixed, const ForwardContext& context) const {
  return o_->forward(reshape(mixed, {mixed.size(0), mixed.size(1), heads_ * head_dim_}), context);
}

/// Scores are not divided by sqrt(D): the starting values of q are that much smaller instead.
AttentionMask T5Attention::mask(const T5Call& call) const {
  AttentionMask mask;
  mask.scale = 1.0;
  if (call.context.training && dropout_ > 0.0) {
    mask.dropout_p = dropout_;
    mask.dropout_key = call.context.key.fold(path());
  }
  return mask;
}

Tensor T5Attention::attend_self(const Tensor& x, const T5Call& call) const {
  const Tensor q = heads(q_, x, call.context);
  Tensor k = heads(k_, x, call.context), v = heads(v_, x, call.context);
  if (call.cache) std::tie(k, v) = call.cache->append(layer_, k, v);
  AttentionMask mask = this->mask(call);
  mask.causal = in_decoder_;
  mask.bias = call.bias;
  mask.key_mask = call.key_mask;
  if (call.past.layers.empty()) return finish(attention(q, k, v, mask), call.context);
  const Past::Layer& before = call.past.layers[static_cast<std::size_t>(layer_)];
  return finish(attention_with_past(q, k, v, before.keys, before.values, mask), call.context);
}

Tensor T5Attention::attend_encoder(const Tensor& x, const T5Call& call) const {
  const Tensor q = heads(q_, x, call.context);
  Tensor k, v;
  if (call.encoded.defined()) {
    k = heads(k_, call.encoded, call.context);
    v = heads(v_, call.encoded, call.context);
    if (call.cache) call.cache->set_cross(layer_, k, v);
  } else {
    std::tie(k, v) = call.cache->cross(layer_);
  }
  AttentionMask mask = this->mask(call);
  mask.key_mask = call.encoded_mask;
  return finish(attention(q, k, v, mask), call.context);
}

Tensor T5Attention::relative_bias(std::int64_t queries, std::int64_t keys, const ForwardContext& context) const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(buckets_)), relative(static_cast<std::size_t>(queries + keys - 1)), index;
  std::iota(rows.begin(), rows.end(), 0);
  std::iota(relative.begin(), relative.end(), 1 - keys);  // key - query; the last query stands at keys - 1
  const Tensor table = (*relative_attention_bias_)->forward(from_vector(rows, {buckets_}, device()), context);
  const std::vector<std::int64_t> bucket =
      t5_relative_position_bucket(from_vector(relative, {queries + keys - 1}), !in_decoder_, buckets_, max_distance_).to_vector<std::int64_t>();
  index.reserve(static_cast<std::size_t>(queries * keys));
  // Key by key, so that the queries of one key lie next to each other: the order in which the kernel has its scores.
  for (std::int64_t j = 0; j < keys; ++j)
    for (std::int64_t i = 0; i < queries; ++i) index.push_back(bucket[static_cast<std::size_t>(j + queries - 1 - i)]);
  return transpose(reshape(index_select(transpose(table), 1, from_vector(index, {queries * keys}, table.device())), {1, heads_, keys, queries}), 2, 3);
}

T5SelfAttentionPart::T5SelfAttentionPart(const T5Config& c, std::int64_t layer, bool in_decoder, DType dtype) {
  attention.set(std::make_shared<T5Attention>(c, layer, in_decoder, layer == 0 ? c.buckets : 0, dtype));
  layer_norm_.set(norm_layer(c, dtype));
  dropout_.set(dropout_layer(c));
}

Tensor T5SelfAttentionPart::forward(const Tensor& x, const T5Call& call) const {
  return x + dropout_->forward(attention->attend_self(layer_norm_->forward(x, call.context), call), call.context);
}

T5CrossAttentionPart::T5CrossAttentionPart(const T5Config& c, std::int64_t layer, DType dtype) {
  attention_.set(std::make_shared<T5Attention>(c, layer, true, 0, dtype));
  layer_norm_.set(norm_layer(c, dtype));
  dropout_.set(dropout_layer(c));
}

Tensor T5CrossAttentionPart::forward(const Tensor& x, const T5Call& call) const {
  return x + dropout_->forward(attention_->attend_encoder(layer_norm_->forward(x, call.context), call), call.context);
}

T5Dense::T5Dense(const T5Config& c, DType dtype)
    : wi_(*this, c.gated ? "wi_0" : "wi", projection(c.hidden_size, c.intermediate_size, false, dtype)),
      up_(c.gated ? std::make_unique<Child<Layer>>(*this, "wi_1", projection(c.hidden_size, c.intermediate_size, false, dtype)) : nullptr), activation_(c.activation) {
  wo_.set(projection(c.intermediate_size, c.hidden_size, false, dtype));
  dropout_.set(dropout_layer(c));
}

Tensor T5Dense::forward(const Tensor& x, const ForwardContext& context) const {
  const Tensor first = wi_->forward(x, context);
  const Tensor inner = up_ ? gated(activation_, first, (*up_)->forward(x, context)) : apply_activation(activation_, first);
  return wo_->forward(dropout_->forward(inner, context), context);
}

T5DensePart::T5DensePart(const T5Config& c, DType dtype) {
  dense_.set(std::make_shared<T5Dense>(c, dtype));
  layer_norm_.set(norm_layer(c, dtype));
  dropout_.set(dropout_layer(c));
}

Tensor T5DensePart::forward(const Tensor& x, const T5Call& call) const {
  return x + dropout_->forward(dense_->forward(layer_norm_->forward(x, call.context), call.context), call.context);
}

T5Block::T5Block(const T5Config& c, std::int64_t layer, bool in_decoder, DType dtype) {
  layer_.set(std::make_shared<ModuleList<T5Part>>());
  layer_->append(std::make_shared<T5SelfAttentionPart>(c, layer, in_decoder, dtype));
  if (in_decoder) layer_->append(std::make_shared<T5CrossAttentionPart>(c, layer, dtype));
  layer_->append(std::make_shared<T5DensePart>(c, dtype));
}

Tensor T5Block::forward(const Tensor& x, const T5Call& call) const {
  Tensor hidden = x;
  for (std::size_t i = 0; i < layer_->size(); ++i) hidden = (*layer_)[i].forward(hidden, call);
  return hidden;
}

T5Stack::T5Stack(const T5Config& c, bool in_decoder, const Param& shared, DType dtype) {
  auto table = std::make_shared<Embedding>(meta({c.vocab_size, c.hidden_size}, dtype));
  table->weight.tie(shared);
  embed_tokens.set(std::move(table));
  block.set(std::make_shared<ModuleList<T5Block>>());
  const std::int64_t layers = in_decoder ? c.num_decoder_layers : c.num_hidden_layers;
  for (std::int64_t i = 0; i < layers; ++i) block->append(std::make_shared<T5Block>(c, i, in_decoder, dtype));
  final_layer_norm_.set(norm_layer(c, dtype));
  dropout_.set(dropout_layer(c));
}

Tensor T5Stack::forward(const Tensor& embeddings, T5Call given, bool checkpointing, std::vector<Tensor>* states) const {
  const std::int64_t queries = embeddings.size(1), cached = given.cache ? given.cache->length() : 0;
  given.bias = (*block)[0].self_attention().relative_bias(queries, given.past.length() + cached + queries, given.context);
  const auto call = std::make_shared<const T5Call>(std::move(given));
  Tensor hidden = dropout_->forward(embeddings, call->context);
  for (std::size_t i = 0; i < block->size(); ++i) {
    if (states) states->push_back(hidden);
    T5Call now = *call;
    std::vector<Tensor> besides;
    for (const Tensor* x : read_by_block(now, i)) besides.push_back(*x);
    hidden = checkpointed(checkpointing, (*block)[i], hidden, besides, [call, i, &layer = (*block)[i]](const Tensor& x, std::span<const Tensor> tensors) {
      T5Call own = *call;
      const std::vector<Tensor*> places = read_by_block(own, i);
      for (std::size_t k = 0; k < places.size(); ++k) *places[k] = tensors[k];
      return layer.forward(x, own);
    });
  }
  hidden = dropout_->forward(final_layer_norm_->forward(hidden, call->context), call->context);
  if (states) states->push_back(hidden);
  return hidden;
}

}  // namespace cambium
