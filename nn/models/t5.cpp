// T5: encoder, decoder, and the loss over labelled rows only.
#include "nn/models/t5.h"

#include <cmath>

#include "nn/linear.h"
#include "nn/models/heads.h"
#include "nn/models/inputs.h"

namespace cambium {

T5::T5(const ModelClass& chosen, T5Config config, DType dtype) : config_(std::move(config)), task_(chosen.task), architecture_(chosen.architecture) {
  shared_.set(std::make_shared<Embedding>(meta({config_.vocab_size, config_.hidden_size}, dtype)));
  encoder_.set(std::make_shared<T5Stack>(config_, false, shared_->weight, dtype));
  if (architecture_ == "T5EncoderModel") return;
  decoder_.emplace(*this, "decoder", std::make_shared<T5Stack>(config_, true, shared_->weight, dtype));
  if (task_ != Task::seq2seq_lm) return;
  auto head = std::make_shared<Linear>(meta({config_.vocab_size, config_.hidden_size}, dtype));
  if (config_.tie_word_embeddings) head->weight().tie(shared_->weight);
  lm_head_.emplace(*this, "lm_head", std::move(head));
}

std::unique_ptr<KvCache> T5::make_cache(std::int64_t batch, std::int64_t capacity) const {
  check<StateError>(decoder_.has_value(), "make_cache: ", architecture_, " is an encoder: it generates nothing and has no cache");
  return std::make_unique<KvCache>(config_.num_decoder_layers, batch, capacity, config_.num_attention_heads, config_.head_dim, shared_->weight.get().dtype(), device());
}

Tensor T5::encode(const ModelInput& input, const ForwardContext& context, ModelOutput& out) const {
  if (input.encoder_output.defined()) {
    const Tensor& given = input.encoder_output;
    check<StateError>(!input.input_ids.defined() && !input.inputs_embeds.defined(), "forward: encoder_output stands for the encoder: leave input_ids and inputs_embeds away");
    check<ShapeError>(given.rank() == 3 && given.size(2) == config_.hidden_size, "forward: expected encoder_output (batch, time, ", config_.hidden_size, "), found ", given.shape());
    return given;
  }
  const auto [batch, time] = token_sizes("input_ids", input.input_ids, "inputs_embeds", input.inputs_embeds, config_.hidden_size);
  T5Call call;
  call.context = context;
  call.key_mask = key_mask_of("attention_mask", input.attention_mask, {batch, time});
  const Tensor embeddings = input.input_ids.defined() ? encoder_->embed_tokens->forward(input.input_ids, context) : input.inputs_embeds;
  return encoder_->forward(embeddings, std::move(call), gradient_checkpointing(), input.want_hidden_states ? &out.encoder_hidden_states : nullptr);
}

/// The labels behind the start token, without their last; padding where there is no label.
Tensor T5::decoder_ids(const ModelInput& input) const {
  if (input.decoder_input_ids.defined()) {
    check<ShapeError>(input.decoder_input_ids.rank() == 2 && input.decoder_input_ids.count() > 0, "forward: expected decoder_input_ids (batch, time), found ",
                      input.decoder_input_ids.shape());
    return input.decoder_input_ids;
  }
  check<StateError>(input.labels.defined(), "forward: a decoder needs decoder_input_ids, or labels to make them of");
  check<ShapeError>(input.labels.rank() == 2 && input.labels.count() > 0, "forward: expected labels (batch, time), found ", input.labels.shape());
  const std::optional<std::int64_t> start = config_.decoder_start_token_id, pad = config_.pad_token_id;
  check<ConfigError>(start && pad, "forward: the configuration has no ", start ? "pad_token_id" : "decoder_start_token_id", ": give decoder_input_ids");
  std::vector<std::int64_t> ids = input.labels.to_vector<std::int64_t>();
  const std::int64_t width = input.labels.size(1);
  for (std::int64_t at = static_cast<std::int64_t>(ids.size()) - 1; at >= 0; --at) {
    std::int64_t& id = ids[static_cast<std::size_t>(at)];
    id = at % width == 0 ? *start : ids[static_cast<std::size_t>(at - 1)];
    if (id == -100) id = *pad;
  }
  return from_vector(ids, input.labels.shape(), input.labels.device());
}

void T5::finish(const Tensor& decoded, const ModelInput& input, const ForwardContext& context, ModelOutput& out) const {
  const std::int64_t batch = decoded.size(0), time = decoded.size(1);
  const auto scaled = [&](const Tensor& x) { return config_.scale_decoder_outputs ? mul(x, 1.0 / std::sqrt(static_cast<double>(config_.hidden_size))) : x; };
  if (input.want_logits) {
    // The loss reads the same logits unless only the last ones are wanted.
    out.logits = (*lm_head_)->forward(scaled(input.last_logits_only ? slice(decoded, 1, time - 1) : decoded), context);
  }
  if (!input.labels.defined()) return;
  check_shape("labels", input.labels, {batch, time});
  std::vector<std::int64_t> rows, targets;
  const std::vector<std::int64_t> labels = input.labels.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == -100) continue;
    rows.push_back(static_cast<std::int64_t>(i));
    targets.push_back(labels[i]);
  }
  out.labelled = static_cast<std::int64_t>(rows.size());
  check<StateError>(out.labelled > 0 || input.label_count, "forward: nothing in this batch has a label, so that it has no loss");
  if (out.labelled == 0) {
    out.loss = scalar(0.0, DType::f32, decoded.device());
    return;
  }
  const Tensor index = from_vector(rows, {out.labelled}, decoded.device()), wanted = from_vector(targets, {out.labelled}, decoded.device());
  const auto chosen = [&](const Tensor& x) { return index_select(reshape(x, {batch * time, x.size(2)}), 0, index); };
  if (input.want_logits && !input.last_logits_only) {
    CrossEntropyOptions options;
    options.reduction = LossReduction::sum;
    out.loss = div(cross_entropy(chosen(out.logits), wanted, options), input.label_count.value_or(static_cast<double>(out.labelled)));
  } else {
    out.loss = (*lm_head_)->forward_loss(scaled(chosen(decoded)), wanted, input.label_count, context.for_rows(rows, time));
  }
  out.loss = to_dtype(out.loss, DType::f32);
}

