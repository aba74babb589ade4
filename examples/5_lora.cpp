// LoRA (Hu et al. 2021): SmolLM2-135M learns to define words like The Devil's Dictionary.
//   5_lora MODEL.gguf train.jsonl     (the model and the data of demo.sh), or: 5_lora --short
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main(int argc, char** argv) {
  const bool small = tiny::asked_for(argc, argv);
  if (!small && argc < 3) return std::cerr << "usage: 5_lora MODEL.gguf train.jsonl, or 5_lora --short\n", 2;
  TaskModel model;
  model.base = small ? tiny::llama() : AutoModelForCausalLM::from_pretrained(argv[1]);
  model.add_adapter(LoraConfig{.r = 8, .target_modules = {"q_proj", "v_proj"}, .lora_alpha = 16}, RandomKey{1});
  model.peft->print_trainable_parameters();

  std::optional<Tokenizer> tokenizer;
  if (!small) tokenizer = Tokenizer::from_file(argv[1]);
  DataOptions rows;
  rows.max_length = 128;
  Dataset data = small ? tiny::rows(Task::causal_lm) : load_dataset(argv[2], &*tokenizer, rows);
  const Dataset held_out = split_off(data, 0.1, 1);

  TrainOptions options;
  options.batch_size = 4;
  options.learning_rate = 1e-3;
  options.steps = small ? 20 : 200;
  const Trainable trainable = model.trainable();
  std::cout << "perplexity " << *evaluate(trainable, held_out, 8).perplexity;
  train(trainable, data, options);
  std::cout << " -> " << *evaluate(trainable, held_out, 8).perplexity << '\n';
  if (!small) {
    GenerationOptions short_text;
    short_text.max_new_tokens = 40;
    std::cout << "LOVE: " << tokenizer->decode(model.peft->generate(tokenizer->encode("Define: LOVE\n"), short_text), true) << '\n';
  }
  model.save("lora-adapter");  // a folder that Hugging Face PEFT loads, too
}
