// How virtual tokens enter the forward pass: as a past of all rows, or before each row's embeddings.
#include <algorithm>

#include "nn/generation_seq2seq.h"
#include "nn/kv_cache.h"
#include "nn/models/inputs.h"
#include "peft/prompt_tuner.h"

namespace cambium {

namespace {

constexpr std::int64_t kNoLabel = -100;

/// Tokens and rows of an input.
const Tensor& tokens_of(const ModelInput& input) {
  check<ShapeError>(input.input_ids.defined() != input.inputs_embeds.defined(), "forward: give either input_ids or inputs_embeds");
  const Tensor& tokens = input.input_ids.defined() ? input.input_ids : input.inputs_embeds;
  check<ShapeError>(tokens.rank() >= 2 && tokens.size(0) > 0 && tokens.size(1) > 0, "forward: there are no tokens: found ", tokens.shape());
  return tokens;
}

/// x (B, T, …) with `piece` (1, N, …) before each row, or before each packed sequence of the one row.
Tensor with_prompt(const Tensor& x, const Tensor& piece, const std::vector<std::int64_t>& starts) {
  Shape shape = piece.shape();
  shape.set(0, x.size(0));
  const Tensor before = broadcast_to(piece, shape);
  if (starts.empty()) return cat({before, x}, 1);
  std::vector<Tensor> parts;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    parts.push_back(before);
    parts.push_back(slice(x, 1, starts[s], starts[s + 1]));
  }
  return cat(parts, 1);
}

/// x[:, i] for every i. By halves: the gradient of a slice is as large as what it was cut from, so one cut after the other would cost its square.
void unstack(const Tensor& x, std::vector<Tensor>& out) {
  const std::int64_t count = x.size(1), half = count / 2;
  if (count == 1) {
    out.push_back(select(x, 1, 0));
    return;
  }
  unstack(slice(x, 1, 0, half), out);
  unstack(slice(x, 1, half), out);
}

/// Leaves the positions of packed sequences where they were given, without those of the prompts between them.
void keep_text(ModelOutput& out, const Tensor& starts, std::int64_t length) {
  std::vector<std::int64_t> places;
  const std::vector<std::int64_t> borders = starts.to_vector<std::int64_t>();
  for (std::size_t s = 0; s + 1 < borders.size(); ++s)
    for (std::int64_t t = borders[s]; t < borders[s + 1]; ++t) places.push_back(t + static_cast<std::int64_t>(s + 1) * length);
  const Tensor index = from_vector(places, {static_cast<std::int64_t>(places.size())}, (out.logits.defined() ? out.logits : out.hidden_states.front()).device());
  if (out.logits.defined()) out.logits = index_select(out.logits, 1, index);
  for (Tensor& state : out.hidden_states) state = index_select(state, 1, index);
}

/// The labels of first tokens, which a prompt's last position predicts, and how many others have one.
struct SplitLabels {
  std::vector<std::int64_t> first;
  std::int64_t others = 0;
};

SplitLabels split_labels(const ModelInput& input, bool fresh) {
  const std::vector<std::int64_t> labels = input.labels.to_vector<std::int64_t>();
  const std::int64_t time = input.labels.size(1);
  std::vector<bool> begins(labels.size(), false);
  if (input.starts.defined()) {
    for (const std::int64_t start : input.starts.to_vector<std::int64_t>())
      if (start >= 0 && start < time) begins[static_cast<std::size_t>(start)] = true;
  } else {
    for (std::size_t at = 0; at < begins.size(); at += static_cast<std::size_t>(time)) begins[at] = true;
  }
  SplitLabels out;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == kNoLabel) continue;
    if (!begins[i]) ++out.others;
    else if (fresh) out.first.push_back(labels[i]);
  }
  return out;
}

/// The sum of cross-entropies of one row of logits (V) against several targets.
Tensor summed_loss(const Tensor& logits, const std::vector<std::int64_t>& targets) {
  const Tensor index = from_vector(targets, {static_cast<std::int64_t>(targets.size())}, logits.device());
  return neg(sum(index_select(log_softmax(to_dtype(logits, DType::f32)), 0, index)));
}

}  // namespace

const PromptTuner::Encoders::Entry* PromptTuner::chosen(const ForwardContext& context) const {
  if (!context.override_adapters) return enabled() && !active_adapters().empty() ? &entry(active_adapters().front()) : nullptr;
  check<StateError>(context.adapters.size() <= 1, "forward: prompts cannot be added up: one adapter at a time, found ", listed(context.adapters));
  return context.adapters.empty() ? nullptr : &entry(context.adapters.front());
}

