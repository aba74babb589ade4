// LoRA on a GPT-J in 16 bit, as PEFT's page on tuners does it with the 6B model in 8 bit: frozen 16-bit weights, adapters in float32. The GPT-J is a small one with random weights.
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main() {
  LoadOptions half;
  half.dtype = DType::bf16;
  auto model = AutoModelForCausalLM::from_config(R"({"model_type": "gptj", "architectures": ["GPTJForCausalLM"], "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8,
    "n_positions": 128, "vocab_size": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    "tie_word_embeddings": false})", RandomKey{1}, half);
  LoraConfig config{.r = 4, .target_modules = {"q_proj", "v_proj"}, .lora_alpha = 16, .lora_dropout = 0.1, .bias = "none"};
  config.task_type = TaskType::CAUSAL_LM;
  auto lora_model = get_peft_model(model, config);
  lora_model.print_trainable_parameters();

  Trainable trainable;
  trainable.forward = [&](const ModelInput& input, const ForwardContext& context) { return lora_model.forward(input, context); };
  trainable.parameters = lora_model.trainable_parameters();
  TrainOptions options;
  options.steps = 30;
  options.learning_rate = 1e-2;
  const TrainResult result = train(trainable, tiny::rows(Task::causal_lm), options);
  std::cout << "loss " << result.losses.front() << " -> " << result.losses.back() << '\n';
}
