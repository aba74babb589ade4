// Prompts and prefixes of models that are not causal: BERT's tasks and T5.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/generation_seq2seq.h"
#include "peft/peft_model.h"
#include "peft/prompt_tuner.h"
#include "tests/tiny_models.h"
#include "tests/tiny_task_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Ids = std::vector<std::int64_t>;

template <class Config>
Config with(std::int64_t tokens, TaskType task) {
  Config c;
  c.num_virtual_tokens = tokens;
  c.task_type = task;
  return c;
}
const PromptTuner& tuner_of(const PeftModel& model) { return dynamic_cast<const PromptTuner&>(*model.base_model); }

std::vector<PeftConfig> configs(TaskType task) { return {with<PromptTuningConfig>(2, task), with<PrefixTuningConfig>(2, task), with<PromptEncoderConfig>(2, task)}; }

ModelInput padded_input() {
  ModelInput input;
  input.input_ids = int_rows({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
  input.attention_mask = int_rows({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
  return input;
}
ModelInput packed_input() {
  ModelInput input;
  input.input_ids = int_rows({3, 14, 15, 9, 26, 5, 35, 8});
  input.starts = from_vector(std::vector<std::int32_t>{0, 5, 8}, {3});
  return input;
}

}  // namespace

TEST_CASE("counts of the reference") {
  const std::string base = R"({"model_type": "bert", "vocab_size": 28996, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0})";
  LoadOptions shapes_only;
  shapes_only.meta = true;
  PeftModel model = get_peft_model(model_from_config(base, Task::sequence_classification, RandomKey{}, shapes_only), with<PrefixTuningConfig>(20, TaskType::SEQ_CLS));
  CHECK(model.trainable_parameter_count() == 370178);
  // PEFT's page counts a head that is trained in place; since then it is a copy beside the original, which counts, too.
  CHECK(model.parameter_count() == 108680450 + 768 * 2 + 2);
}

TEST_CASE("Falcon: as many heads as its cache has") {
  const auto config_of = [](const std::string& more) {
    const std::string json = R"({"model_type": "falcon", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4)" + more + "}";
    PeftModel model = get_peft_model(model_for(Task::causal_lm, json), with<PrefixTuningConfig>(2, TaskType::CAUSAL_LM));
    NoGrad no_grad;
    ModelInput input;
    input.input_ids = int_rows({3, 14, 15, 9});
    CHECK(model.forward(input).logits.shape() == Shape{1, 4, 40});
    return std::get<PrefixTuningConfig>(model.peft_config("default"));
  };
  CHECK(config_of("").token_dim == 8);  // multi_query, as the class has it where the file is silent
  CHECK(config_of("").num_attention_heads == 1);
  CHECK(config_of(R"(, "multi_query": false)").token_dim == 32);
  CHECK(config_of(R"(, "new_decoder_architecture": true, "num_kv_heads": 2)").num_attention_heads == 4);
}

TEST_CASE("packed and padded rows of BERT agree; labels may speak of virtual tokens or not") {
  for (const PeftConfig& config : configs(TaskType::TOKEN_CLS)) {
    CAPTURE(config.index());
    PeftModel model = get_peft_model(model_for(Task::token_classification, bert_config()), config);
    CHECK(std::visit([](const auto& c) { return c.modules_to_save; }, model.peft_config("default")) == std::vector<std::string>{"classifier", "score"});
    NoGrad no_grad;
    const bool prefix = std::holds_alternative<PrefixTuningConfig>(config);
    ModelInput padded = padded_input(), packed = packed_input();
    padded.labels = int_rows({1, 0, 1, -100, 1, 0, 0, 1, -100, -100}, 2);
    packed.labels = int_rows({1, 0, 1, -100, 1, 0, 0, 1});
    const ModelOutput a = model.forward(padded), b = model.forward(packed);
    CHECK(a.labelled == 7);
    CHECK(std::fabs(a.loss.item() - b.loss.item()) <= 1e-5);
    CHECK(a.logits.shape() == Shape{2, prefix ? 5 : 7, 2});
    CHECK(b.logits.shape() == Shape{1, 8, 2});
    CHECK(difference_of(slice(slice(a.logits, 0, 0, 1), 1, prefix ? 0 : 2), slice(b.logits, 1, 0, 5)) <= 1e-5);
    CHECK(difference_of(slice(slice(a.logits, 0, 1, 2), 1, prefix ? 0 : 2, prefix ? 3 : 5), slice(b.logits, 1, 5)) <= 1e-5);
    if (prefix) continue;
    padded.labels = int_rows({-100, -100, 1, 0, 1, -100, 1, -100, -100, 0, 0, 1, -100, -100}, 2);
    CHECK(model.forward(padded).loss.item() == a.loss.item());
  }
}

TEST_CASE("classification of sequences trains prompt and head") {
  for (const PeftConfig& config : configs(TaskType::SEQ_CLS)) {
    CAPTURE(config.index());
    PeftModel model = get_peft_model(model_for(Task::sequence_classification, bert_config()), config);
    ModelInput input = padded_input();
    input.labels = from_vector(Ids{1, 0}, {2});
    input.token_type_ids = int_rows({0, 0, 1, 1, 1, 0, 0, 1, 1, 1}, 2);
    backward(model.forward(input).loss);
    std::size_t heads = 0;
    for (const auto& [key, slot] : model.trainable_parameters()) {
      const std::string& name = key;
      CAPTURE(name);
      CHECK(slot->tensor.grad().defined());
      heads += contains(name, "classifier.modules_to_save.default");
    }
    CHECK(heads == 2);
    std::vector<std::string> keys;
    for (const auto& [key, tensor] : model.base_model->adapter_tensors("default")) keys.push_back(key);
    CHECK(keys == std::vector<std::string>{"prompt_embeddings", "base_model.classifier.weight", "base_model.classifier.bias"});
    // What the prompt says reaches every row.
    NoGrad no_grad;
    const Tensor before = model.forward(input).logits;
    const DisableAdapter off(model);
    CHECK(difference_of(before, model.forward(input).logits) > 1e-4);
  }
}

TEST_CASE("T5: sizes that its attention has, slots as PEFT counts them") {
  PeftModel model = get_peft_model(model_for(Task::seq2seq_lm, t5_config()), with<PrefixTuningConfig>(2, TaskType::SEQ_2_SEQ_LM));
  const auto& c = std::get<PrefixTuningConfig>(model.peft_config("default"));
  CHECK(c.num_layers == 3);
  CHECK(c.num_attention_heads == 2);
  CHECK(c.token_dim == 12);
  CHECK(c.num_transformer_submodules == 2);
  ModelInput input = padded_input();
  input.labels = int_rows({4, 5, 6, 7, 8, -100}, 2);
  const Tensor loss = model.forward(input).loss;
  // By hand: layer l takes slots 4 l and 4 l + 1 of 6.
  const Tensor rows = tuner_of(model).prompt_embeddings("default");
  Past past;
  for (const auto& [k, v] : {std::pair{0, 1}, {4, 5}, {2, 3}})
    past.layers.push_back({reshape(slice(rows, 1, 12 * k, 12 * k + 12), {2, 2, 6}), reshape(slice(rows, 1, 12 * v, 12 * v + 12), {2, 2, 6})});
  input.past = &past;
  CHECK(std::fabs(model.model().forward(input).loss.item() - loss.item()) <= 1e-6);
}

TEST_CASE("T5: prompts before the encoder, generation with and without the cache, an encoder that ran before") {
  for (const PeftConfig& config : configs(TaskType::SEQ_2_SEQ_LM)) {
    CAPTURE(config.index());
    PeftModel model = get_peft_model(model_for(Task::seq2seq_lm, t5_config()), config, {.key = RandomKey{4, 0}});
    NoGrad no_grad;
    ModelInput input = padded_input();
    input.decoder_input_ids = int_rows({0, 5, 9, 0, 3, 4}, 2);
    const ModelOutput whole = model.forward(input);
    CHECK(whole.logits.shape() == Shape{2, 3, 50});
    ModelInput split;
    split.encoder_output = whole.encoder_output;
    split.attention_mask = input.attention_mask;
    split.decoder_input_ids = input.decoder_input_ids;
    CHECK(difference_of(model.forward(split).logits, whole.logits) <= 1e-5);

    GenerationOptions options;
    options.max_new_tokens = 6;
    options.eos_token_ids = Ids();
    const auto cached = model.generate(input.input_ids, input.attention_mask, options);
    options.use_cache = false;
    CHECK(model.generate(input.input_ids, input.attention_mask, options) == cached);
    options.use_cache = true;
    CHECK(model.generate(Ids{5, 35, 8}, options) == cached.at(1));
    const DisableAdapter off(model);
    CHECK(model.generate(input.input_ids, input.attention_mask, options) == generate(model.model(), input.input_ids, input.attention_mask, options));
  }
}
