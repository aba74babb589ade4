// The forward pass of decoders: positions, masks, layers, and the loss over labelled rows only.
#include "nn/models/causal_lm.h"

#include <algorithm>

#include "autograd/ops/attention.h"

namespace cambium {

namespace {

/// Number of tokens and rows, after checking that the parts of the input fit each other.
std::pair<std::int64_t, std::int64_t> checked_sizes(const ModelInput& input, std::int64_t hidden_size) {
  check<ShapeError>(input.input_ids.defined() != input.inputs_embeds.defined(), "forward: give either input_ids or inputs_embeds");
  const Tensor& tokens = input.input_ids.defined() ? input.input_ids : input.inputs_embeds;
  if (input.input_ids.defined())
    check<ShapeError>(tokens.rank() == 2, "forward: expected input_ids (batch, time), found ", tokens.shape());
  else
    check<ShapeError>(tokens.rank() == 3 && tokens.size(2) == hidden_size, "forward: expected inputs_embeds (batch, time, ", hidden_size, "), found ", tokens.shape());
  const std::int64_t batch = tokens.size(0), time = tokens.size(1);
  check<ShapeError>(batch > 0 && time > 0, "forward: there are no tokens: found ", tokens.shape());
  for (const auto& [name, tensor] : {std::pair{"labels", input.labels}, {"position_ids", input.position_ids}})
    check<ShapeError>(!tensor.defined() || tensor.shape() == Shape{batch, time}, "forward: expected ", name, " ", Shape{batch, time}, ", found ",
                      tensor.defined() ? tensor.shape() : Shape());
  return {batch, time};
}

/// Members that decoders have no use for, and combinations that mean nothing.
void check_members(const ModelInput& input) {
  for (const auto& [name, tensor] :
       {std::pair{"token_type_ids", input.token_type_ids}, {"decoder_input_ids", input.decoder_input_ids}, {"decoder_attention_mask", input.decoder_attention_mask},
        {"encoder_output", input.encoder_output}, {"start_positions", input.start_positions}, {"end_positions", input.end_positions}})
    check<StateError>(!tensor.defined(), "forward: this model has no use for ", name, ": leave it away");
  if (input.want_past)
    check<StateError>(!input.cache && !input.past && !input.starts.defined(), "forward: a past is made of one row of tokens, without a cache, a past or packed sequences");
}

void check_past(const Past& past, std::size_t layers) {
  check<ShapeError>(past.layers.size() == layers, "forward: expected a past of ", layers, " layers, found ", past.layers.size());
  const std::int64_t length = past.layers.front().keys.defined() ? past.length() : 0;
  for (std::size_t i = 0; i < layers; ++i) {
    const auto& [keys, values] = past.layers[i];
    check<ShapeError>(keys.defined() && values.defined() && keys.rank() == 3 && keys.size(0) == length && keys.shape() == values.shape(), "forward: past of layer ", i,
                      ": expected keys and values (", length, ", heads, head size), found ", keys.defined() ? concat_text(keys.shape()) : "none", " and ",
                      values.defined() ? concat_text(values.shape()) : "none");
  }
}

Tensor int64_tensor(const std::vector<std::int64_t>& values, const Shape& shape, Device device) { return from_vector(values, shape, device); }

/// 0..T-1 behind what past and cache hold, starting again at each packed sequence.
Tensor default_positions(const ModelInput& input, std::int64_t batch, std::int64_t time, Device device) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(batch * time));
  const std::int64_t before = input.past ? input.past->length() : 0, first = before + (input.cache ? input.cache->length() : 0);
  for (std::int64_t i = 0; i < batch * time; ++i) positions[static_cast<std::size_t>(i)] = first + i % time;
  if (input.starts.defined()) {
    const std::vector<std::int64_t> starts = input.starts.to_vector<std::int64_t>();
    for (std::size_t s = 0; s + 1 < starts.size(); ++s)
      for (std::int64_t i = starts[s]; i < starts[s + 1]; ++i) positions[static_cast<std::size_t>(i)] = before + i - starts[s];
  }
  return int64_tensor(positions, {batch, time}, device);
}

