// GPT-2 keeps its weights as (in, out), which PEFT calls fan_in_fan_out. The GPT-2 is a small one with random weights.
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main() {
  auto model = AutoModelForCausalLM::from_config(R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128,
    "vocab_size": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0})", RandomKey{1});
  LoraConfig config{.r = 8, .target_modules = {"c_attn", "c_proj"}, .lora_alpha = 16, .fan_in_fan_out = true};
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
  const Tensor delta = lora_model.get_delta_weight("transformer.h.0.attn.c_attn", "default");
  std::cout << "what the adapter adds to c_attn is stored like c_attn: " << delta.shape() << '\n';
}
