// BERT.
#include "nn/models/bert.h"

#include <algorithm>

#include "autograd/ops/attention.h"
#include "nn/embedding.h"
#include "nn/kv_cache.h"
#include "nn/models/projection.h"
#include "nn/models/checkpointed.h"
#include "nn/models/heads.h"
#include "nn/models/inputs.h"
#include "nn/norm.h"

namespace cambium {

namespace {

std::shared_ptr<Layer> dense(std::int64_t in, std::int64_t out, DType dtype) { return projection(in, out, true, dtype); }

std::shared_ptr<Layer> norm_layer(const BertConfig& c, DType dtype) {
  return std::make_shared<LayerNorm>(meta({c.hidden_size}, dtype), meta({c.hidden_size}, dtype), c.layer_norm_eps);
}

std::shared_ptr<Layer> table(std::int64_t rows, const BertConfig& c, DType dtype, std::optional<std::int64_t> padding = {}) {
  return std::make_shared<Embedding>(meta({rows, c.hidden_size}, dtype), padding);
}

}  // namespace

BertEmbeddings::BertEmbeddings(const BertConfig& c, DType dtype) {
  word_embeddings.set(table(c.vocab_size, c, dtype, c.pad_token_id));
  position_embeddings_.set(table(c.max_position_embeddings, c, dtype));
  token_type_embeddings_.set(table(c.type_vocab_size, c, dtype));
  norm_.set(norm_layer(c, dtype));
  dropout_.set(std::make_shared<Dropout>(c.hidden_dropout));
}

Tensor BertEmbeddings::forward(const Tensor& words, const Tensor& types, const Tensor& positions, const ForwardContext& context) const {
  const Tensor places = token_type_embeddings_->forward(types, context) + position_embeddings_->forward(positions, context);
  return dropout_->forward(norm_->forward(words + places, context), context);
}

BertSelfAttention::BertSelfAttention(const BertConfig& c, std::int64_t layer, DType dtype)
    : layer_(layer), heads_(c.num_attention_heads), head_dim_(c.head_dim), dropout_(c.attention_dropout) {
  for (Child<Layer>* projection : {&query_, &key_, &value_}) projection->set(dense(c.hidden_size, c.hidden_size, dtype));
}

Tensor BertSelfAttention::forward(const Tensor& x, const Tensor& all, const BertCall& call) const {
  const auto heads = [&](const Child<Layer>& layer, const Tensor& of) { return reshape(layer->forward(of, call.context), {of.size(0), of.size(1), heads_, head_dim_}); };
  const Tensor q = heads(query_, x), k = heads(key_, all), v = heads(value_, all);
  AttentionMask mask;
  mask.key_mask = call.key_mask;
  mask.starts = call.starts;
  if (call.context.training && dropout_ > 0.0) {
    mask.dropout_p = dropout_;
    mask.dropout_key = call.context.key.fold(path());
  }
  Tensor mixed;
  if (!call.past.layers.empty()) {
    const Past::Layer& before = call.past.layers[static_cast<std::size_t>(layer_)];
    mixed = attention_with_past(q, k, v, before.keys, before.values, mask);
  } else {
    mixed = attention(q, k, v, mask);
  }
  return reshape(mixed, {x.size(0), x.size(1), heads_ * head_dim_});
}

BertAddNorm::BertAddNorm(std::string_view type_name, std::int64_t in, const BertConfig& c, DType dtype) : type_name_(type_name) {
  dense_.set(dense(in, c.hidden_size, dtype));
  norm_.set(norm_layer(c, dtype));
  dropout_.set(std::make_shared<Dropout>(c.hidden_dropout));
}

Tensor BertAddNorm::forward(const Tensor& x, const Tensor& residual, const ForwardContext& context) const {
  return norm_->forward(dropout_->forward(dense_->forward(x, context), context) + residual, context);
}

BertAttention::BertAttention(const BertConfig& c, std::int64_t layer, DType dtype) {
  self_.set(std::make_shared<BertSelfAttention>(c, layer, dtype));
  output_.set(std::make_shared<BertAddNorm>("BertSelfOutput", c.hidden_size, c, dtype));
}

Tensor BertAttention::forward(const Tensor& x, const Tensor& all, const BertCall& call) const { return output_->forward(self_->forward(x, all, call), x, call.context); }

BertDense::BertDense(std::string_view type_name, std::int64_t in, std::int64_t out, UnaryFunction activation, DType dtype) : type_name_(type_name), activation_(activation) {
  dense_.set(dense(in, out, dtype));
}

Tensor BertDense::forward(const Tensor& x, const ForwardContext& context) const { return apply_activation(activation_, dense_->forward(x, context)); }

BertLayer::BertLayer(const BertConfig& c, std::int64_t layer, DType dtype) {
  attention_.set(std::make_shared<BertAttention>(c, layer, dtype));
  intermediate_.set(std::make_shared<BertDense>("BertIntermediate", c.hidden_size, c.intermediate_size, c.activation, dtype));
  output_.set(std::make_shared<BertAddNorm>("BertOutput", c.intermediate_size, c, dtype));
}

Tensor BertLayer::forward(const Tensor& x, const BertCall& call, bool first_only) const {
  const Tensor attended = attention_->forward(first_only ? slice(x, 1, 0, 1) : x, x, call);
  return output_->forward(intermediate_->forward(attended, call.context), attended, call.context);
}

BertEncoder::BertEncoder(const BertConfig& c, DType dtype) {
  layer.set(std::make_shared<ModuleList<BertLayer>>());
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) layer->append(std::make_shared<BertLayer>(c, i, dtype));
}