Tensor PromptTuner::virtual_rows(const Encoders::Entry& adapter, const ForwardContext& context) const {
  ForwardContext own = context;
  own.key = context.key.fold("prompt_encoder");
  const Tensor rows = (*adapter.encoder)->forward(own);
  const auto parameters = word_embedding().named_parameters();
  const Tensor cast = parameters.empty() ? rows : to_dtype(rows, parameters.front().second->tensor.dtype());
  // Of an encoder-decoder's parts the first one is used: there is one input that takes a prompt.
  return adapter.sizes.prefix ? cast : slice(cast, 0, 0, adapter.sizes.tokens);
}

Past PromptTuner::prefix_past(const Encoders::Entry& adapter, const ForwardContext& context) const {
  const PromptSizes& sizes = adapter.sizes;
  std::vector<Tensor> slots;
  unstack(reshape(virtual_rows(adapter, context), {sizes.tokens, 2 * sizes.layers, sizes.heads, sizes.width / sizes.heads}), slots);
  Past past;
  for (std::int64_t layer = 0; layer < sizes.layers; ++layer) {
    // PEFT repeats the 2 L slots for each submodule and gives a layer as many pairs, of which the first one is its own attention's (of two, the second was meant
    // for the encoder's keys and is dropped). So layers of an encoder-decoder share slots, and half of them go unused where L is even.
    const auto slot = [&](std::int64_t which) { return slots[static_cast<std::size_t>((2 * sizes.submodules * layer + which) % (2 * sizes.layers))]; };
    past.layers.push_back({slot(0), slot(1)});
  }
  return past;
}

ModelOutput PromptTuner::forward(const ModelInput& input, const ForwardContext& context) const {
  const Encoders::Entry* adapter = chosen(context);
  if (adapter == nullptr) return model->forward(input, context);
  check<StateError>(input.past == nullptr && !input.want_past, "forward: a prompt stands where a past would: disable the adapter to give or take one");
  ModelInput own = on_device(input, model->device());
  const Task task = model->task();
  if (own.token_type_ids.defined() && (task == Task::causal_lm || task == Task::seq2seq_lm || task == Task::feature_extraction)) {
    warn_once("forward: token_type_ids are dropped: for this task PEFT gives none to a model with a prompt");
    own.token_type_ids = {};
  }
  if (adapter->sizes.prefix) return forward_prefix(*adapter, own, context);
  if (own.position_ids.defined()) {
    warn_once("forward: position_ids are dropped: prompts have positions before those of the text");
    own.position_ids = {};
  }
  // An answer's span competes over all positions of its row at once.
  if (model->is_causal() && task != Task::question_answering) return forward_shared(*adapter, own, context);
  ModelOutput out = model->forward(prepended(*adapter, own, context), context);
  if (own.starts.defined() && (task == Task::token_classification || task == Task::feature_extraction)) keep_text(out, own.starts, adapter->sizes.tokens);
  return out;
}

