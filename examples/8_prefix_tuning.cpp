// Prefix tuning (Li and Liang 2021): keys and values before every layer's own, and a linear head on the mean of the tokens, teach MiniLM the topics of Debian packages.
//   8_prefix_tuning MODEL train.jsonl test.jsonl, or: 8_prefix_tuning --short
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main(int argc, char** argv) {
  const bool small = tiny::asked_for(argc, argv);
  if (!small && argc < 4) return std::cerr << "usage: 8_prefix_tuning MODEL train.jsonl test.jsonl, or 8_prefix_tuning --short\n", 2;
  DataOptions rows;
  rows.task = Task::sequence_classification;
  rows.max_length = 64;
  Dataset data, test;
  if (small) {
    data = tiny::rows(rows.task);
    test = split_off(data, 0.25, 1);
  } else {
    const Tokenizer tokenizer = Tokenizer::from_file(argv[1]);
    rows.label_names = find_label_names(argv[2], rows);
    data = load_dataset(argv[2], &tokenizer, rows);
    test = load_dataset(argv[3], &tokenizer, rows);
  }

  TaskModel model;
  model.label_names = data.label_names;
  if (small) {
    model.base = tiny::bert(2);  // with its own head
  } else {
    model.base = AutoModel::from_pretrained(argv[1]);
    model.head = std::make_shared<MeanHead>(model.base->config().hidden_size, static_cast<std::int64_t>(data.label_names.size()), RandomKey{2});
  }
  model.add_adapter(PrefixTuningConfig{.num_virtual_tokens = 16}, RandomKey{1});
  model.peft->print_trainable_parameters();

  TrainOptions options;
  options.batch_size = 16;
  options.learning_rate = 1e-2;
  options.head_learning_rate = 6e-3;
  if (small) options.steps = 20;
  const Trainable trainable = model.trainable();
  train(trainable, data, options);
  const EvalResult result = evaluate(trainable, test, 32);
  std::cout << "accuracy " << *result.accuracy << ", macro-F1 " << result.confusion->macro_f1() << '\n';
  model.save("prefix-adapter");
}
