// BERT made from configurations: masks, packing, pasts, heads and checkpointing agree; what does not fit is refused.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/kv_cache.h"
#include "tests/tiny_task_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

constexpr double kTolerance = 1e-5;

const std::vector<std::int64_t> kFirst{3, 14, 15, 9, 26}, kSecond{5, 35, 8};

Past make_past(std::int64_t length) {
  Past past;
  for (std::uint64_t layer = 0; layer < 2; ++layer)
    past.layers.push_back({random_normal({length, 4, 4}, RandomKey{layer, 1}), random_normal({length, 4, 4}, RandomKey{layer, 2})});
  return past;
}

ModelInput alone(const std::vector<std::int64_t>& ids) {
  ModelInput input;
  input.input_ids = int_rows(ids);
  return input;
}

ModelInput packed() {
  std::vector<std::int64_t> both = kFirst;
  both.insert(both.end(), kSecond.begin(), kSecond.end());
  ModelInput input = alone(both);
  input.starts = from_vector(std::vector<std::int32_t>{0, 5, 8}, {3});
  return input;
}

}  // namespace

TEST_CASE("padding on either side and packing change nothing, with a past and without") {
  NoGrad no_grad;
  const Past past = make_past(3);
  const auto model = model_for(Task::token_classification, bert_config(R"(, "id2label": {"0": "a", "1": "b", "2": "c"})"));
  for (const Past* before : {static_cast<const Past*>(nullptr), &past}) {
    ModelInput one = alone(kFirst), two = alone(kSecond), both = packed();
    one.past = two.past = both.past = before;
    const Tensor first = model->forward(one).logits, second = model->forward(two).logits, together = model->forward(both).logits;
    CHECK(first.shape() == Shape{1, 5, 3});
    CHECK(difference_of(slice(together, 1, 0, 5), first) <= kTolerance);
    CHECK(difference_of(slice(together, 1, 5, 8), second) <= kTolerance);
    ModelInput padded;
    padded.past = before;
    padded.input_ids = int_rows({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
    padded.attention_mask = int_rows({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
    CHECK(difference_of(slice(slice(model->forward(padded).logits, 0, 1), 1, 0, 3), second) <= kTolerance);
    const std::int64_t p = before ? 3 : 0;
    padded.input_ids = int_rows({3, 14, 15, 9, 26, 0, 0, 5, 35, 8}, 2);
    padded.attention_mask = to_dtype(int_rows({1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, 2), DType::f32);
    padded.position_ids = int_rows({p, p + 1, p + 2, p + 3, p + 4, p, p, p, p + 1, p + 2}, 2);
    CHECK(difference_of(slice(slice(model->forward(padded).logits, 0, 1), 1, 2), second) <= kTolerance);
  }
  // A past is seen at all.
  ModelInput one = alone(kFirst);
  const Tensor plain = model->forward(one).logits;
  one.past = &past;
  CHECK(difference_of(model->forward(one).logits, plain) > 1e-2);
}

TEST_CASE("the last layer computes first tokens only, and nobody sees it") {
  const auto model = model_for(Task::sequence_classification, bert_config(R"(, "id2label": {"0": "a", "1": "b", "2": "c"})"));
  const Past past = make_past(2);
  for (const bool with_past : {false, true}) {
    ModelInput input;
    input.input_ids = int_rows({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
    input.attention_mask = int_rows({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
    input.labels = from_vector(std::vector<std::int64_t>{2, 0}, {2});
    if (with_past) input.past = &past;
    const std::vector<Tensor> narrow = gradients_of(*model, input);
    const Tensor few = model->forward(input).logits;
    input.want_hidden_states = true;
    CHECK(difference_of(model->forward(input).logits, few) <= kTolerance);
    CHECK(largest_difference_of(gradients_of(*model, input), narrow) <= kTolerance);
    ModelInput both = packed();
    both.past = input.past;
    CHECK(difference_of(model->forward(both).logits, few) <= kTolerance);
  }
}

TEST_CASE("packed rows have the loss of separate ones, for every task") {
  NoGrad no_grad;
  for (const Task task : {Task::sequence_classification, Task::token_classification, Task::question_answering}) {
    CAPTURE(name_of(task));
    const auto model = model_for(task, bert_config());
    ModelInput one = alone(kFirst), two = alone(kSecond), both = packed();
    const auto each = [](std::int64_t a) { return from_vector(std::vector<std::int64_t>{a}, {1}); };
    double first = 5, second = 3;
    if (task == Task::question_answering) {
      one.start_positions = each(1), one.end_positions = each(4), two.start_positions = each(0), two.end_positions = each(2);
      both.start_positions = from_vector(std::vector<std::int64_t>{1, 0}, {2});
      both.end_positions = from_vector(std::vector<std::int64_t>{4, 2}, {2});
      first = second = 1;
    } else if (task == Task::sequence_classification) {
      one.labels = each(1), two.labels = each(0);
      both.labels = from_vector(std::vector<std::int64_t>{1, 0}, {2});
      first = second = 1;
    } else {
      one.labels = int_rows({0, 1, 1, 0, 1}), two.labels = int_rows({1, 0, 1}), both.labels = int_rows({0, 1, 1, 0, 1, 1, 0, 1});
    }
    const ModelOutput together = model->forward(both);
    const double expected = (first * model->forward(one).loss.item() + second * model->forward(two).loss.item()) / (first + second);
    CHECK(std::fabs(together.loss.item() - expected) <= kTolerance);
    CHECK(together.labelled == static_cast<std::int64_t>(first + second));
    both.label_count = 16.0;
    both.want_logits = false;
    const ModelOutput counted = model->forward(both);
    CHECK(std::fabs(counted.loss.item() - expected * (first + second) / 16.0) <= kTolerance);
    CHECK_FALSE(counted.logits.defined());
  }
}

TEST_CASE("embeddings stand for ids, segments default to the first, features have a pooler") {
  NoGrad no_grad;
  const auto model = model_for(Task::feature_extraction, bert_config());
  ModelInput input = alone(kFirst);
  const ModelOutput found = model->forward(input);
  CHECK(found.pooled.shape() == Shape{1, 16});
  CHECK(found.logits.shape() == Shape{1, 5, 16});
  input.token_type_ids = int_rows({0, 0, 0, 0, 0});
  CHECK(difference_of(model->forward(input).logits, found.logits) == 0.0);
  input.token_type_ids = int_rows({0, 0, 1, 1, 1});
  CHECK(difference_of(model->forward(input).logits, found.logits) > 1e-2);
  ModelInput embedded;
  const auto table = std::dynamic_pointer_cast<Layer>(model->child(model->input_embedding_path()).module());
  REQUIRE(table);
  embedded.inputs_embeds = table->forward(int_rows(kFirst), {});
  CHECK(difference_of(model->forward(embedded).logits, found.logits) == 0.0);
}

TEST_CASE("gradient checkpointing gives the same gradients, of a past as well, with dropout") {
  const auto model = model_for(Task::token_classification, R"({"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.4})");
  Past past = make_past(2);
  ModelInput input = alone(kFirst);
  input.labels = int_rows({0, 1, 1, 0, 1});
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
  CHECK(plain.back().defined());
  model->set_gradient_checkpointing(true);
  CHECK(largest_difference_of(run(), plain) == 0.0);
}

TEST_CASE("sixteen bits stay near float32") {
  NoGrad no_grad;
  for (const auto& [dtype, bound] : {std::pair{DType::bf16, 0.15}, {DType::f16, 0.02}}) {
    const auto model = model_for(Task::feature_extraction, bert_config());
    const Tensor exact = model->forward(alone(kFirst)).logits;
    model->to(dtype);
    const Tensor found = model->forward(alone(kFirst)).logits;
    CHECK(found.dtype() == dtype);
    CHECK(difference_of(to_dtype(found, DType::f32), exact) <= bound);  // values reach 3; a layer rounds about ten times to 8 or 11 bits
  }
}

TEST_CASE("input that does not fit is refused by name") {
  NoGrad no_grad;
  const auto model = model_for(Task::sequence_classification, bert_config());
  const auto refused = [&](const ModelInput& input, const char* word) { CHECK_THROWS_WITH_AS(model->forward(input), doctest::Contains(word), Error); };
  ModelInput input;
  refused(input, "input_ids");
  input = alone(kFirst);
  input.decoder_input_ids = int_rows({1});
  refused(input, "decoder_input_ids");
  input = alone(kFirst);
  input.last_logits_only = true;
  refused(input, "last_logits_only");
  input = alone(kFirst);
  input.token_type_ids = int_rows({0, 1});
  refused(input, "token_type_ids");
  input.token_type_ids = int_rows({0, 0, 0, 0, 2});
  CHECK_THROWS_AS(model->forward(input), Error);
  input = alone(std::vector<std::int64_t>(33, 1));
  refused(input, "32");
  input = packed();
  input.attention_mask = int_rows({1, 1, 1, 1, 1, 1, 1, 1});
  refused(input, "attention_mask");
  input = packed();
  input.starts = from_vector(std::vector<std::int32_t>{0, 5, 5, 8}, {4});
  refused(input, "empty");
  input = alone(kFirst);
  Past past = make_past(2);
  past.layers.pop_back();
  input.past = &past;
  refused(input, "2 layers");
  input = alone(kFirst);
  input.start_positions = input.end_positions = from_vector(std::vector<std::int64_t>{1}, {1});
  refused(input, "question answering");
  CHECK_THROWS_AS(model->make_cache(1, 8), StateError);
}

TEST_CASE("settings that would change the maths are refused by name") {
  const auto refused = [](const std::string& more, const char* word) {
    CHECK_THROWS_WITH_AS(model_for(Task::feature_extraction, bert_config(more)), doctest::Contains(word), ConfigError);
  };
  refused(R"(, "position_embedding_type": "relative_key")", "position_embedding_type");
  refused(R"(, "is_decoder": true)", "is_decoder");
  refused(R"(, "add_cross_attention": true)", "add_cross_attention");
  refused(R"(, "hidden_act": "mish")", "mish");
  refused(R"(, "problem_type": "ranking")", "ranking");
  refused(R"(, "num_labels": 3, "id2label": {"0": "a"})", "num_labels");
  refused(R"(, "id2label": {"0": "a", "2": "b"})", "id2label");
  CHECK_THROWS_WITH_AS(model_for(Task::causal_lm, bert_config()), doctest::Contains("BertForSequenceClassification"), ConfigError);
}
