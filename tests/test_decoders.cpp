// Decoders: settings of GPT-J and Falcon, ALiBi, gradient checkpointing, 16-bit weights, and heads of other tasks.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/device.h"
#include "tensor/json.h"
#include "peft/peft_model.h"
#include "tests/decoder_configs.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

std::shared_ptr<PretrainedModel> make(const std::string& config, DType dtype = DType::f32) {
  LoadOptions options;
  options.dtype = dtype;
  return AutoModelForCausalLM::from_config(config, RandomKey{7, 0}, options);
}

Tensor ids(const std::vector<std::int64_t>& values, std::int64_t rows = 1) { return from_vector(values, {rows, static_cast<std::int64_t>(values.size()) / rows}); }

double difference(const Tensor& a, const Tensor& b) { return max(abs(sub(to_dtype(a, DType::f32), to_dtype(b, DType::f32)))).item(); }

ModelInput labelled_input() {
  ModelInput input;
  input.input_ids = input.labels = ids({3, 14, 15, 9, 26, 5, 35, 8, 1, 2, 7, 7, 40, 41, 3, 2}, 2);
  input.want_logits = false;
  return input;
}

LoraConfig lora_everywhere() {
  LoraConfig config;
  config.r = 2;
  config.target_modules = {"c_attn", "q_proj", "v_proj", "query_key_value"};
  config.init_lora_weights = false;  // B is not 0, so that every gradient has something to say
  return config;
}

}  // namespace

TEST_CASE("settings of GPT-J and Falcon that are impossible or unknown are refused by name") {
  const auto refused = [](const std::string& config, const char* word) { CHECK_THROWS_WITH_AS(make(config), doctest::Contains(word), ConfigError); };
  refused(gptj_config(R"(, "activation_function": "mish")"), "mish");
  refused(R"({"model_type": "gptj", "vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 10})", "'rotary_dim': expected at most the head size 8, found 10");
  refused(R"({"model_type": "gptj", "vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 3})", "even");
  refused(falcon_40b_config(R"(, "parallel_attn": false)"), "parallel_attn");
  refused(falcon_config(R"(, "num_ln_in_parallel_attn": 2)"), "'num_ln_in_parallel_attn': expected 1, found 2");
  refused(falcon_40b_config(R"(, "num_ln_in_parallel_attn": 3)"), "'num_ln_in_parallel_attn': expected 1 or 2, found 3");
  refused(R"({"model_type": "falcon", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "new_decoder_architecture": true,
    "num_kv_heads": 3})", "'num_kv_heads': 4 attention heads are no multiple of 3");
  refused(falcon_config(R"(, "rope_scaling": {"type": "dynamic", "factor": 2.0})"), "dynamic");
}

TEST_CASE("Falcon's ALiBi pulls towards later keys by slopes that bfloat16 can hold") {
  NoGrad no_grad;
  // Without queries and keys all scores are biases: the values' mean has weights e^(slope p / sqrt(D)).
  const auto model = make(R"({"model_type": "falcon", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.4,
    "alibi": true, "multi_query": false, "parallel_attn": false, "bias": true})");
  const std::int64_t heads = 4, d = 4, time = 3;
  Tensor weight = model->child("transformer.h.0.self_attention.query_key_value").module()->own_parameters()[0]->get();
  for (std::int64_t h = 0; h < heads; ++h) fill_into(slice(weight, 0, 3 * d * h, 3 * d * h + 2 * d), 0.0);
  ModelInput input;
  input.input_ids = ids({3, 14, 15});
  const Tensor plain = model->forward(input).logits;
  // A pad before the row changes nothing, since positions follow the mask; without ALiBi's mask they would.
  ModelInput padded;
  padded.input_ids = ids({0, 3, 14, 15});
  padded.attention_mask = ids({0, 1, 1, 1});
  CHECK(difference(slice(model->forward(padded).logits, 1, 1), plain) <= 1e-5);
  // Swapping the two seen before the last token changes its value: positions count.
  ModelInput swapped;
  swapped.input_ids = ids({14, 3, 15});
  CHECK(difference(slice(model->forward(swapped).logits, 1, time - 1), slice(plain, 1, time - 1)) > 1e-3);
}

