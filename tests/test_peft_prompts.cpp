// Prompt tuning, P-tuning and prefix tuning: encoders, sizes, the forward pass against its plain form, generation, adapters by name.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "nn/kv_cache.h"
#include "peft/peft_model.h"
#include "peft/prompt_tuner.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Names = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;

/// start, start + 0.1, … in C order.
Tensor stepped(const Shape& shape, double start) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < shape.count(); ++i) values.push_back(static_cast<float>(start + 0.1 * static_cast<double>(i)));
  return from_vector(values, shape);
}

void set_parameters(const Module& module, const std::vector<std::pair<std::string, double>>& starts) {
  for (const auto& [name, slot] : module.named_parameters()) {
    const auto found = std::find_if(starts.begin(), starts.end(), [&, key = &name](const auto& s) { return s.first == *key; });
    if (found != starts.end()) slot->tensor = stepped(slot->tensor.shape(), found->second);
  }
}

void check_values(const Tensor& found, const std::vector<double>& expected, double tolerance = 1e-6) {
  const std::vector<double> values = found.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::fabs(values[i] - expected[i]) <= tolerance);
}

PromptTuningConfig prompt_config(std::int64_t tokens = 3) {
  PromptTuningConfig c;
  c.num_virtual_tokens = tokens;
  c.task_type = TaskType::CAUSAL_LM;
  return c;
}
PrefixTuningConfig prefix_config(bool projection = false, std::int64_t tokens = 3) {
  PrefixTuningConfig c;
  c.num_virtual_tokens = tokens;
  c.prefix_projection = projection;
  c.task_type = TaskType::CAUSAL_LM;
  return c;
}
PromptEncoderConfig encoder_config(PromptEncoderType type = PromptEncoderType::MLP, std::int64_t tokens = 3) {
  PromptEncoderConfig c;
  c.num_virtual_tokens = tokens;
  c.encoder_reparameterization_type = type;
  c.encoder_hidden_size = 5;
  c.task_type = TaskType::CAUSAL_LM;
  return c;
}
std::vector<PeftConfig> all_configs() {
  return {prompt_config(), prefix_config(), prefix_config(true), encoder_config(), encoder_config(PromptEncoderType::LSTM)};
}

const PromptTuner& tuner_of(const PeftModel& model) { return dynamic_cast<const PromptTuner&>(*model.base_model); }

ModelInput labelled_input() {
  ModelInput input = tiny_input();
  input.labels = from_vector(Ids{1, 5, -100, 30, 7, -100, 8, 8, 39, -100}, {2, 5});
  return input;
}

double difference(const Tensor& a, const Tensor& b) { return largest_difference(a.to_vector<float>(), b.to_vector<float>()); }

/// A causal prompt's plain form: virtual rows before the embeddings of each row, labels -100 before its labels.
ModelInput plain_form(const PeftModel& model, const ModelInput& input) {
  const std::int64_t batch = input.input_ids.size(0);
  const Tensor rows = unsqueeze(tuner_of(model).prompt_embeddings("default"), 0);
  const std::int64_t length = rows.size(1);
  const auto& words = dynamic_cast<const Layer&>(*model.model().child(model.model().input_embedding_path()).module());
  ModelInput out;
  out.inputs_embeds = cat({broadcast_to(rows, {batch, length, rows.size(2)}), words.forward(input.input_ids, {})}, 1);
  if (input.attention_mask.defined()) out.attention_mask = cat({from_vector(Ids(static_cast<std::size_t>(batch * length), 1), {batch, length}), input.attention_mask}, 1);
  if (input.labels.defined()) out.labels = cat({from_vector(Ids(static_cast<std::size_t>(batch * length), -100), {batch, length}), input.labels}, 1);
  return out;
}

}  // namespace

