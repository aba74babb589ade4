// The forward pass of decoders: positions, masks, layers, and the loss over labelled rows only.
#include "nn/models/decoder_model.h"

#include <algorithm>

#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/models/checkpointed.h"
#include "nn/models/decoder_input.h"
#include "nn/models/heads.h"
#include "nn/models/inputs.h"

namespace cambium {

namespace {

/// The module that holds a decoder's members: "transformer" or "model".
class Backbone final : public Module {
 public:
  explicit Backbone(const DecoderModel::MakeDecoder& make) : decoder(make(*this)) {}
  std::string_view type_name() const override { return decoder->type_name(); }
  std::unique_ptr<Decoder> decoder;
};

std::shared_ptr<Layer> make_head(Task task, const Decoder& decoder, DType dtype) {
  const DecoderConfig& c = decoder.config();
  const std::int64_t outputs = task == Task::causal_lm ? c.vocab_size : task == Task::question_answering ? 2 : c.num_labels;
  const bool bias = task == Task::causal_lm ? c.head_bias : task != Task::sequence_classification;
  auto head = std::make_shared<Linear>(meta({outputs, c.hidden_size}, dtype), bias ? meta({outputs}, dtype) : Tensor());
  if (task == Task::causal_lm && c.tie_word_embeddings) head->weight().tie(dynamic_cast<Embedding&>(*decoder.embedding()).weight);
  return head;
}

Tensor index_tensor(const std::vector<std::int64_t>& rows, Device device) { return from_vector(rows, {static_cast<std::int64_t>(rows.size())}, device); }

/// (B, T, N) -> (rows, N).
Tensor chosen_rows(const Tensor& x, const std::vector<std::int64_t>& rows) {
  return index_select(reshape(x, {x.size(0) * x.size(1), x.size(2)}), 0, index_tensor(rows, x.device()));
}

}  // namespace

DecoderModel::DecoderModel(const ModelClass& chosen, const MakeDecoder& make, DType dtype) : chosen_(chosen) {
  if (chosen.backbone.empty()) {
    own_ = make(*this);
    decoder_ = own_.get();
  } else {
    auto backbone = std::make_shared<Backbone>(make);
    decoder_ = backbone->decoder.get();
    backbone_.emplace(*this, std::string(chosen.backbone), std::move(backbone));
  }
  if (chosen.task == Task::feature_extraction) return;
  if (chosen.task == Task::token_classification) dropout_.emplace(*this, "dropout", std::make_shared<Dropout>(decoder_->config().classifier_dropout));
  const std::string name = chosen.task == Task::causal_lm ? "lm_head" : std::string(chosen.new_head.substr(0, chosen.new_head.find('.')));
  head_.emplace(*this, name, make_head(chosen.task, *decoder_, dtype));
}

std::string DecoderModel::input_embedding_path() const { return (backbone_ ? backbone_->name() + "." : std::string()) + decoder_->embedding().name(); }

std::unique_ptr<KvCache> DecoderModel::make_cache(std::int64_t batch, std::int64_t capacity) const {
  const ModelConfig& c = config();
  DType dtype = DType::f32;
  // Keys have the dtype of what the model computes with: that of its first parameter.
  if (const auto parameters = named_parameters(); !parameters.empty()) dtype = parameters.front().second->tensor.dtype();
  return std::make_unique<KvCache>(c.num_hidden_layers, batch, capacity, c.num_key_value_heads, c.head_dim, dtype, device());
}

ModelOutput DecoderModel::forward(const ModelInput& given, const ForwardContext& context) const try {
  const ModelInput input = on_device(given, device());
  const ModuleList<DecoderLayer>& layers = decoder_->layers();
  const DecoderSizes sizes = check_decoder_input(input, task(), config().hidden_size, layers.size());
  const std::vector<std::int64_t> starts = checked_starts(input, sizes.batch, sizes.time);
  const std::int64_t cached = input.cache ? input.cache->length() : 0;
  DecoderCall call{context, input.position_ids, key_mask_of("attention_mask", input.attention_mask, {sizes.batch, cached + sizes.time}), input.starts};
  call.mask_given = input.attention_mask.defined();
  call.cache = input.cache;
  if (input.past) call.past = std::make_shared<Past>(*input.past);
  if (!call.positions.defined()) call.positions = positions_from(call.past_length() + cached, sizes.time, starts, device());
  if (decoder_->positions_are_limited()) {
    const std::vector<std::int64_t> positions = call.positions.to_vector<std::int64_t>();
    const std::int64_t last = *std::max_element(positions.begin(), positions.end()), limit = config().max_position_embeddings;
    check<ShapeError>(last < limit, "forward: position ", last, " is beyond the ", limit, " that this model has: shorten the text");
  }

  ModelOutput out;
  if (input.want_past) {
    out.past.layers.resize(layers.size());
    call.collected = &out.past;
  }
  const bool again = gradient_checkpointing() && !input.cache && !input.want_past;
  Tensor hidden = decoder_->enter(input.input_ids.defined() ? decoder_->embedding()->forward(input.input_ids, context) : input.inputs_embeds, call);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (input.want_hidden_states) out.hidden_states.push_back(hidden);
    const DecoderLayer& layer = layers[i];
    std::vector<Tensor> besides;
    if (call.past) besides = {call.past->layers[i].keys, call.past->layers[i].values};
    hidden = checkpointed(again, layer, hidden, besides, [&layer, call, i](const Tensor& x, std::span<const Tensor> own_past) {
      if (own_past.empty()) return layer.forward(x, call);
      auto past = std::make_shared<Past>();
      past->layers.resize(i + 1);
      past->layers[i] = {own_past[0], own_past[1]};
      DecoderCall own = call;
      own.past = std::move(past);
      return layer.forward(x, own);
    });
  }
  if (input.cache) input.cache->advance(sizes.time);
  if (task() == Task::causal_lm) finish_language_model(input, hidden, context, out);
  else finish_other_task(input, hidden, context, out);
  return out;
} catch (const DeviceError&) {
  check_one_device("forward");
  throw;
}

