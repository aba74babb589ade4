// Topics of Debian packages with MiniLM: the five methods, two heads and three seeds beside what needs no fine-tuning. Prints the table of docs/topics.md.
//   bench_topics MODEL DATA RESULTS [EPOCHS [SEEDS [ONLY]]]
// MODEL: folder of all-MiniLM-L6-v2; DATA: folder with train.jsonl and test.jsonl; RESULTS: JSON lines, one for each run, to which new runs are added: a run that is
// there already is not made again. ONLY: runs whose name contains this text.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <unordered_map>

#include "cambium.h"
#include "tensor/json.h"

using namespace cambium;

namespace {

struct Topics {
  std::string model, data;
  Tokenizer tokenizer;
  Dataset train, test;
};

std::vector<std::pair<std::string, std::int64_t>> read_texts(const std::string& path, const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, std::int64_t>> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const Json row = parse_json(line, path);
    out.emplace_back(row["text"].get<std::string>(), std::find(names.begin(), names.end(), row["label"].get<std::string>()) - names.begin());
  }
  return out;
}

/// Lower-case words of two letters or digits and more.
std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || static_cast<unsigned char>(c) >= 0x80) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else {
      if (word.size() >= 2) words.push_back(word);
      word.clear();
    }
  }
  return words;
}

Confusion confusion_of(const Tensor& logits, const std::vector<std::int64_t>& truth) {
  Confusion confusion(logits.size(1));
  const std::vector<std::int64_t> predicted = argmax(logits).to_vector<std::int64_t>();
  for (std::size_t i = 0; i < truth.size(); ++i) confusion.add(truth[i], predicted[i]);
  return confusion;
}

/// Minimises the mean loss of all rows plus decay/2 |weight|^2 by Adam with a falling rate.
void fit(const std::function<Tensor()>& logits, const Tensor& weight, const Tensor& bias, const std::vector<std::int64_t>& truth, double decay, double rate, int steps) {
  AdamW optimizer(std::vector<Tensor>{weight, bias}, {.learning_rate = rate});
  const Tensor targets = from_vector(truth, {static_cast<std::int64_t>(truth.size())});
  for (int step = 0; step < steps; ++step) {
    backward(add(cross_entropy(logits(), targets), mul(sum(square(weight)), decay / 2)));
    optimizer.set_learning_rate_factor(1.0 - static_cast<double>(step) / steps);
    optimizer.step();
    optimizer.zero_grad();
  }
}

Tensor parameter(Shape shape) {
  Tensor t = zeros(shape);
  t.set_requires_grad(true);
  return t;
}

/// Rows of weighted words, as the entries of a sparse matrix.
struct Bags {
  Tensor rows, words, weights;  ///< (E), (E), (E, 1)
  std::int64_t count = 0;
  Tensor logits(const Tensor& weight, const Tensor& bias) const {
    return add(index_add(zeros({count, weight.size(1)}), 0, rows, mul(embedding(words, weight), weights)), bias);
  }
};

/// tf-idf with smoothed idf and rows of length one (Salton and Buckley 1988; as scikit-learn computes it), and logistic regression with C = 100.
Confusion bag_of_words(const Topics& topics) {
  const auto train = read_texts(topics.data + "/train.jsonl", topics.train.label_names), test = read_texts(topics.data + "/test.jsonl", topics.train.label_names);
  std::unordered_map<std::string, std::int64_t> vocabulary;
  std::vector<double> rows_with;
  for (const auto& [text, label] : train) {
    std::map<std::string, int> seen;
    for (const std::string& word : words_of(text)) ++seen[word];
    for (const auto& [word, n] : seen) {
      const auto [at, added] = vocabulary.emplace(word, static_cast<std::int64_t>(vocabulary.size()));
      if (added) rows_with.push_back(0);
      ++rows_with[static_cast<std::size_t>(at->second)];
    }
  }
  const auto bags_of = [&](const auto& texts) {
    std::vector<std::int64_t> rows, words;
    std::vector<float> weights;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::map<std::int64_t, double> bag;
      for (const std::string& word : words_of(texts[i].first))
        if (const auto found = vocabulary.find(word); found != vocabulary.end()) bag[found->second] += 1;
      double squares = 0;
      for (auto& [word, weight] : bag) {
        weight *= std::log((1.0 + static_cast<double>(train.size())) / (1.0 + rows_with[static_cast<std::size_t>(word)])) + 1.0;
        squares += weight * weight;
      }
      for (const auto& [word, weight] : bag) {
        rows.push_back(static_cast<std::int64_t>(i));
        words.push_back(word);
        weights.push_back(static_cast<float>(weight / std::sqrt(squares)));
      }
    }
    const auto entries = static_cast<std::int64_t>(rows.size());
    return Bags{from_vector(rows, {entries}), from_vector(words, {entries}), from_vector(weights, {entries, 1}), static_cast<std::int64_t>(texts.size())};
  };
  const auto truth_of = [](const auto& texts) {
    std::vector<std::int64_t> truth;
    for (const auto& [text, label] : texts) truth.push_back(label);
    return truth;
  };
  const Bags train_bags = bags_of(train), test_bags = bags_of(test);
  const auto classes = static_cast<std::int64_t>(topics.train.label_names.size());
  const Tensor weight = parameter({static_cast<std::int64_t>(vocabulary.size()), classes}), bias = parameter({classes});
  fit([&] { return train_bags.logits(weight, bias); }, weight, bias, truth_of(train), 1.0 / (100.0 * static_cast<double>(train.size())), 0.2, 400);
  NoGrad no_grad;
  return confusion_of(test_bags.logits(weight, bias), truth_of(test));
}