ModelOutput T5::forward(const ModelInput& given, const ForwardContext& context) const try {
  const ModelInput input = on_device(given, device());
  refuse_members({{"position_ids", input.position_ids.defined()}, {"token_type_ids", input.token_type_ids.defined()}, {"starts", input.starts.defined()},
                  {"start_positions", input.start_positions.defined()}, {"end_positions", input.end_positions.defined()}, {"want_past", input.want_past}});
  check<DTypeError>(shared_->weight.get().dtype() != DType::f16, "forward: ", kT5NoFloat16);
  if (!decoder_)
    refuse_members({{"decoder_input_ids", input.decoder_input_ids.defined()}, {"decoder_attention_mask", input.decoder_attention_mask.defined()},
                    {"encoder_output", input.encoder_output.defined()}, {"past", input.past != nullptr}, {"cache", input.cache != nullptr},
                    {"last_logits_only", input.last_logits_only}});
  if (task_ == Task::feature_extraction) check_labels(task_, input);
  ModelOutput out;
  // Keys and values of the encoder's output lie in the cache after the first call.
  const bool encoded_before = input.cache && input.cache->has_cross();
  if (encoded_before)
    check<StateError>(!input.input_ids.defined() && !input.inputs_embeds.defined() && !input.encoder_output.defined(),
                      "forward: the cache holds what the encoder gave: give decoder_input_ids and the attention_mask of the encoder's tokens only");
  else
    out.encoder_output = encode(input, context, out);
  if (!decoder_) {
    out.hidden_states = std::move(out.encoder_hidden_states);
    if (input.want_logits) out.logits = out.encoder_output;
    return out;
  }

  const Tensor ids = decoder_ids(input);
  const std::int64_t batch = ids.size(0), time = ids.size(1), cached = input.cache ? input.cache->length() : 0;
  const Tensor source = encoded_before ? input.cache->cross(0).first : out.encoder_output;
  check<ShapeError>(source.size(0) == batch, "forward: the encoder has ", source.size(0), " rows, the decoder ", batch);
  if (input.cache) check<ShapeError>(input.cache->batch() == batch, "forward: the cache is for ", input.cache->batch(), " rows, the input has ", batch);
  if (input.past) check_past(*input.past, static_cast<std::size_t>(config_.num_decoder_layers));
  T5Call call;
  call.context = context;
  call.key_mask = key_mask_of("decoder_attention_mask", input.decoder_attention_mask, {batch, cached + time});
  call.encoded = out.encoder_output;
  call.encoded_mask = key_mask_of("attention_mask", input.attention_mask, {batch, source.size(1)});
  if (input.past) call.past = *input.past;
  call.cache = input.cache;
  const Tensor decoded = (*decoder_)->forward((*decoder_)->embed_tokens->forward(ids, context), std::move(call), gradient_checkpointing(),
                                              input.want_hidden_states ? &out.hidden_states : nullptr);
  if (input.cache) input.cache->advance(time);
  if (lm_head_) finish(decoded, input, context, out);
  else if (input.want_logits) out.logits = input.last_logits_only ? slice(decoded, 1, time - 1) : decoded;
  return out;
} catch (const DeviceError&) {
  check_one_device("forward");
  throw;
}

}  // namespace cambium
