// P-tuning (Liu et al. 2021): the embeddings before the text come out of a small network, which is thrown away once they are learned.
//   9_p_tuning MODEL.gguf train.jsonl, or: 9_p_tuning --short
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main(int argc, char** argv) {
  const bool small = tiny::asked_for(argc, argv);
  if (!small && argc < 3) return std::cerr << "usage: 9_p_tuning MODEL.gguf train.jsonl, or 9_p_tuning --short\n", 2;
  TaskModel model;
  model.base = small ? tiny::llama() : AutoModelForCausalLM::from_pretrained(argv[1]);
  model.add_adapter(PromptEncoderConfig{.num_virtual_tokens = 10, .encoder_reparameterization_type = PromptEncoderType::LSTM, .encoder_hidden_size = 64}, RandomKey{1});
  model.peft->print_trainable_parameters();

  const Trainable trainable = model.trainable();
  DataOptions rows;
  rows.max_length = 128;
  rows.first_token_is_target = trainable.first_token_is_target;
  std::optional<Tokenizer> tokenizer;
  if (!small) tokenizer = Tokenizer::from_file(argv[1]);
  Dataset data = small ? tiny::rows(Task::causal_lm) : load_dataset(argv[2], &*tokenizer, rows);
  const Dataset held_out = split_off(data, 0.1, 1);

  TrainOptions options;
  options.batch_size = 4;
  options.learning_rate = 1e-3;
  options.steps = small ? 20 : 200;
  std::cout << "perplexity " << *evaluate(trainable, held_out, 8).perplexity;
  train(trainable, data, options);
  std::cout << " -> " << *evaluate(trainable, held_out, 8).perplexity << '\n';
  model.save("p-tuning-adapter");
}