std::vector<std::int64_t> truth_of(const Dataset& data) {
  std::vector<std::int64_t> truth;
  for (const Example& example : data.examples) truth.push_back(example.label);
  return truth;
}

Confusion majority(const Topics& topics) {
  std::vector<std::int64_t> counts(topics.train.label_names.size());
  for (std::int64_t label : truth_of(topics.train)) ++counts[static_cast<std::size_t>(label)];
  const auto most = std::max_element(counts.begin(), counts.end()) - counts.begin();
  Confusion confusion(static_cast<std::int64_t>(counts.size()));
  for (std::int64_t label : truth_of(topics.test)) confusion.add(label, most);
  return confusion;
}

/// Means of the frozen model's last hidden states, of length one: (rows, C).
Tensor embeddings(const PretrainedModel& model, const Dataset& data) {
  NoGrad no_grad;
  std::vector<Tensor> parts;
  for (std::size_t i = 0; i < data.examples.size(); i += 32) {
    std::vector<const Example*> rows;
    for (std::size_t j = i; j < std::min(data.examples.size(), i + 32); ++j) rows.push_back(&data.examples[j]);
    const Batch batch = make_batch(rows, {}, Task::feature_extraction);
    const Tensor hidden = select(model.forward(batch.input).logits, 0, 0);
    const std::vector<std::int32_t> starts = batch.input.starts.to_vector<std::int32_t>();
    for (std::size_t row = 0; row + 1 < starts.size(); ++row) parts.push_back(mean(slice(hidden, 0, starts[row], starts[row + 1]), {0}, true));
  }
  const Tensor all = cat(parts);
  return div(all, norm(all, {1}, true));
}

Confusion frozen(const Topics& topics) {
  const auto model = AutoModel::from_pretrained(topics.model);
  const Tensor train = embeddings(*model, topics.train), test = embeddings(*model, topics.test);
  const auto classes = static_cast<std::int64_t>(topics.train.label_names.size());
  const Tensor weight = parameter({classes, train.size(1)}), bias = parameter({classes});
  fit([&] { return linear(train, weight, bias); }, weight, bias, truth_of(topics.train), 1.0 / (100.0 * static_cast<double>(train.size(0))), 0.3, 600);
  NoGrad no_grad;
  return confusion_of(linear(test, weight, bias), truth_of(topics.test));
}

struct Setting {
  std::string name;
  PeftConfig config;
  double learning_rate;
};
std::vector<Setting> settings() {
  return {{"LoRA r 8, alpha 16, query and value", LoraConfig{.r = 8, .target_modules = {"query", "value"}, .lora_alpha = 16}, 2e-3},
          {"(IA)³", IA3Config{}, 1e-2},
          {"prompt tuning, 16 tokens", PromptTuningConfig{.num_virtual_tokens = 16, .prompt_tuning_init = PromptTuningInit::SAMPLE_VOCAB}, 1e-2},
          {"prefix tuning, 16 tokens", PrefixTuningConfig{.num_virtual_tokens = 16}, 1e-2},
          {"P-tuning (MLP), 16 tokens", PromptEncoderConfig{.num_virtual_tokens = 16, .encoder_hidden_size = 128}, 2e-3}};
}

struct Outcome {
  double accuracy, macro_f1, seconds;
  std::int64_t parameters;
};

Outcome fine_tune(const Topics& topics, const Setting& setting, HeadKind kind, std::uint64_t seed, double epochs) {
  const RandomKey key{seed, 0};
  LoadOptions load;
  load.head_key = key.fold("head");
  if (kind == HeadKind::own) load.label_names = topics.train.label_names;
  TaskModel model;
  model.base = load_pretrained(topics.model, kind == HeadKind::own ? Task::sequence_classification : Task::feature_extraction, load);
  if (kind == HeadKind::mean) model.head = std::make_shared<MeanHead>(model.base->config().hidden_size, static_cast<std::int64_t>(topics.train.label_names.size()), key.fold("mean head"));
  model.add_adapter(setting.config, key.fold("adapter"));
  TrainOptions options;
  options.epochs = epochs;
  options.batch_size = 16;
  options.learning_rate = setting.learning_rate;
  options.head_learning_rate = kind == HeadKind::mean ? 6e-3 : 2e-3;
  options.seed = seed;
  const Trainable trainable = model.trainable();
  const TrainResult trained = train(trainable, topics.train, options);
  const EvalResult result = evaluate(trainable, topics.test, 32);
  return {*result.accuracy, result.confusion->macro_f1(), trained.seconds, model.trainable_parameter_count()};
}

