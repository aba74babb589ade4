// A small T5 learns, letter by letter and from nothing, the past tense of English verbs: the task of Rumelhart and McClelland (1986).
//   10_seq2seq [verbs.tsv [EPOCHS]]
#include <fstream>
#include <iostream>

#include "cambium.h"
#include "nn/generation_seq2seq.h"

using namespace cambium;

namespace {

// Ids of letters: a is 2, z is 27; 0 is padding and starts the decoder, 1 ends a word.
std::vector<std::int64_t> ids_of(const std::string& word) {
  std::vector<std::int64_t> ids;
  for (const char letter : word) ids.push_back(letter - 'a' + 2);
  ids.push_back(1);
  return ids;
}
std::string word_of(const std::vector<std::int64_t>& ids) {
  std::string word;
  for (const std::int64_t id : ids)
    if (id >= 2) word += static_cast<char>('a' + id - 2);
  return word;
}

/// Verbs and their past tense; every eighth verb is kept for the test.
Dataset read(const std::string& path, bool test) {
  std::ifstream file(path);
  check<FileError>(file.good(), "cannot open ", path);
  Dataset data;
  data.path = path;
  data.task = Task::seq2seq_lm;
  std::string verb, past;
  file >> verb >> past;  // the header
  for (std::int64_t number = 0; file >> verb >> past; ++number) {
    if ((number % 8 == 0) != test) continue;
    Example example;
    example.ids = ids_of(verb);
    example.labels = ids_of(past);
    data.examples.push_back(std::move(example));
  }
  data.count();
  return data;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "examples/data/verbs.tsv";
  const Dataset data = read(path, false), test = read(path, true);
  const auto model = AutoModelForSeq2SeqLM::from_config(R"({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2,
    "num_heads": 4, "vocab_size": 28, "dropout_rate": 0.1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "decoder_start_token_id": 0, "pad_token_id": 0,
    "eos_token_id": 1})", RandomKey{1});
  Trainable trainable;
  trainable.forward = [&](const ModelInput& input, const ForwardContext& context) { return model->forward(input, context); };
  trainable.parameters = model->named_parameters();
  std::cout << model->parameter_count() << " parameters, " << data.examples.size() << " verbs\n";

  TrainOptions options;
  options.epochs = argc > 2 ? std::stod(argv[2]) : 40;
  options.batch_size = 32;
  options.learning_rate = 3e-3;
  options.warmup_steps = 20;
  std::cout << "perplexity of a letter, verbs held out: " << *evaluate(trainable, test, 64).perplexity;
  train(trainable, data, options);
  std::cout << " -> " << *evaluate(trainable, test, 64).perplexity << '\n';

  int right = 0;
  GenerationOptions greedy;
  greedy.max_new_tokens = 16;
  for (std::size_t i = 0; i < test.examples.size(); ++i) {
    const Example& row = test.examples[i];
    ModelInput input;
    input.input_ids = from_vector(row.ids, {1, static_cast<std::int64_t>(row.ids.size())});
    const std::string said = word_of(generate_seq2seq(*model, input, greedy).front()), wanted = word_of(row.labels);
    right += said == wanted ? 1 : 0;
    if (i % 8 == 0) std::cout << "  " << word_of(row.ids) << ": " << said << (said == wanted ? "" : " (" + wanted + ")") << '\n';
  }
  std::cout << right << " of " << test.examples.size() << " held-out verbs are right\n";
}