/// Bool, or undefined when every token is real.
Tensor key_mask_of(const ModelInput& input, std::int64_t batch, std::int64_t keys) {
  const Tensor& mask = input.attention_mask;
  if (!mask.defined()) return {};
  check<ShapeError>(mask.shape() == Shape{batch, keys}, "forward: expected attention_mask ", Shape{batch, keys}, " (with the tokens of the cache), found ", mask.shape());
  std::vector<std::uint8_t> real(static_cast<std::size_t>(mask.count()));
  const std::vector<std::int64_t> values = mask.to_vector<std::int64_t>();
  std::transform(values.begin(), values.end(), real.begin(), [](std::int64_t v) { return static_cast<std::uint8_t>(v != 0); });
  if (std::all_of(real.begin(), real.end(), [](std::uint8_t v) { return v != 0; })) return {};
  return to_dtype(from_vector(real, mask.shape(), mask.device()), DType::boolean);
}

/// The rows of (B T, C) that have a target, and those targets.
struct LabelledRows {
  std::vector<std::int64_t> rows, targets;
};

LabelledRows labelled_rows(const ModelInput& input, std::int64_t batch, std::int64_t time) {
  LabelledRows out;
  const std::vector<std::int64_t> labels = input.labels.to_vector<std::int64_t>();
  std::vector<bool> begins(static_cast<std::size_t>(time) + 1, false);
  if (input.starts.defined())
    for (const std::int64_t start : input.starts.to_vector<std::int64_t>()) begins[static_cast<std::size_t>(start)] = true;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t + 1 < time; ++t) {
      const std::int64_t target = labels[static_cast<std::size_t>(b * time + t + 1)];
      // The first token of a packed sequence does not follow from the last one of the sequence before it.
      if (target == -100 || begins[static_cast<std::size_t>(t + 1)]) continue;
      out.rows.push_back(b * time + t);
      out.targets.push_back(target);
    }
  return out;
}

}  // namespace

AttentionMask DecoderCall::mask(std::int64_t window, double dropout_p, const Module& module) const {
  AttentionMask mask;
  mask.causal = true;
  mask.window = window;
  mask.key_mask = key_mask;
  mask.starts = starts;
  if (context.training && dropout_p > 0.0) {
    mask.dropout_p = dropout_p;
    mask.dropout_key = context.key.fold(module.path());
  }
  return mask;
}

Tensor DecoderCall::attend(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) const {
  const auto place = static_cast<std::size_t>(layer);
  if (collected) collected->layers.at(place) = {select(k, 0, 0), select(v, 0, 0)};
  Tensor keys = k, values = v;
  if (cache) std::tie(keys, values) = cache->append(layer, k, v);
  return past ? attention_with_past(q, keys, values, past->layers.at(place).keys, past->layers.at(place).values, mask) : attention(q, keys, values, mask);
}

Tensor DecoderCall::attend_packed(std::int64_t layer, const Tensor& qkv, const AttentionMask& mask) const {
  if (!cache && !past && !collected) return attention_packed(qkv, mask);
  const std::int64_t heads = qkv.size(2) / 3;
  return attend(layer, slice(qkv, 2, 0, heads), slice(qkv, 2, heads, 2 * heads), slice(qkv, 2, 2 * heads), mask);
}