Json measured(const Confusion& confusion) { return Json{{"accuracy", confusion.accuracy()}, {"macro_f1", confusion.macro_f1()}}; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: bench_topics MODEL DATA RESULTS [EPOCHS [SEEDS [ONLY]]]\n";
    return 2;
  }
  const double epochs = argc > 4 ? std::atof(argv[4]) : 1.0;
  const int seeds = argc > 5 ? std::atoi(argv[5]) : 3;
  const std::string only = argc > 6 ? argv[6] : "";
  const std::string data = argv[2];
  DataOptions options;
  options.task = Task::sequence_classification;
  options.max_length = 64;
  options.label_names = find_label_names(data + "/train.jsonl", options);
  const Tokenizer tokenizer = Tokenizer::from_file(argv[1]);
  const Topics topics{argv[1], data, tokenizer, load_dataset(data + "/train.jsonl", &tokenizer, options), load_dataset(data + "/test.jsonl", &tokenizer, options)};

  std::map<std::string, Json> done;
  {
    std::ifstream file(argv[3]);
    for (std::string line; std::getline(file, line);) {
      const Json row = parse_json(line, argv[3]);
      done[row["run"].get<std::string>()] = row;
    }
  }
  std::ofstream results(argv[3], std::ios::app);
  /// The numbers of a run: those in the file, or new ones.
  const auto result_of = [&](const std::string& run, const std::function<Json()>& make) -> const Json* {
    if (!done.contains(run)) {
      if (run.find(only) == std::string::npos) return nullptr;
      Json row = make();
      row["run"] = run;
      results << row.dump() << std::endl;
      std::cerr << row.dump() << std::endl;
      done[run] = row;
    }
    return &done[run];
  };
  std::string table = "| what is trained | head | trained parameters | accuracy | macro-F1 | s a run |\n|---|---|---:|---:|---:|---:|\n";
  char line[256];
  const auto add_plain = [&](const char* name, const std::function<Json()>& make) {
    const Json* row = result_of(name, make);
    if (row == nullptr) return;
    std::snprintf(line, sizeof line, "| %s | | | %.3f | %.3f | |\n", name, (*row)["accuracy"].get<double>(), (*row)["macro_f1"].get<double>());
    table += line;
  };
  add_plain("nothing: the most frequent class", [&] { return measured(majority(topics)); });
  add_plain("bag of words (tf-idf), logistic regression", [&] { return measured(bag_of_words(topics)); });
  add_plain("frozen MiniLM, logistic regression on normalised means", [&] { return measured(frozen(topics)); });
  for (const HeadKind kind : {HeadKind::mean, HeadKind::own}) {
    for (const Setting& setting : settings()) {
      std::vector<Json> rows;
      for (int seed = 1; seed <= seeds; ++seed) {
        const char* head = kind == HeadKind::mean ? "mean" : "hf";
        const std::string run = concat_text(setting.name, ", head ", head, ", ", epochs, " epochs, rate ", setting.learning_rate, ", seed ", seed);
        const Json* row = result_of(run, [&] {
          const Outcome o = fine_tune(topics, setting, kind, static_cast<std::uint64_t>(seed), epochs);
          return Json{{"accuracy", o.accuracy}, {"macro_f1", o.macro_f1}, {"seconds", o.seconds}, {"parameters", o.parameters}};
        });
        if (row != nullptr) rows.push_back(*row);
      }
      if (rows.empty()) continue;
      const auto statistics = [&](const char* key) {
        double sum = 0, squares = 0;
        for (const Json& row : rows) sum += row[key].get<double>();
        const double average = sum / static_cast<double>(rows.size());
        for (const Json& row : rows) squares += (row[key].get<double>() - average) * (row[key].get<double>() - average);
        return std::pair(average, rows.size() > 1 ? std::sqrt(squares / static_cast<double>(rows.size() - 1)) : 0.0);
      };
      const auto [accuracy, accuracy_sd] = statistics("accuracy");
      const auto [f1, f1_sd] = statistics("macro_f1");
      std::snprintf(line, sizeof line, "| %s | %s | %lld | %.3f ± %.3f | %.3f ± %.3f | %.0f |\n", setting.name.c_str(), kind == HeadKind::mean ? "mean" : "hf",
                    static_cast<long long>(rows.front()["parameters"].get<std::int64_t>()), accuracy, accuracy_sd, f1, f1_sd, statistics("seconds").first);
      table += line;
    }
  }
  std::cout << table;
  return 0;
}