TEST_CASE("encoders give the reference's numbers") {
  NoGrad no_grad;
  SUBCASE("LSTM") {
    PromptEncoder encoder({.rows = 2, .width = 2, .hidden = 1, .lstm = true, .lstm_layers = 1}, RandomKey{1, 0});
    encoder.embedding->weight.set(from_vector(std::vector<float>{1, 0, 0, 1}, {2, 2}));
    set_parameters(encoder, {{"lstm_head.weight_ih_l0", -0.3}, {"lstm_head.weight_hh_l0", 0.1}, {"lstm_head.bias_ih_l0", 0}, {"lstm_head.bias_hh_l0", -0.1},
                             {"lstm_head.weight_ih_l0_reverse", 0.2}, {"lstm_head.weight_hh_l0_reverse", -0.2}, {"lstm_head.bias_ih_l0_reverse", 0.05}, {"lstm_head.bias_hh_l0_reverse", 0},
                             {"mlp_head.0.weight", -0.1}, {"mlp_head.0.bias", 0.1}, {"mlp_head.2.weight", 0.5}, {"mlp_head.2.bias", -0.2}});
    check_values(encoder.forward({}), {0.03241014, 0.21286553, 0.01617409, 0.19089091});
  }
  SUBCASE("MLP") {
    PromptEncoder encoder({.rows = 2, .width = 2, .hidden = 2}, RandomKey{1, 0});
    encoder.embedding->weight.set(from_vector(std::vector<float>{1, -1, 0.5F, 2}, {2, 2}));
    set_parameters(encoder, {{"mlp_head.0.weight", -0.2}, {"mlp_head.0.bias", 0.1}, {"mlp_head.2.weight", 0.3}, {"mlp_head.2.bias", -0.1}, {"mlp_head.4.weight", -0.4}, {"mlp_head.4.bias", 0.2}});
    check_values(encoder.forward({}), {0.182, 0.294, 0.104, 0.264});
  }
  SUBCASE("projected prefix") {
    PrefixEncoder encoder(2, 2, 2, 4, RandomKey{1, 0});
    encoder.embedding->weight.set(from_vector(std::vector<float>{1, -1, 0.5F, 2}, {2, 2}));
    set_parameters(encoder, {{"transform.0.weight", -0.2}, {"transform.0.bias", 0.1}, {"transform.2.weight", 0.3}, {"transform.2.bias", -0.1}});
    check_values(encoder.forward({}), {-0.06013281, 0.0598008, 0.17973439, 0.29966801, -0.007233, 0.12928174, 0.26579645, 0.40231121});
  }
}

TEST_CASE("names and counts of parameters are the reference's") {
  const PromptEncoder mlp({.rows = 20, .width = 1024, .hidden = 128}, RandomKey{});
  CHECK(mlp.parameter_count() == 300288);
  CHECK(VirtualTokens(20, 2 * 36 * 1280, RandomKey{}).parameter_count() == 1843200);  // gpt2-large
  CHECK(VirtualTokens(20, 2 * 24 * 1024, RandomKey{}).parameter_count() == 983040);   // bloomz-560m
  const PromptEncoder lstm({.rows = 4, .width = 8, .hidden = 3, .lstm = true, .lstm_layers = 2}, RandomKey{});
  Names names;
  for (const auto& [name, slot] : lstm.named_parameters()) names.push_back(name);
  for (const char* name : {"embedding.weight", "lstm_head.weight_ih_l0", "lstm_head.weight_hh_l1_reverse", "lstm_head.bias_hh_l1", "mlp_head.0.weight", "mlp_head.2.bias"})
    CHECK(std::count(names.begin(), names.end(), name) == 1);
  CHECK(names.size() == 1 + 16 + 4);
}

TEST_CASE("sizes come from the model, and what is saved is resolved") {
  PeftModel prompt = get_peft_model(tiny_llama(), prompt_config());
  const auto& p = std::get<PromptTuningConfig>(prompt.peft_config("default"));
  CHECK(p.token_dim == 16);
  CHECK(p.num_layers == 2);
  CHECK(p.num_attention_heads == 4);
  CHECK(p.num_transformer_submodules == 1);
  // Grouped heads win over what is given, as in PEFT.
  PrefixTuningConfig given = prefix_config();
  given.token_dim = 16;
  given.num_attention_heads = 4;
  PeftModel prefix = get_peft_model(tiny_llama(), given);
  const auto& f = std::get<PrefixTuningConfig>(prefix.peft_config("default"));
  CHECK(f.token_dim == 8);
  CHECK(f.num_attention_heads == 2);
  CHECK(f.encoder_hidden_size == 8);
  CHECK(tuner_of(prefix).prompt_embeddings("default").shape() == Shape{3, 2 * 2 * 8});
  CHECK(prefix.trainable_parameter_count() == 3 * 32);

  CHECK(contains(error_of<ConfigError>([] { get_peft_model(tiny_llama(), PromptTuningConfig{}); }), "num_virtual_tokens"));
  PromptTuningConfig wide = prompt_config();
  wide.token_dim = 20;
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_llama(), wide); }), "token_dim: embeddings of this model have 16"));
  PrefixTuningConfig odd = prefix_config();
  odd.token_dim = 20;
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_gpt2(), odd); }), "token_dim 20"));
  odd = prefix_config();
  odd.num_layers = 5;
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_gpt2(), odd); }), "num_layers"));
}

