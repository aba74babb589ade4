// (IA)³ (Liu et al. 2022): a few thousand scales teach MiniLM the topics of Debian packages.
//   6_ia3 MODEL train.jsonl test.jsonl     (all-MiniLM-L6-v2; lines {"text", "label"}), or: 6_ia3 --short
#include <iostream>

#include "tiny.h"

using namespace cambium;

int main(int argc, char** argv) {
  const bool small = tiny::asked_for(argc, argv);
  if (!small && argc < 4) return std::cerr << "usage: 6_ia3 MODEL train.jsonl test.jsonl, or 6_ia3 --short\n", 2;
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
  LoadOptions head;  // MiniLM has none of its own: a new one is trained with the scales
  head.label_names = data.label_names;
  model.base = small ? tiny::bert(2) : AutoModelForSequenceClassification::from_pretrained(argv[1], head);
  model.label_names = data.label_names;
  model.add_adapter(IA3Config{}, RandomKey{1});
  model.peft->print_trainable_parameters();

  TrainOptions options;
  options.batch_size = 16;
  options.learning_rate = 1e-2;
  options.head_learning_rate = 2e-3;
  if (small) options.steps = 20;
  const Trainable trainable = model.trainable();
  train(trainable, data, options);
  const EvalResult result = evaluate(trainable, test, 32);
  std::cout << "accuracy " << *result.accuracy << ", macro-F1 " << result.confusion->macro_f1() << '\n';
  model.save("ia3-adapter");
}
