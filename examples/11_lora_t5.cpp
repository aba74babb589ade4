// The first program of PEFT's page on tuners: LoRA on the queries and values of a T5. The real weights cannot be had here, so the T5 is a small one with random weights.
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main() {
  auto model = tiny::t5();
  LoraConfig config{.r = 8, .target_modules = {"q", "v"}, .lora_alpha = 32, .lora_dropout = 0.01};
  config.task_type = TaskType::SEQ_2_SEQ_LM;
  auto lora_model = get_peft_model(model, config);
  lora_model.print_trainable_parameters();

  const Dataset data = tiny::rows(Task::seq2seq_lm);
  Trainable trainable;
  trainable.forward = [&](const ModelInput& input, const ForwardContext& context) { return lora_model.forward(input, context); };
  trainable.parameters = lora_model.trainable_parameters();
  TrainOptions options;
  options.steps = 30;
  options.learning_rate = 1e-2;
  const TrainResult result = train(trainable, data, options);
  std::cout << "loss " << result.losses.front() << " -> " << result.losses.back() << '\n';
}