ModelOutput PromptTuner::forward_prefix(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const {
  const Past past = prefix_past(adapter, context);
  ModelInput own = input;
  own.past = &past;
  if (own.position_ids.defined()) own.position_ids = own.position_ids + static_cast<double>(past.length());
  return model->forward(own, context);
}

ModelOutput PromptTuner::forward_shared(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const {
  const std::int64_t batch = tokens_of(input).size(0), length = adapter.sizes.tokens;
  const Task task = model->task();
  const bool fresh = input.cache == nullptr || input.cache->length() == 0;  // later calls of a generation go on behind what was given then
  const bool leading = fresh && !input.starts.defined() && task != Task::sequence_classification;
  const bool logits = leading && input.want_logits && !input.last_logits_only, states = leading && input.want_hidden_states;

  ModelInput own = input;
  SplitLabels labels;
  if (task == Task::causal_lm && input.labels.defined()) {
    check<ShapeError>(input.labels.rank() == 2, "forward: expected labels (batch, time), found ", input.labels.shape());
    labels = split_labels(input, fresh);
    const std::int64_t labelled = labels.others + static_cast<std::int64_t>(labels.first.size());
    check<StateError>(labelled > 0 || input.label_count, "forward: no token of this batch has a label, so that it has no loss");
    own.label_count = input.label_count.value_or(static_cast<double>(labelled));
  } else if (task == Task::token_classification && input.labels.defined() && input.labels.rank() == 2 && leading && input.labels.size(1) == length + tokens_of(input).size(1)) {
    for (const std::int64_t label : slice(input.labels, 1, 0, length).to_vector<std::int64_t>())
      check<ShapeError>(label == kNoLabel, "forward: labels of virtual tokens must be -100, found ", label);
    own.labels = slice(input.labels, 1, length);
  }

  ModelInput prompt;
  prompt.inputs_embeds = unsqueeze(virtual_rows(adapter, context), 0);
  prompt.want_past = true;
  prompt.want_hidden_states = states;
  prompt.want_logits = logits || !labels.first.empty();
  prompt.last_logits_only = prompt.want_logits && !logits;
  ForwardContext prompt_context = context;
  prompt_context.key = context.key.fold("prompt");
  const ModelOutput before = model->forward(prompt, prompt_context);

  own.past = &before.past;
  if (task == Task::sequence_classification && own.input_ids.defined()) {
    // As in PEFT, which hands over embeddings: without ids the model classifies by the last position, whatever stands there.
    own.inputs_embeds = word_embedding().forward(own.input_ids, context);
    own.input_ids = {};
  }
  ModelOutput out = model->forward(own, context);
  const auto joined = [&](const Tensor& first, const Tensor& rest) {
    return cat({broadcast_to(first, {batch, first.size(1), first.size(2)}), rest}, 1);
  };
  if (logits) out.logits = joined(before.logits, out.logits);
  if (states)
    for (std::size_t i = 0; i < out.hidden_states.size(); ++i) out.hidden_states[i] = joined(before.hidden_states.at(i), out.hidden_states[i]);
  if (!labels.first.empty()) {
    const Tensor last = reshape(slice(before.logits, 1, before.logits.size(1) - 1), {before.logits.size(2)});
    out.loss = out.loss + div(summed_loss(last, labels.first), *own.label_count);
    out.labelled += static_cast<std::int64_t>(labels.first.size());
  }
  return out;
}

ModelInput PromptTuner::prepended(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const {
  const std::int64_t length = adapter.sizes.tokens;
  ModelInput own = input;
  const bool in_cache = input.cache != nullptr && input.cache->has_cross();
  if (input.encoder_output.defined() || in_cache) {  // the encoder has read the prompt; the mask still speaks of the text
    const std::int64_t read = in_cache ? input.cache->cross(0).first.size(1) : input.encoder_output.size(1);
    if (own.attention_mask.defined() && own.attention_mask.rank() == 2 && own.attention_mask.size(1) + length == read)
      own.attention_mask = with_prompt(own.attention_mask, full({1, length}, 1.0, own.attention_mask.dtype(), own.attention_mask.device()), {});
    return own;
  }
  const Tensor& tokens = tokens_of(input);
  const std::int64_t time = tokens.size(1);
  std::vector<std::int64_t> starts;
  if (input.starts.defined()) {
    starts = input.starts.to_vector<std::int64_t>();
    check<ShapeError>(tokens.size(0) == 1 && starts.size() >= 2 && starts.front() == 0 && starts.back() == time && std::is_sorted(starts.begin(), starts.end()),
                      "forward: starts must ascend from 0 to ", time, " in one row, found ", starts);
    std::vector<std::int32_t> shifted;
    for (std::size_t s = 0; s < starts.size(); ++s) shifted.push_back(static_cast<std::int32_t>(starts[s] + static_cast<std::int64_t>(s) * length));
    own.starts = from_vector(shifted, {static_cast<std::int64_t>(shifted.size())}, input.starts.device());
  }
  const auto filled = [&](const Tensor& x, double value) { return x.defined() ? with_prompt(x, full({1, length}, value, x.dtype(), x.device()), starts) : Tensor(); };
  const Tensor embeddings = input.input_ids.defined() ? word_embedding().forward(input.input_ids, context) : input.inputs_embeds;
  own.input_ids = {};
  own.inputs_embeds = with_prompt(embeddings, unsqueeze(to_dtype(virtual_rows(adapter, context), embeddings.dtype()), 0), starts);
  own.attention_mask = filled(input.attention_mask, 1.0);
  own.token_type_ids = filled(input.token_type_ids, 0.0);
  // PEFT leaves it to its caller to give labels to virtual tokens, too; both are understood.
  if (model->task() == Task::token_classification && input.labels.defined() && input.labels.rank() == 2 && input.labels.size(1) == time)
    own.labels = filled(input.labels, static_cast<double>(kNoLabel));
  return own;
}

std::vector<std::vector<std::int64_t>> PromptTuner::generate(const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options, const ForwardContext& context) const {
  const Encoders::Entry* adapter = chosen(context);
  if (adapter == nullptr) return cambium::generate(*model, input_ids, attention_mask, options, context);
  NoGrad no_grad;
  check<StateError>(options.past == nullptr, "generate: a prompt stands where a past would: disable the adapter to give one");
  GenerationOptions own = options;
  Past past;
  if (adapter->sizes.prefix) {
    past = prefix_past(*adapter, context);
  } else if (model->task() == Task::seq2seq_lm) {
    ModelInput read;
    read.input_ids = input_ids;
    read.attention_mask = attention_mask;
    return generate_seq2seq(*model, prepended(*adapter, on_device(read, model->device()), context), options, context);
  } else {
    ModelInput prompt;
    prompt.inputs_embeds = unsqueeze(virtual_rows(*adapter, context), 0);
    prompt.want_past = true;
    prompt.want_logits = false;
    past = model->forward(prompt, context).past;
    own.positions_count_padding = true;
  }
  own.past = &past;
  return cambium::generate(*model, input_ids, attention_mask, own, context);
}

}  // namespace cambium