TEST_CASE("gradient checkpointing gives the same gradients from less memory, with adapters on a frozen base, dropout and a past") {
  for (const std::string& config : decoder_configs()) {
    INFO(config);
    auto peft = get_peft_model(make(config), lora_everywhere(), {.key = RandomKey{3, 0}});
    Past past;
    {
      NoGrad no_grad;
      ModelInput prompt;
      prompt.input_ids = ids({4, 5, 6});
      prompt.want_past = true;
      past = peft.model().forward(prompt).past;
    }
    std::vector<Tensor> leaves;
    for (Past::Layer& layer : past.layers)
      for (Tensor* x : {&layer.keys, &layer.values}) leaves.push_back((*x = clone(*x)).set_requires_grad(true));
    for (const NamedParameter& parameter : peft.trainable_parameters()) leaves.push_back(parameter.second->tensor);
    ModelInput input = labelled_input();
    const auto gradients = [&](bool again) {
      peft.model().set_gradient_checkpointing(again);
      // The context of the call is gone before the backward pass.
      const auto context = std::make_unique<ForwardContext>(ForwardContext{.training = true, .key = RandomKey{9, 0}});
      // As a prompt's encoder makes it: not of leaves, and all of one tensor.
      const Tensor one = add(mul(sum(past.layers[0].keys), 0.0), 1.0);
      const auto made = std::make_unique<Past>(past);
      for (Past::Layer& layer : made->layers) layer = {mul(layer.keys, one), mul(layer.values, one)};
      input.past = made.get();
      const Tensor loss = peft.forward(input, *context).loss;
      return grad(std::span(&loss, 1), leaves);
    };
    const std::vector<Tensor> plain = gradients(false), again = gradients(true);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      REQUIRE(plain[i].defined());
      REQUIRE(again[i].defined());
      CHECK(difference(plain[i], again[i]) == 0.0);
    }
  }
}

TEST_CASE("a checkpointed decoder keeps one activation a layer") {
  const std::string config = R"({"model_type": "gpt2", "vocab_size": 50, "n_embd": 64, "n_layer": 8, "n_head": 4, "n_positions": 256})";
  auto peft = get_peft_model(make(config), lora_everywhere(), {.key = RandomKey{3, 0}});
  ModelInput input;
  std::vector<std::int64_t> tokens(4 * 256);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int64_t>(i * i % 50);
  input.input_ids = input.labels = ids(tokens, 4);
  input.want_logits = false;
  std::vector<Tensor> leaves, first;
  for (const NamedParameter& parameter : peft.trainable_parameters()) leaves.push_back(parameter.second->tensor);
  const auto peak = [&](bool again, std::vector<Tensor>& gradients) {
    peft.model().set_gradient_checkpointing(again);
    const std::int64_t before = kernels::memory_statistics(Device{}).live_bytes;
    kernels::reset_peak(Device{});
    const Tensor loss = peft.forward(input, {.training = true, .key = RandomKey{9, 0}}).loss;
    gradients = grad(std::span(&loss, 1), leaves);
    return kernels::memory_statistics(Device{}).peak_bytes - before;
  };
  std::vector<Tensor> second;
  const std::int64_t plain = peak(false, first), again = peak(true, second);
  INFO("peak ", plain, " bytes, checkpointed ", again);
  CHECK(3 * again < plain);
  // Dropout made the same masks again.
  for (std::size_t i = 0; i < leaves.size(); ++i) CHECK(difference(first[i], second[i]) == 0.0);
}