TEST_CASE("starting values") {
  PromptTuningConfig c = prompt_config(5);
  c.prompt_tuning_init = PromptTuningInit::TEXT;
  c.prompt_tuning_init_text = "a text";
  c.tokenizer_name_or_path = "nowhere";
  const auto rows_of = [](const PeftModel& model) { return tuner_of(model).prompt_embeddings("default"); };
  const auto words = [](const PeftModel& model, const Ids& ids) {
    NoGrad no_grad;
    return dynamic_cast<const Layer&>(*model.model().child("transformer.wte").module()).forward(from_vector(ids, {static_cast<std::int64_t>(ids.size())}), {});
  };
  PeftModel shorter = get_peft_model(tiny_gpt2(), c, {.prompt_text_ids = {7, 9, 4}});
  CHECK(difference(rows_of(shorter), words(shorter, {7, 9, 4, 7, 9})) == 0);  // repeated whole, then cut
  PeftModel longer = get_peft_model(tiny_gpt2(), c, {.prompt_text_ids = {7, 9, 4, 1, 2, 3}});
  CHECK(difference(rows_of(longer), words(longer, {7, 9, 4, 1, 2})) == 0);
  CHECK_FALSE(error_of<FileError>([&] { get_peft_model(tiny_gpt2(), c); }).empty());

  PromptTuningConfig sampled = prompt_config(6);
  sampled.prompt_tuning_init = PromptTuningInit::SAMPLE_VOCAB;
  PeftModel first = get_peft_model(tiny_gpt2(), sampled, {.key = RandomKey{3, 0}}), again = get_peft_model(tiny_gpt2(), sampled, {.key = RandomKey{3, 0}}),
            other = get_peft_model(tiny_gpt2(), sampled, {.key = RandomKey{4, 0}});
  CHECK(difference(rows_of(first), rows_of(again)) == 0);
  CHECK(difference(rows_of(first), rows_of(other)) > 0);
  Ids all(40);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  const std::vector<float> table = words(first, all).to_vector<float>(), rows = rows_of(first).to_vector<float>();
  for (std::size_t row = 0; row < 6; ++row) {
    bool found = false;
    for (std::size_t id = 0; id < 40; ++id) found = found || std::equal(rows.begin() + static_cast<std::ptrdiff_t>(row * 16), rows.begin() + static_cast<std::ptrdiff_t>(row * 16 + 16), table.begin() + static_cast<std::ptrdiff_t>(id * 16));
    CHECK(found);
  }
  // Standard normal, of which 20 x 64 values have these moments.
  PeftModel random = get_peft_model(tiny_gpt2(), prompt_config(400));
  const std::vector<double> values = rows_of(random).to_vector<double>();
  double mean = 0, squares = 0;
  for (const double v : values) {
    mean += v / static_cast<double>(values.size());
    squares += v * v / static_cast<double>(values.size());
  }
  CHECK(std::fabs(mean) < 0.05);
  CHECK(std::fabs(squares - 1) < 0.06);
  PrefixTuningConfig zero = prefix_config(true);
  zero.init_weights = "zero";
  PeftModel zeros_model = get_peft_model(tiny_gpt2(), zero);
  CHECK(max(abs(rows_of(zeros_model))).item() == 0);
}

