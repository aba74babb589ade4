// Training gives the same bits for any number of threads, on shapes that are cut into several pieces of work, padded, ragged and packed.
#include <doctest/doctest.h>

#include "kernels/parallel.h"
#include "peft/peft_model.h"
#include "tests/tiny_models.h"
#include "train/trainer.h"

using namespace cambium;
using namespace cambium::test;

namespace {

constexpr std::int64_t kVocabulary = 600;

std::shared_ptr<PretrainedModel> model() {
  return AutoModelForCausalLM::from_config(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 600, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    "hidden_act": "silu", "initializer_range": 0.1})", RandomKey{3, 0});
}

Dataset rows() {
  Dataset data;
  data.kind = DataKind::tokens;
  for (std::int64_t i = 0; i < 24; ++i) {
    Example example;
    example.line = i + 1;
    for (std::int64_t t = 0; t < 10 + (i * 11) % 37; ++t) {
      example.ids.push_back((i * 71 + t * t * 3 + 1) % kVocabulary);
      example.labels.push_back(t > i % 3 ? example.ids.back() : -100);
    }
    data.examples.push_back(example);
  }
  data.count();
  return data;
}

struct Trained {
  std::vector<double> losses, adapter;
};

Trained trained(const Dataset& data, BatchLayout layout, bool packing) {
  LoraConfig config;
  config.r = 5;
  config.lora_dropout = 0.1;
  config.target_modules = {"q_proj", "v_proj", "down_proj"};
  PeftModel peft(model(), config);
  Trainable trainable;
  trainable.format.layout = layout;
  trainable.parameters = peft.trainable_parameters();
  trainable.forward = [&peft](const ModelInput& input, const ForwardContext& context) { return peft.forward(input, context); };
  TrainOptions options;
  options.steps = 20;
  options.batch_size = 4;
  options.learning_rate = 1e-2;
  options.max_length = 64;
  options.packing = packing;
  Trained out;
  out.losses = train(trainable, data, options).losses;
  for (const auto& [name, slot] : trainable.parameters)
    for (const double v : slot->tensor.to_vector<double>()) out.adapter.push_back(v);
  return out;
}

}  // namespace

TEST_CASE("20 steps: losses and adapter for 1, 2, 3 and 4 threads") {
  const Dataset data = rows();
  const struct { const char* name; BatchLayout layout; bool packing; } kinds[] = {{"padded", BatchLayout::padded, false}, {"ragged", BatchLayout::ragged, false}, {"packed", BatchLayout::ragged, true}};
  for (const auto& kind : kinds) {
    CAPTURE(kind.name);
    Trained one;
    for (const int threads : {1, 2, 3, 4}) {
      CAPTURE(threads);
      kernels::set_threads(threads);
      const Trained now = trained(data, kind.layout, kind.packing);
      if (threads == 1) one = now;
      REQUIRE(now.losses.size() == 20);
      CHECK(now.losses.back() < now.losses.front());
      CHECK(now.losses == one.losses);
      CHECK(now.adapter == one.adapter);
    }
  }
  kernels::set_threads(0);
}
