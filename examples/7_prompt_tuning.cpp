// Prompt tuning (Lester et al. 2021): SmolLM2-135M stays as it is; ten embeddings before the text, which start as the words of an instruction, are learned.
//   7_prompt_tuning MODEL.gguf train.jsonl, or: 7_prompt_tuning --short
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main(int argc, char** argv) {
  const bool small = tiny::asked_for(argc, argv);
  if (!small && argc < 3) return std::cerr << "usage: 7_prompt_tuning MODEL.gguf train.jsonl, or 7_prompt_tuning --short\n", 2;
  PromptTuningConfig config{.num_virtual_tokens = 10};
  if (small) {
    config.prompt_tuning_init = PromptTuningInit::SAMPLE_VOCAB;
  } else {
    config.prompt_tuning_init = PromptTuningInit::TEXT;
    config.prompt_tuning_init_text = "A cynical dictionary of English words:";
    config.tokenizer_name_or_path = argv[1];
  }
  TaskModel model;
  model.base = small ? tiny::llama() : AutoModelForCausalLM::from_pretrained(argv[1]);
  model.add_adapter(config, RandomKey{1});
  model.peft->print_trainable_parameters();

  const Trainable trainable = model.trainable();
  DataOptions rows;
  rows.max_length = 128;
  rows.first_token_is_target = trainable.first_token_is_target;  // the prompt stands before it
  std::optional<Tokenizer> tokenizer;
  if (!small) tokenizer = Tokenizer::from_file(argv[1]);
  Dataset data = small ? tiny::rows(Task::causal_lm) : load_dataset(argv[2], &*tokenizer, rows);
  const Dataset held_out = split_off(data, 0.1, 1);

  TrainOptions options;
  options.batch_size = 4;
  options.learning_rate = 1e-2;
  options.steps = small ? 20 : 200;
  std::cout << "perplexity " << *evaluate(trainable, held_out, 8).perplexity;
  train(trainable, data, options);
  std::cout << " -> " << *evaluate(trainable, held_out, 8).perplexity << '\n';
  model.save("prompt-adapter");
}