TEST_CASE("a shared prompt is what a prompt before every row is") {
  for (const bool llama : {true, false}) {
    CAPTURE(llama);
    for (const bool masked : {false, true}) {
      CAPTURE(masked);
      PeftModel model = get_peft_model(llama ? tiny_llama() : tiny_gpt2(), encoder_config());
      ModelInput input = labelled_input();
      if (masked) input.attention_mask = from_vector(Ids{0, 1, 1, 1, 1, 1, 1, 1, 1, 0}, {2, 5});  // on either side
      const ModelInput plain = plain_form(model, input);
      const ModelOutput expected = model.model().forward(plain);
      input.want_hidden_states = true;
      const ModelOutput found = model.forward(input);
      REQUIRE(found.logits.shape() == Shape{2, 8, 40});
      CHECK(std::fabs(found.loss.item() - expected.loss.item()) <= 1e-5);
      CHECK(found.labelled == expected.labelled);
      REQUIRE(found.hidden_states.size() == 3);
      CHECK(found.hidden_states[2].shape() == Shape{2, 8, 16});
      for (std::int64_t row = 0; row < 2; ++row)  // but for padding
        for (std::int64_t t = 0; t < 8; ++t)
          if (!masked || !((row == 0 && t == 3) || (row == 1 && t == 7)))
            CHECK(difference(select(select(found.logits, 0, row), 0, t), select(select(expected.logits, 0, row), 0, t)) <= 2e-5);

      ModelInput without = input;
      without.want_logits = without.want_hidden_states = false;
      const Tensor loss = model.forward(without).loss;
      CHECK(std::fabs(loss.item() - expected.loss.item()) <= 1e-5);
      without.label_count = 14.0;
      CHECK(std::fabs(model.forward(without).loss.item() - expected.loss.item() * static_cast<double>(expected.labelled) / 14.0) <= 1e-5);
      // Gradients of the encoder, through the past of all layers.
      backward(loss);
      std::vector<Tensor> gradients;
      for (const auto& [name, slot] : model.trainable_parameters()) gradients.push_back(slot->tensor.grad());
      for (const auto& [name, slot] : model.trainable_parameters()) slot->tensor.reset_grad();
      ModelInput recorded = plain;
      const auto& words = dynamic_cast<const Layer&>(*model.model().child(model.model().input_embedding_path()).module());
      const Tensor rows = tuner_of(model).prompt_encoder("default").forward({});
      recorded.inputs_embeds = cat({broadcast_to(unsqueeze(rows, 0), {2, 3, 16}), words.forward(input.input_ids, {})}, 1);
      backward(model.model().forward(recorded).loss);
      std::size_t at = 0;
      for (const auto& [key, slot] : model.trainable_parameters()) {
        const std::string& name = key;
        CAPTURE(name);
        REQUIRE(gradients[at].defined());
        CHECK(difference(gradients[at++], slot->tensor.grad()) <= 2e-5);
      }
    }
  }
}

TEST_CASE("packed rows see the prompt each, and lose as padded ones do") {
  for (const PeftConfig& config : all_configs()) {
    PeftModel model = get_peft_model(tiny_llama(), config);
    NoGrad no_grad;
    ModelInput padded = tiny_input();
    padded.attention_mask = from_vector(Ids{1, 1, 1, 0, 0, 1, 1, 1, 1, 1}, {2, 5});
    padded.labels = from_vector(Ids{1, 5, 9, -100, -100, 2, 8, 8, 39, 11}, {2, 5});
    ModelInput packed;
    packed.input_ids = from_vector(Ids{1, 5, 9, 2, 8, 8, 39, 11}, {1, 8});
    packed.labels = packed.input_ids;
    packed.starts = from_vector(std::vector<std::int32_t>{0, 3, 8}, {3});
    const ModelOutput a = model.forward(padded), b = model.forward(packed);
    CHECK(a.labelled == b.labelled);
    CHECK(a.labelled == (tuner_of(model).config("default").index() == PeftConfig(prefix_config()).index() ? 6 : 8));
    CHECK(std::fabs(a.loss.item() - b.loss.item()) <= 1e-5);
    CHECK(b.logits.shape() == Shape{1, 8, 40});
  }
}

TEST_CASE("labels: a first one counts, none is an error") {
  PeftModel model = get_peft_model(tiny_llama(), prompt_config());
  NoGrad no_grad;
  ModelInput input = tiny_input();
  input.labels = from_vector(Ids{4, -100, -100, -100, -100, -100, -100, -100, -100, -100}, {2, 5});
  const ModelOutput out = model.forward(input);
  CHECK(out.labelled == 1);
  const Tensor last = select(select(out.logits, 0, 0), 0, 2);
  CHECK(std::fabs(out.loss.item() + select(log_softmax(last), 0, 4).item()) <= 1e-5);
  input.labels = from_vector(Ids(10, -100), {2, 5});
  CHECK(contains(error_of<StateError>([&] { model.forward(input); }), "has a label"));
}