// Behind the layers rows are independent of each other, so only those that somebody asked for go on.
void DecoderModel::finish_language_model(const ModelInput& input, const Tensor& last, const ForwardContext& context, ModelOutput& out) const {
  const DecoderSizes sizes{last.size(0), last.size(1)};
  LabelledRows labelled;
  if (input.labels.defined()) {
    labelled = labelled_rows(input, sizes);
    out.labelled = static_cast<std::int64_t>(labelled.rows.size());
    check<StateError>(out.labelled > 0 || input.label_count, "forward: no token of this batch has a label after the shift, so that it has no loss");
  }
  const bool whole = input.want_hidden_states || (input.want_logits && !(input.last_logits_only && !input.labels.defined()));
  const Tensor hidden = whole ? decoder_->final_norm().forward(last, context) : last;
  if (input.want_hidden_states) out.hidden_states.push_back(hidden);
  const auto normed = [&](const Tensor& rows, const ForwardContext& of_rows) { return whole ? rows : decoder_->final_norm().forward(rows, of_rows); };
  const Layer& head = **head_;
  if (input.want_logits) out.logits = head.forward(normed(input.last_logits_only ? slice(hidden, 1, sizes.time - 1) : hidden, context), context);
  if (out.labelled > 0) {
    const Tensor targets = index_tensor(labelled.targets, hidden.device());
    if (input.want_logits && !input.last_logits_only) {
      CrossEntropyOptions options;
      options.reduction = input.label_count ? LossReduction::sum : LossReduction::mean;
      out.loss = cross_entropy(chosen_rows(out.logits, labelled.rows), targets, options);
      if (input.label_count) out.loss = div(out.loss, *input.label_count);
    } else {
      const ForwardContext of_rows = context.for_rows(labelled.rows, sizes.time);
      out.loss = head.forward_loss(normed(chosen_rows(hidden, labelled.rows), of_rows), targets, input.label_count, of_rows);
    }
    out.loss = to_dtype(out.loss, DType::f32);
  } else if (input.labels.defined()) {
    out.loss = scalar(0.0, DType::f32, hidden.device());
  }
}

void DecoderModel::finish_other_task(const ModelInput& input, const Tensor& last, const ForwardContext& context, ModelOutput& out) const {
  const bool pooled = task() == Task::sequence_classification, whole = input.want_hidden_states || !pooled;
  Tensor hidden = whole ? decoder_->final_norm().forward(last, context) : last;
  if (input.want_hidden_states) out.hidden_states.push_back(hidden);
  if (pooled) hidden = chosen_rows(hidden, last_rows(input, {last.size(0), last.size(1)}, config().pad_token_id));
  if (!whole) hidden = decoder_->final_norm().forward(hidden, context);
  if (dropout_) hidden = (*dropout_)->forward(hidden, context);
  finish_task(task(), head_ ? head_->get().get() : nullptr, hidden, input, config(), context, out);
}

void read_decoder(const ConfigReader& config, const std::string& json, DecoderConfig& out) {
  read_common(config, json, out);
  out.initializer_range = config.number("initializer_range", 0.02);
  for (const char* key : {"hidden_dropout", "classifier_dropout"})
    if (config.has(key)) out.classifier_dropout = config.probability(key);
}

void initialize_decoder(PretrainedModel& model, RandomKey key, DType dtype) {
  initialize_normal(model, key, dynamic_cast<DecoderModel&>(model).decoder().config().initializer_range, dtype);
}

}  // namespace cambium
