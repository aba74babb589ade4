// T5 made from configurations: cache, padding, given encoder output, pasts, checkpointing and generation agree; what does not fit is refused.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/generation_seq2seq.h"
#include "nn/kv_cache.h"
#include "tests/tiny_task_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

constexpr double kTolerance = 2e-5;

std::vector<std::string> both_configs() { return {t5_config(), gated_t5_config()}; }

ModelInput example() {
  ModelInput input;
  input.input_ids = int_rows({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
  input.attention_mask = int_rows({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
  input.labels = int_rows({7, 8, 9, 10, 11, 12, -100, -100}, 2);
  return input;
}

Past make_past(std::int64_t length) {
  Past past;
  for (std::uint64_t layer = 0; layer < 3; ++layer)
    past.layers.push_back({random_normal({length, 2, 6}, RandomKey{layer, 1}), random_normal({length, 2, 6}, RandomKey{layer, 2})});
  return past;
}

}  // namespace

TEST_CASE("labels are shifted right behind the start token, and rows without one count nothing") {
  NoGrad no_grad;
  for (const std::string& config : both_configs()) {
    const auto model = model_for(Task::seq2seq_lm, config);
    ModelInput input = example();
    const ModelOutput found = model->forward(input);
    CHECK(found.labelled == 6);
    ModelInput explicit_ids = example();
    explicit_ids.decoder_input_ids = int_rows({0, 7, 8, 9, 0, 11, 12, 0}, 2);
    CHECK(difference_of(model->forward(explicit_ids).logits, found.logits) == 0.0);
    const std::vector<double> logits = found.logits.to_vector<double>(), labels = input.labels.to_vector<double>();
    double sum = 0.0;
    for (std::size_t row = 0; row < 8; ++row) {
      if (labels[row] < 0) continue;
      double total = 0.0;
      for (std::size_t v = 0; v < 50; ++v) total += std::exp(logits[row * 50 + v]);
      sum += std::log(total) - logits[row * 50 + static_cast<std::size_t>(labels[row])];
    }
    CHECK(std::fabs(found.loss.item() - sum / 6) <= kTolerance);
    input.want_logits = false;
    CHECK(std::fabs(model->forward(input).loss.item() - sum / 6) <= kTolerance);
    input.label_count = 24.0;
    CHECK(std::fabs(model->forward(input).loss.item() - sum / 24) <= kTolerance);
  }
}

TEST_CASE("the encoder's padding stands on either side or nowhere, and its output may be given") {
  NoGrad no_grad;
  const auto model = model_for(Task::seq2seq_lm, gated_t5_config());
  ModelInput alone;
  alone.input_ids = int_rows({5, 35, 8});
  alone.decoder_input_ids = int_rows({0, 11, 12});
  const ModelOutput expected = model->forward(alone);
  for (const bool left : {false, true}) {
    ModelInput padded;
    padded.input_ids = int_rows(left ? std::vector<std::int64_t>{3, 14, 15, 9, 26, 0, 0, 5, 35, 8} : std::vector<std::int64_t>{3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
    padded.attention_mask = int_rows(left ? std::vector<std::int64_t>{1, 1, 1, 1, 1, 0, 0, 1, 1, 1} : std::vector<std::int64_t>{1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
    padded.decoder_input_ids = int_rows({0, 7, 8, 0, 11, 12}, 2);
    CHECK(difference_of(slice(model->forward(padded).logits, 0, 1), expected.logits) <= kTolerance);
  }
  ModelInput given;
  given.encoder_output = expected.encoder_output;
  given.decoder_input_ids = alone.decoder_input_ids;
  CHECK(difference_of(model->forward(given).logits, expected.logits) == 0.0);
  given.decoder_attention_mask = int_rows({1, 1, 0});
  CHECK(difference_of(slice(model->forward(given).logits, 1, 0, 2), slice(expected.logits, 1, 0, 2)) <= kTolerance);
}

TEST_CASE("token by token with a cache gives the same logits, behind a past as well") {
  NoGrad no_grad;
  const Past past = make_past(3);
  for (const std::string& config : both_configs())
    for (const Past* before : {static_cast<const Past*>(nullptr), &past}) {
      const auto model = model_for(Task::seq2seq_lm, config);
      ModelInput whole = example();
      whole.labels = Tensor();
      whole.past = before;
      whole.decoder_input_ids = int_rows({0, 7, 8, 9, 0, 11, 12, 13}, 2);
      const Tensor expected = model->forward(whole).logits;
      const auto cache = model->make_cache(2, 4);
      for (const auto& [first, last] : {std::pair<std::int64_t, std::int64_t>{0, 2}, {2, 3}, {3, 4}}) {
        ModelInput step;
        if (first == 0) step.input_ids = whole.input_ids;
        step.attention_mask = whole.attention_mask;
        step.decoder_input_ids = contiguous(slice(whole.decoder_input_ids, 1, first, last));
        step.past = before;
        step.cache = cache.get();
        CHECK(difference_of(model->forward(step).logits, slice(expected, 1, first, last)) <= kTolerance);
      }
      CHECK(cache->length() == 4);
      whole.cache = cache.get();
      CHECK_THROWS_WITH_AS(model->forward(whole), doctest::Contains("cache holds"), StateError);
    }
  const auto model = model_for(Task::seq2seq_lm, t5_config());
  ModelInput input = example();
  input.labels = Tensor();
  input.decoder_input_ids = int_rows({0, 0}, 2);
  const Tensor plain = model->forward(input).logits;
  input.past = &past;
  CHECK(difference_of(model->forward(input).logits, plain) > 1e-2);
}

TEST_CASE("gradient checkpointing gives the same gradients, those of bias and past among them, with dropout") {
  for (const std::string& config : {t5_config(), t5_config(R"(, "feed_forward_proj": "gated-gelu")")}) {
    std::string dropped = config;
    dropped.replace(dropped.find("\"dropout_rate\": 0.0"), 19, "\"dropout_rate\": 0.3");
    for (const std::string& text : {config, dropped}) {
      const auto model = model_for(Task::seq2seq_lm, text);
      Past past = make_past(2);
      ModelInput input = example();
      input.past = &past;
      for (Past::Layer& layer : past.layers)
        for (Tensor* x : {&layer.keys, &layer.values}) x->set_requires_grad(true);
      const auto run = [&] {
        std::vector<Tensor> all = gradients_of(*model, input);
        for (const Past::Layer& layer : past.layers)
          for (Tensor x : {layer.keys, layer.values}) {
            all.push_back(x.grad());
            x.reset_grad();
          }
        return all;
      };
      const std::vector<Tensor> plain = run();
      for (const Tensor& g : plain) CHECK(g.defined());
      model->set_gradient_checkpointing(true);
      CHECK(largest_difference_of(run(), plain) <= 1e-6);  // sums over layers in another order
    }
  }
}

TEST_CASE("generation: batched as alone, with the cache as without, greedy and sampled, ended by the end token") {
  for (const std::string& config : both_configs()) {
    const auto model = model_for(Task::seq2seq_lm, config);
    const Past past = make_past(2);
    for (const bool sampled : {false, true})
      for (const Past* before : {static_cast<const Past*>(nullptr), &past}) {
        GenerationOptions options;
        options.max_new_tokens = 6;
        options.eos_token_ids = std::vector<std::int64_t>();
        options.sampling.do_sample = sampled;
        options.key = RandomKey{5, 0};
        options.past = before;
        ModelInput both = example(), one;
        both.labels = Tensor();
        const auto rows = generate_seq2seq(*model, both, options);
        CHECK(rows[0].size() == 6);
        options.use_cache = false;
        CHECK(generate_seq2seq(*model, both, options) == rows);
        one.input_ids = int_rows({3, 14, 15, 9, 26});
        CHECK(generate_seq2seq(*model, one, options).front() == rows[0]);
        NoGrad no_grad;
        ModelInput read;
        read.input_ids = one.input_ids;
        read.decoder_input_ids = int_rows({0});
        one.input_ids = Tensor();
        one.encoder_output = model->forward(read).encoder_output;
        CHECK(generate_seq2seq(*model, one, options).front() == rows[0]);
        CHECK(generate(*model, both.input_ids, both.attention_mask, options) == rows);
        options.eos_token_ids = {rows[0][2]};
        options.use_cache = true;
        CHECK(generate_seq2seq(*model, both, options)[0].back() == rows[0][2]);
        CHECK(generate_seq2seq(*model, both, options)[0].size() <= 3);
      }
  }
}

TEST_CASE("features of the decoder, and of the encoder alone") {
  NoGrad no_grad;
  const auto whole = model_for(Task::feature_extraction, t5_config());
  ModelInput input = example();
  input.labels = Tensor();
  CHECK_THROWS_WITH_AS(whole->forward(input), doctest::Contains("decoder_input_ids"), StateError);
  input.decoder_input_ids = int_rows({0, 7, 0, 11}, 2);
  CHECK(whole->forward(input).logits.shape() == Shape{2, 2, 16});
  const auto encoder = model_for(Task::feature_extraction, t5_config(R"(, "architectures": ["T5EncoderModel"])"));
  CHECK_THROWS_WITH_AS(encoder->forward(input), doctest::Contains("decoder_input_ids"), StateError);
  input.decoder_input_ids = Tensor();
  input.want_hidden_states = true;
  const ModelOutput found = encoder->forward(input);
  CHECK(found.logits.shape() == Shape{2, 5, 16});
  CHECK(found.hidden_states.size() == 3);
  CHECK(difference_of(found.hidden_states.back(), found.logits) == 0.0);
  CHECK_THROWS_AS(encoder->make_cache(1, 1), StateError);
}

TEST_CASE("sixteen bits: bfloat16 stays near float32, float16 is refused with the reason") {
  NoGrad no_grad;
  const auto model = model_for(Task::seq2seq_lm, gated_t5_config());
  const Tensor exact = model->forward(example()).logits;
  model->to(DType::bf16);
  const ModelOutput found = model->forward(example());
  CHECK(found.logits.dtype() == DType::bf16);
  CHECK(found.loss.dtype() == DType::f32);
  CHECK(difference_of(to_dtype(found.logits, DType::f32), exact) <= 0.03 * max(abs(exact)).item());  // some twenty roundings to 8 bits
  model->to(DType::f16);
  CHECK_THROWS_WITH_AS(model->forward(example()), doctest::Contains("65504"), DTypeError);
  CHECK_THROWS_WITH_AS(model_from_config(t5_config(), Task::seq2seq_lm, {}, {.dtype = DType::f16}), doctest::Contains("bfloat16"), DTypeError);
}

TEST_CASE("input and settings that do not fit are refused by name") {
  NoGrad no_grad;
  const auto model = model_for(Task::seq2seq_lm, t5_config());
  const auto refused = [&](const ModelInput& input, const char* word) { CHECK_THROWS_WITH_AS(model->forward(input), doctest::Contains(word), Error); };
  ModelInput input = example();
  input.position_ids = int_rows({0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, 2);
  refused(input, "position_ids");
  input = example();
  input.encoder_output = zeros({2, 5, 16});
  refused(input, "encoder_output");
  input = example();
  input.input_ids = Tensor();
  input.encoder_output = zeros({1, 5, 16});
  input.attention_mask = Tensor();
  refused(input, "the decoder 2");
  input = example();
  input.labels = int_rows({-100, -100, -100, -100}, 2);
  refused(input, "has a label");
  input = example();
  input.decoder_input_ids = int_rows({0, 0}, 2);
  refused(input, "labels");
  Past past = make_past(2);
  past.layers.pop_back();
  input = example();
  input.past = &past;
  refused(input, "3 layers");
  CHECK_THROWS_WITH_AS(model_for(Task::seq2seq_lm, t5_config(R"(, "feed_forward_proj": "gated-mish")")), doctest::Contains("mish"), ConfigError);
  CHECK_THROWS_WITH_AS(model_for(Task::seq2seq_lm, t5_config(R"(, "is_decoder": true)")), doctest::Contains("is_decoder"), ConfigError);
  CHECK_THROWS_WITH_AS(model_for(Task::sequence_classification, t5_config()), doctest::Contains("T5ForConditionalGeneration"), ConfigError);
}