TEST_CASE("16-bit bases with float32 adapters stay 16-bit and near the float32 model") {
  for (const std::string& config : decoder_configs())
    for (const DType dtype : {DType::bf16, DType::f16}) {
      INFO(config, ", ", dtype);
      auto wide = get_peft_model(make(config), lora_everywhere(), {.key = RandomKey{3, 0}});
      auto narrow = get_peft_model(make(config, dtype), lora_everywhere(), {.key = RandomKey{3, 0}});
      // The float32 model with the same, rounded, weights: what differs is the arithmetic.
      std::vector<std::pair<std::string, Tensor>> rounded;
      for (const auto& [name, slot] : narrow.named_parameters()) {
        const bool adapter = name.find("lora_") != std::string::npos;
        CHECK(slot->tensor.dtype() == (adapter ? DType::f32 : dtype));
        CHECK(slot->tensor.requires_grad() == adapter);
        rounded.emplace_back(name, to_dtype(detach(slot->tensor), DType::f32));
      }
      wide.load_state_dict(rounded);
      for (const auto& [name, slot] : wide.named_parameters()) slot->tensor.set_requires_grad(name.find("lora_") != std::string::npos);
      const auto run = [&](const PeftModel& model) {
        std::vector<Tensor> out, leaves;
        for (const NamedParameter& parameter : model.trainable_parameters()) leaves.push_back(parameter.second->tensor);
        const Tensor loss = model.forward(labelled_input(), {.training = true}).loss;
        out = grad(std::span(&loss, 1), leaves);
        out.push_back(detach(loss));
        return out;
      };
      const std::vector<Tensor> expected = run(wide), found = run(narrow);
      REQUIRE(expected.size() == found.size());
      CHECK(found.back().dtype() == DType::f32);
      // Activations are rounded to 8 (bfloat16) or 11 bits after each of some ten steps a layer: relative bounds of 2^-4 and 2^-7 on gradients of adapters, as norms.
      const double bound = dtype == DType::bf16 ? 1.0 / 16 : 1.0 / 128;
      CHECK(difference(expected.back(), found.back()) <= bound * std::fabs(expected.back().item()));
      for (std::size_t i = 0; i + 1 < found.size(); ++i) {
        CHECK(found[i].dtype() == DType::f32);
        CHECK(norm(sub(found[i], expected[i])).item() <= 2 * bound * norm(expected[i]).item() + 1e-6);
      }
    }
}

namespace {

std::shared_ptr<PretrainedModel> make_for(Task task, const std::string& config) {
  LoadOptions options;
  if (task == Task::sequence_classification || task == Task::token_classification) options.num_labels = 3;
  return model_from_config(config.substr(0, config.rfind('}')) + R"(, "pad_token_id": 0, "classifier_dropout": 0.5})", task, RandomKey{7, 0}, options);
}

bool has_parameter(const Module& model, const std::string& path) {
  for (const auto& [name, slot] : model.named_parameters())
    if (name == path) return true;
  return false;
}

}  // namespace