BertParts::BertParts(Module& owner, const BertConfig& c, bool with_pooler, DType dtype)
    : embeddings(owner, "embeddings", std::make_shared<BertEmbeddings>(c, dtype)), encoder(owner, "encoder", std::make_shared<BertEncoder>(c, dtype)) {
  if (with_pooler) pooler.emplace(owner, "pooler", std::make_shared<BertDense>("BertPooler", c.hidden_size, c.hidden_size, UnaryFunction::tanh, dtype));
}

Bert::Bert(const ModelClass& chosen, BertConfig config, DType dtype) : config_(std::move(config)), task_(chosen.task), architecture_(chosen.architecture) {
  if (task_ == Task::feature_extraction) {
    bare_.emplace(*this, config_, true, dtype);
    return;
  }
  const bool spans = task_ == Task::question_answering;
  bert_.emplace(*this, "bert", std::make_shared<BertModel>(config_, task_ == Task::sequence_classification, dtype));
  if (!spans) dropout_.emplace(*this, "dropout", std::make_shared<Dropout>(config_.classifier_dropout));
  head_.emplace(*this, spans ? "qa_outputs" : "classifier", dense(config_.hidden_size, spans ? 2 : config_.num_labels, dtype));
}

std::unique_ptr<KvCache> Bert::make_cache(std::int64_t, std::int64_t) const {
  fail<StateError>("make_cache: ", architecture_, " is an encoder: it generates nothing and has no cache");
}

Tensor Bert::run_layers(Tensor hidden, const std::shared_ptr<const BertCall>& call, bool first_only, std::vector<Tensor>* states) const {
  const ModuleList<BertLayer>& layers = *parts().encoder->layer;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (states) states->push_back(hidden);
    const bool narrowed = first_only && i + 1 == layers.size();
    std::vector<Tensor> before;
    if (!call->past.layers.empty()) before = {call->past.layers[i].keys, call->past.layers[i].values};
    hidden = checkpointed(gradient_checkpointing(), layers[i], hidden, before, [call, i, narrowed, &layer = layers[i]](const Tensor& x, std::span<const Tensor> own_past) {
      if (own_past.empty()) return layer.forward(x, *call, narrowed);
      BertCall own = *call;
      own.past.layers[i] = {own_past[0], own_past[1]};
      return layer.forward(x, own, narrowed);
    });
  }
  if (states) states->push_back(hidden);
  return hidden;
}

ModelOutput Bert::forward(const ModelInput& given, const ForwardContext& context) const try {
  const ModelInput input = on_device(given, device());
  refuse_members({{"decoder_input_ids", input.decoder_input_ids.defined()}, {"decoder_attention_mask", input.decoder_attention_mask.defined()},
                  {"encoder_output", input.encoder_output.defined()}, {"cache", input.cache != nullptr}, {"want_past", input.want_past},
                  {"last_logits_only", input.last_logits_only}});
  check_labels(task_, input);
  const auto [batch, time] = token_sizes("input_ids", input.input_ids, "inputs_embeds", input.inputs_embeds, config_.hidden_size);
  const Shape shape{batch, time};
  const std::vector<std::int64_t> starts = checked_starts(input, batch, time);
  check_shape("position_ids", input.position_ids, shape);
  check_shape("token_type_ids", input.token_type_ids, shape);
  if (input.past) check_past(*input.past, static_cast<std::size_t>(config_.num_hidden_layers));
  const auto call = std::make_shared<const BertCall>(
      BertCall{context, key_mask_of("attention_mask", input.attention_mask, shape), input.starts, input.past ? *input.past : Past()});

  const BertEmbeddings& embeddings = *parts().embeddings;
  const Tensor words = input.input_ids.defined() ? embeddings.word_embeddings->forward(input.input_ids, context) : input.inputs_embeds;
  const std::int64_t before = input.past ? input.past->length() : 0;
  const Tensor positions = input.position_ids.defined() ? input.position_ids : positions_from(before, time, starts, words.device());
  const std::vector<std::int64_t> places = positions.to_vector<std::int64_t>();
  const std::int64_t last = *std::max_element(places.begin(), places.end()), limit = config_.max_position_embeddings;
  check<ShapeError>(last < limit, "forward: position ", last, " is beyond the ", limit, " that this model has: shorten the text");
  const Tensor types = input.token_type_ids.defined() ? input.token_type_ids : zeros({1, 1}, DType::i64, words.device());

  ModelOutput out;
  const bool pooled = task_ == Task::sequence_classification;
  // Nobody reads the other rows of the last layer: they need keys and values only. Packed sequences keep all rows, whose attention is cut by `starts`.
  const bool first_only = pooled && !input.want_hidden_states && starts.empty();
  Tensor hidden = run_layers(embeddings.forward(words, types, positions, context), call, first_only, input.want_hidden_states ? &out.hidden_states : nullptr);
  if (parts().pooler) {
    Tensor firsts = select(hidden, 1, 0);
    if (!starts.empty()) {
      for (std::size_t s = 0; s + 1 < starts.size(); ++s)
        check<ShapeError>(starts[s] < starts[s + 1], "forward: packed sequence ", s, " is empty, so that nothing stands for it");
      const std::vector<std::int64_t> rows(starts.begin(), starts.end() - 1);
      firsts = index_select(select(hidden, 0, 0), 0, from_vector(rows, {static_cast<std::int64_t>(rows.size())}, hidden.device()));
    }
    out.pooled = (*parts().pooler)->forward(firsts, context);
    if (pooled) hidden = out.pooled;
  }
  if (dropout_) hidden = (*dropout_)->forward(hidden, context);
  finish_task(task_, head_ ? &**head_ : nullptr, hidden, input, config_, context, out);
  return out;
} catch (const DeviceError&) {
  check_one_device("forward");
  throw;
}

}  // namespace cambium
