// How many parameters LoRA and IA3 train in models of full size, built without memory.
#include <doctest/doctest.h>

#include "peft/peft_model.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

struct Counts {
  std::int64_t trainable, all;
  std::string line;
};

Counts counts(const std::string& config, Task task, const PeftConfig& adapter) {
  auto peft = get_peft_model(model_from_config(config, task, {}, {.meta = true}), adapter);
  return {peft.trainable_parameter_count(), peft.parameter_count(), peft.trainable_parameters_line()};
}

constexpr const char* kT5Base = R"({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_decoder_layers": 12,
  "num_heads": 12, "vocab_size": 32128, "relative_attention_num_buckets": 32, "feed_forward_proj": "relu", "tie_word_embeddings": true, "decoder_start_token_id": 0, "pad_token_id": 0})";
constexpr const char* kBertBase = R"({"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
  "num_attention_heads": 12, "vocab_size": 28996, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "num_labels": 2})";
constexpr const char* kLlama7B = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
  "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": false, "hidden_act": "silu", "rms_norm_eps": 1e-6})";

}  // namespace

TEST_CASE("t5-base") {
  const std::int64_t base = 222903552;
  CHECK(model_from_config(kT5Base, Task::seq2seq_lm, {}, {.meta = true})->parameter_count() == base);
  // PEFT's documentation gives 223,843,584 for all of them: it is of a version that gave each of the 72 wrapped layers a bias of 768 that the model does not have.
  const Counts lora = counts(kT5Base, Task::seq2seq_lm, LoraConfig{.task_type = TaskType::SEQ_2_SEQ_LM});
  CHECK(lora.trainable == 884736);
  CHECK(lora.all == base + 884736);
  CHECK(lora.all + 72 * 768 == 223843584);
  CHECK(lora.line == "trainable params: 884,736 || all params: 223,788,288 || trainable%: 0.3953");
  CHECK(counts(kT5Base, Task::seq2seq_lm, LoraConfig{.use_dora = true}).trainable == 884736 + 72 * 768);
  CHECK(counts(kT5Base, Task::seq2seq_lm, IA3Config{}).trainable == 72 * 768 + 24 * 3072);
  CHECK(counts(kT5Base, Task::seq2seq_lm, LoraConfig{.target_modules = {"encoder.embed_tokens"}}).trainable == 8 * (32128 + 768));
}

TEST_CASE("bert-base with a head of two classes, llama of seven billion") {
  const std::int64_t base = 108311810, head = 768 * 2 + 2;
  CHECK(model_from_config(kBertBase, Task::sequence_classification, {}, {.meta = true})->parameter_count() == base);
  const Counts lora = counts(kBertBase, Task::sequence_classification, LoraConfig{.task_type = TaskType::SEQ_CLS});
  CHECK(lora.trainable == 24 * 8 * 1536 + head);
  CHECK(lora.all == base + 24 * 8 * 1536 + head);  // the head is there twice: original and copy
  const Counts ia3 = counts(kBertBase, Task::sequence_classification, IA3Config{.task_type = TaskType::SEQ_CLS});
  CHECK(ia3.trainable == 24 * 768 + 12 * (768 + 3072) + head);
  const Counts llama = counts(kLlama7B, Task::causal_lm, LoraConfig{});
  CHECK(llama.trainable == 4194304);
  CHECK(llama.all == 6742609920);
  CHECK(llama.line == "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622");
  CHECK(counts(kLlama7B, Task::causal_lm, IA3Config{}).trainable == 32 * (4096 + 4096 + 11008));
  CHECK(counts(kLlama7B, Task::causal_lm, LoraConfig{.trainable_token_indices = {5, 7}}).trainable == 4194304 + 2 * 4096);
}