ModelOutput CausalLM::forward(const ModelInput& input, const ForwardContext& context) const {
  const auto [batch, time] = checked_sizes(input, config().hidden_size);
  const Device device = (input.input_ids.defined() ? input.input_ids : input.inputs_embeds).device();
  const std::int64_t cached = input.cache ? input.cache->length() : 0;
  check_members(input);
  if (input.past) check_past(*input.past, layer_count());
  if (input.want_past) check<ShapeError>(batch == 1, "forward: a past is made of one row of tokens, found ", batch);
  if (input.starts.defined()) {
    check<ShapeError>(batch == 1, "forward: packed sequences need a batch of one row, found ", batch);
    check<StateError>(!input.cache && !input.attention_mask.defined(), "forward: packed sequences go without a cache and without an attention_mask");
    const std::vector<std::int64_t> starts = input.starts.to_vector<std::int64_t>();
    check<ShapeError>(starts.size() >= 2 && starts.front() == 0 && starts.back() == time && std::is_sorted(starts.begin(), starts.end()),
                      "forward: starts must ascend from 0 to ", time, ", found ", starts);
  }
  if (input.cache)
    check<ShapeError>(input.cache->batch() == batch, "forward: the cache is for ", input.cache->batch(), " rows, the input has ", batch);

  DecoderCall call{context, input.position_ids, key_mask_of(input, batch, cached + time), input.starts, input.cache, input.past};
  if (!call.positions.defined()) call.positions = default_positions(input, batch, time, device);
  if (positions_are_limited()) {
    const std::vector<std::int64_t> positions = call.positions.to_vector<std::int64_t>();
    const std::int64_t last = *std::max_element(positions.begin(), positions.end()), limit = config().max_position_embeddings;
    check<ShapeError>(last < limit, "forward: position ", last, " is beyond the ", limit, " that this model has: shorten the text");
  }

  ModelOutput out;
  if (input.want_past) {
    out.past.layers.resize(layer_count());
    call.collected = &out.past;
  }
  Tensor hidden = enter(input.input_ids.defined() ? embed(input.input_ids, context) : input.inputs_embeds, call);
  for (std::size_t i = 0; i < layer_count(); ++i) {
    if (input.want_hidden_states) out.hidden_states.push_back(hidden);
    hidden = run_layer(i, hidden, call);
  }
  if (input.cache) input.cache->advance(time);

  // From here on rows are independent of each other, so only those that somebody asked for go on.
  LabelledRows labelled;
  if (input.labels.defined()) {
    labelled = labelled_rows(input, batch, time);
    out.labelled = static_cast<std::int64_t>(labelled.rows.size());
    check<StateError>(out.labelled > 0 || input.label_count, "forward: no token of this batch has a label after the shift, so that it has no loss");
  }
  // (B, T, N) -> (labelled, N). Bindings are captured by copy: clang 14 takes no reference to them.
  const auto chosen = [&, batch = batch, time = time](const Tensor& x) {
    return index_select(reshape(x, {batch * time, x.size(2)}), 0, int64_tensor(labelled.rows, {out.labelled}, device));
  };
  const bool whole = input.want_hidden_states || (input.want_logits && !(input.last_logits_only && !input.labels.defined()));
  if (whole) {
    hidden = final_norm().forward(hidden, context);
    if (input.want_hidden_states) out.hidden_states.push_back(hidden);
  }
  if (input.want_logits) {
    Tensor rows = input.last_logits_only ? slice(hidden, 1, time - 1) : hidden;
    if (!whole) rows = final_norm().forward(rows, context);
    out.logits = head().forward(rows, context);
  }
  if (out.labelled > 0) {
    const Tensor targets = int64_tensor(labelled.targets, {out.labelled}, device);
    if (input.want_logits && !input.last_logits_only) {
      CrossEntropyOptions options;
      options.reduction = input.label_count ? LossReduction::sum : LossReduction::mean;
      out.loss = cross_entropy(chosen(out.logits), targets, options);
      if (input.label_count) out.loss = div(out.loss, *input.label_count);
    } else {
      Tensor rows = chosen(hidden);
      if (!whole) rows = final_norm().forward(rows, context);
      out.loss = head().forward_loss(rows, targets, input.label_count, context);
    }
    out.loss = to_dtype(out.loss, DType::f32);
  } else if (input.labels.defined()) {
    out.loss = scalar(0.0, DType::f32, device);
  }
  return out;
}

std::unique_ptr<KvCache> CausalLM::make_cache(std::int64_t batch, std::int64_t capacity) const {
  const ModelConfig& c = config();
  DType dtype = DType::f32;
  // Keys have the dtype of what the model computes with: that of its first parameter.
  if (const auto parameters = named_parameters(); !parameters.empty()) dtype = parameters.front().second->tensor.dtype();
  return std::make_unique<KvCache>(c.num_hidden_layers, batch, capacity, c.num_key_value_heads, c.head_dim, dtype);
}

}  // namespace cambium