TEST_CASE("position ids are dropped by prompts and shifted by prefixes") {
  ModelInput input = tiny_input();
  NoGrad no_grad;
  PeftModel prompt = get_peft_model(tiny_gpt2(), prompt_config());
  const Tensor before = prompt.forward(input).logits;
  input.position_ids = from_vector(Ids{4, 4, 4, 4, 4, 4, 4, 4, 4, 4}, {2, 5});
  CHECK(difference(before, prompt.forward(input).logits) == 0);
  CHECK(prompt.base_model->warnings().size() == 1);
  prompt.forward(input);
  CHECK(prompt.base_model->warnings().size() == 1);  // once
  PeftModel prefix = get_peft_model(tiny_gpt2(), prefix_config());
  input.position_ids = {};
  const Tensor behind = prefix.forward(input).logits;
  input.position_ids = from_vector(Ids{0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, {2, 5});
  CHECK(difference(behind, prefix.forward(input).logits) == 0);
}

TEST_CASE("generation goes on behind the prompt, with the cache and without, whatever the padding") {
  for (const PeftConfig& config : all_configs()) {
    PeftModel model = get_peft_model(tiny_llama(), config, {.key = RandomKey{5, 0}});
    GenerationOptions options;
    options.max_new_tokens = 8;
    options.eos_token_ids = Ids();
    const Ids alone = model.generate(Ids{5, 9, 30}, options);
    options.use_cache = false;
    CHECK(model.generate(Ids{5, 9, 30}, options) == alone);
    // Step by step from the logits.
    NoGrad no_grad;
    Ids text{5, 9, 30};
    for (const std::int64_t token : alone) {
      ModelInput input;
      input.input_ids = from_vector(text, {1, static_cast<std::int64_t>(text.size())});
      input.last_logits_only = true;
      CHECK(argmax(reshape(model.forward(input).logits, {40}), 0).item() == static_cast<double>(token));
      text.push_back(token);
    }
    options.use_cache = true;
    const auto both = model.generate(from_vector(Ids{0, 0, 5, 9, 30, 1, 2, 3, 4, 6}, {2, 5}), from_vector(Ids{0, 0, 1, 1, 1, 1, 1, 1, 1, 1}, {2, 5}), options);
    CHECK(both.at(1) == model.generate(Ids{1, 2, 3, 4, 6}, options));
    // Behind a prompt positions run over padding, so the padded row is another text than the bare one. Prefixes and rotary models know distances of real tokens only.
    if (std::holds_alternative<PrefixTuningConfig>(config)) CHECK(both.at(0) == alone);
    Ids padded{0, 0, 5, 9, 30}, mask{0, 0, 1, 1, 1}, positions{0, 0, 0, 1, 2};
    for (const std::int64_t token : both.at(0)) {
      const Shape shape{1, static_cast<std::int64_t>(padded.size())};
      ModelInput input;
      input.input_ids = from_vector(padded, shape);
      input.attention_mask = from_vector(mask, shape);
      input.position_ids = from_vector(positions, shape);
      input.last_logits_only = true;
      CHECK(argmax(reshape(model.forward(input).logits, {40}), 0).item() == static_cast<double>(token));
      padded.push_back(token);
      mask.push_back(1);
      positions.push_back(positions.back() + 1);
    }
    const DisableAdapter off(model);
    CHECK(model.generate(Ids{5, 9, 30}, options) == generate(model.model(), Ids{5, 9, 30}, options));
  }
}

TEST_CASE("a cache kept by the caller") {
  PeftModel model = get_peft_model(tiny_llama(), prompt_config());
  NoGrad no_grad;
  ModelInput all = tiny_input();
  const Tensor expected = slice(model.forward(all).logits, 1, 3);
  const auto cache = model.model().make_cache(2, 5);
  ModelInput first, second;
  first.input_ids = slice(all.input_ids, 1, 0, 3);
  second.input_ids = slice(all.input_ids, 1, 3);
  first.cache = second.cache = cache.get();
  CHECK(difference(slice(model.forward(first).logits, 1, 3), slice(expected, 1, 0, 3)) <= 2e-5);
  const Tensor rest = model.forward(second).logits;
  CHECK(rest.shape() == Shape{2, 2, 40});  // the prompt's own logits came with the first call
  CHECK(difference(rest, slice(expected, 1, 3)) <= 2e-5);
}

TEST_CASE("adapters by name: switching, deleting, disabling") {
  const std::shared_ptr<PretrainedModel> base = tiny_llama();
  const std::vector<float> plain = logits_of(*base);
  PeftModel model = get_peft_model(base, prompt_config());
  model.add_adapter("other", prompt_config(2), {.key = RandomKey{9, 0}});
  CHECK(model.active_adapters() == Names{"default"});
  CHECK(model.trainable_parameter_count() == 3 * 16);
  const std::vector<float> first = logits_of(model);
  ForwardContext override_context;
  override_context.override_adapters = true;
  override_context.adapters = {"other"};
  const std::vector<float> second = logits_of(model, override_context);
  model.set_adapter("other");
  CHECK(model.trainable_parameter_count() == 2 * 16);
  CHECK(logits_of(model) == second);
  CHECK(first.size() == 2 * 8 * 40);
  CHECK(second.size() == 2 * 7 * 40);
  override_context.adapters = {};
  CHECK(logits_of(model, override_context) == plain);
  {
    const DisableAdapter off(model);
    CHECK(logits_of(model) == plain);
  }
  CHECK(contains(error_of<StateError>([&] { model.set_adapter(Names{"default", "other"}); }), "one of default, other"));
  CHECK(contains(error_of<StateError>([&] { model.merge_adapter(); }), "changes no weights"));
  CHECK_FALSE(error_of<StateError>([&] { model.unmerge_adapter(); }).empty());
  CHECK_FALSE(error_of<StateError>([&] { model.merge_and_unload(); }).empty());
  CHECK_FALSE(error_of<StateError>([&] { model.get_layer_status(); }).empty());
  CHECK_FALSE(error_of<StateError>([&] { model.set_requires_grad({"default"}, true); }).empty());
  CHECK_FALSE(error_of<ConfigError>([&] { model.add_adapter("third", prefix_config()); }).empty());
  CHECK_FALSE(error_of<NameError>([&] { model.add_adapter("other", prompt_config()); }).empty());
  CHECK(model.adapters() == Names{"default", "other"});
  model.delete_adapter("other");
  CHECK(model.active_adapters() == Names{"default"});
  CHECK(logits_of(model) == first);
  CHECK(model.parameter_count() == base->parameter_count() + 3 * 16);
  CHECK(logits_of(*model.unload()) == plain);
  CHECK(model.adapters().empty());

  Past past;
  ModelInput with_past = tiny_input();
  with_past.past = &past;
  PeftModel again = get_peft_model(tiny_llama(), prompt_config());
  CHECK_FALSE(error_of<StateError>([&] { again.forward(with_past); }).empty());
}

TEST_CASE("16-bit bases keep float32 encoders") {
  for (const PeftConfig& config : all_configs()) {
    PeftModel model = get_peft_model(tiny_llama(2, DType::bf16), config);
    for (const auto& [name, slot] : model.trainable_parameters()) CHECK(slot->tensor.dtype() == DType::f32);
    const ModelOutput out = model.forward(labelled_input());
    CHECK(out.logits.dtype() == DType::bf16);
    backward(out.loss);
    for (const auto& [key, slot] : model.trainable_parameters()) {
      const std::string& name = key;
      CAPTURE(name);
      REQUIRE(slot->tensor.grad().defined());
      CHECK(slot->tensor.grad().dtype() == DType::f32);
      CHECK(std::isfinite(sum(slot->tensor.grad()).item()));
    }
  }
}

TEST_CASE("settings without effect are told") {
  PromptEncoderConfig c = encoder_config();
  c.encoder_num_layers = 3;
  PeftModel mlp = get_peft_model(tiny_llama(), c);
  CHECK(contains(mlp.base_model->warnings().at(0), "encoder_num_layers 3"));
  c = encoder_config(PromptEncoderType::LSTM);
  c.encoder_num_layers = 1;
  c.encoder_dropout = 0.2;
  PeftModel lstm = get_peft_model(tiny_llama(), c);
  CHECK(contains(lstm.base_model->warnings().at(0), "one layer"));
}

TEST_CASE("gradient checkpointing changes no gradient") {
  for (const PeftConfig& config : all_configs()) {
    std::vector<std::vector<float>> gradients[2];
    for (const bool on : {false, true}) {
      const auto base = tiny_llama();
      base->set_gradient_checkpointing(on);
      PeftModel model = get_peft_model(base, config, {.key = RandomKey{7, 0}});
      ForwardContext context;
      context.training = true;
      backward(model.forward(labelled_input(), context).loss);
      for (const auto& [name, slot] : model.trainable_parameters()) {
        REQUIRE(slot->tensor.grad().defined());
        gradients[on].push_back(slot->tensor.grad().to_vector<float>());
      }
    }
    for (std::size_t i = 0; i < gradients[0].size(); ++i) CHECK(largest_difference(gradients[0][i], gradients[1][i]) <= 1e-6);
  }
}