TEST_CASE("sequence classification reads the last token that is no padding, padded or packed") {
  NoGrad no_grad;
  for (const std::string& config : decoder_configs()) {
    INFO(config);
    const auto model = make_for(Task::sequence_classification, config);
    CHECK(has_parameter(*model, "score.weight"));
    CHECK_FALSE(has_parameter(*model, "score.bias"));
    ModelInput a, b, both, packed;
    a.input_ids = ids({3, 14, 15, 9, 26});
    b.input_ids = ids({5, 35, 8});
    a.want_hidden_states = true;
    const ModelOutput first = model->forward(a);
    const Tensor second = model->forward(b).logits;
    REQUIRE(first.logits.shape() == Shape{1, 3});
    // The head on the hidden state of the last token.
    const Tensor weight = model->child("score").module()->own_parameters()[0]->get();
    CHECK(difference(linear(select(first.hidden_states.back(), 1, 4), weight), first.logits) <= 1e-6);
    both.input_ids = ids({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
    both.labels = from_vector(std::vector<std::int64_t>{2, 0}, {2});
    const ModelOutput together = model->forward(both);
    CHECK(difference(together.logits, cat({first.logits, second})) <= 2e-5);
    CHECK(difference(together.loss, cross_entropy(together.logits, both.labels)) <= 1e-6);
    CHECK(together.labelled == 2);
    packed.input_ids = ids({3, 14, 15, 9, 26, 5, 35, 8});
    packed.starts = from_vector(std::vector<std::int32_t>{0, 5, 8}, {3});
    CHECK(difference(model->forward(packed).logits, together.logits) <= 2e-5);
    // Embeddings do not tell what is padding: the last position stands for the row.
    ModelInput embeds;
    embeds.inputs_embeds = embedding(both.input_ids, model->child(model->input_embedding_path()).module()->own_parameters()[0]->get());
    ModelInput whole = both;
    whole.labels = Tensor();
    whole.want_hidden_states = true;
    CHECK(difference(model->forward(embeds).logits, linear(select(model->forward(whole).hidden_states.back(), 1, 4), weight)) <= 2e-5);
    ModelInput last = a;
    last.last_logits_only = true;
    CHECK_THROWS_WITH_AS(model->forward(last), doctest::Contains("last_logits_only"), StateError);
  }
  const auto model = model_from_config(gpt2_config(), Task::sequence_classification, RandomKey{7, 0});
  ModelInput two;
  two.input_ids = ids({1, 2, 3, 4}, 2);
  CHECK_THROWS_WITH_AS(model->forward(two), doctest::Contains("pad_token_id"), ConfigError);
}

TEST_CASE("token classification, question answering and features of decoders, by the names of transformers") {
  NoGrad no_grad;
  for (const std::string& config : decoder_configs()) {
    INFO(config);
    const std::string type = parse_json(config, "config").at("model_type").get<std::string>();
    const bool llama_like = type != "gpt2" && type != "gptj" && type != "falcon";
    const auto bare = make_for(Task::feature_extraction, config), answers = make_for(Task::question_answering, config);
    CHECK(has_parameter(*bare, llama_like ? "norm.weight" : "ln_f.weight"));
    CHECK(bare->input_embedding_path() == (type == "falcon" ? "word_embeddings" : llama_like ? "embed_tokens" : "wte"));
    ModelInput input;
    input.input_ids = ids({3, 14, 15, 9, 26, 5, 35, 8}, 2);
    input.want_hidden_states = true;
    const ModelOutput features = bare->forward(input);
    CHECK(features.logits.shape() == Shape{2, 4, 16});
    CHECK(difference(features.logits, features.hidden_states.back()) == 0.0);
    input.want_hidden_states = false;

    CHECK(has_parameter(*answers, "qa_outputs.bias"));
    CHECK(answers->input_embedding_path().starts_with(llama_like && type == "mistral" ? "model." : "transformer."));
    input.start_positions = from_vector(std::vector<std::int64_t>{0, 2}, {2});
    input.end_positions = from_vector(std::vector<std::int64_t>{1, 3}, {2});
    const ModelOutput spans = answers->forward(input);
    CHECK(spans.start_logits.shape() == Shape{2, 4});
    CHECK(spans.loss.defined());
    input.start_positions = input.end_positions = Tensor();

    if (type == "gptj") {
      CHECK_THROWS_WITH_AS(make_for(Task::token_classification, config), doctest::Contains("token_classification"), ConfigError);
      continue;
    }
    const auto tokens = make_for(Task::token_classification, config);
    CHECK(has_parameter(*tokens, llama_like ? "score.bias" : "classifier.bias"));
    input.labels = ids({0, 1, -100, 2, 2, 1, 0, -100}, 2);
    const ModelOutput tagged = tokens->forward(input);
    CHECK(tagged.logits.shape() == Shape{2, 4, 3});
    CHECK(tagged.labelled == 6);
    // Dropout stands before the head.
    CHECK(difference(tokens->forward(input, {.training = true, .key = RandomKey{1, 0}}).logits, tagged.logits) > 1e-3);
  }
}
