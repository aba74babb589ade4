// (IA)³, prompt tuning, prefix tuning and P-tuning on a T5, with the configurations of PEFT's page on tuners. The T5 is a small one with random weights.
#include <iostream>

#include "tiny.h"

using namespace cambium;

namespace {

void tune(const char* name, const PeftConfig& config, double learning_rate) {
  TaskModel model;
  model.base = tiny::t5();
  model.add_adapter(config, RandomKey{1});
  std::cout << name << ": " << model.peft->trainable_parameters_line() << '\n';
  TrainOptions options;
  options.steps = 30;
  options.learning_rate = learning_rate;
  const TrainResult result = train(model.trainable(), tiny::rows(Task::seq2seq_lm), options);
  std::cout << "  loss " << result.losses.front() << " -> " << result.losses.back() << '\n';
}

}  // namespace

int main() {
  tune("(IA)³", IA3Config{.target_modules = {"k", "v", "wo"}, .feedforward_modules = {"wo"}}, 3e-2);
  tune("prompt tuning", PromptTuningConfig{.num_virtual_tokens = 20}, 3e-2);
  tune("prefix tuning", PrefixTuningConfig{.num_virtual_tokens = 20}, 1e-2);
  tune("P-tuning", PromptEncoderConfig{.num_virtual_tokens = 20, .encoder_reparameterization_type = PromptEncoderType::MLP, .encoder_hidden_size = 128}, 3e-3);
}
