// Reading data files row by row.
#include "train/dataset.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "train/example_reader.h"
#include "train/rows.h"
#include "train/shuffle.h"

namespace cambium {

namespace {

constexpr std::array<std::string_view, 10> kKinds = {"auto", "text", "completion", "instruct", "chat", "classification", "token-classification", "question-answering", "seq2seq", "tokens"};
constexpr std::array<std::string_view, 6> kTaskNames = {"causal-lm", "seq2seq", "seq-cls", "token-cls", "question-ans", "feature"};

template <std::size_t N>
std::size_t find_name(const std::array<std::string_view, N>& names, std::string_view text, const char* what) {
  if (const auto found = std::find(names.begin(), names.end(), text); found != names.end()) return static_cast<std::size_t>(found - names.begin());
  std::string known;
  for (std::string_view name : names) known.append(known.empty() ? "" : ", ").append(name);
  fail<ConfigError>(what, ": expected one of ", known, ", found '", text, "'");
}

void check_kind(DataKind kind, Task task, const std::string& where) {
  check<ConfigError>(serves(kind, task), where, ": rows of the kind ", name_of(kind), " do not serve the task ", task_name(task), ": choose another --task, or --data-kind");
}

/// A whole number written in digits, as labels in tables are.
std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::to_string(value) == text ? std::optional(value) : std::nullopt;
}

/// Texts sorted; whole numbers as 0 to the largest, so that they are their own numbers.
std::vector<std::string> as_names(const std::set<std::string>& found, const std::string& path) {
  std::vector<std::string> names(found.begin(), found.end());
  std::int64_t largest = -1;
  for (const std::string& name : names) {
    const std::optional<std::int64_t> number = whole_number(name);
    if (!number || *number < 0) return names;
    largest = std::max(largest, *number);
  }
  check<FileError>(largest < 100'000, path, ": the largest class is ", largest, ": expected numbers of classes from 0");
  names.clear();
  for (std::int64_t i = 0; i <= largest; ++i) names.push_back(std::to_string(i));
  return names;
}

}  // namespace

std::string_view name_of(DataKind kind) { return kKinds[static_cast<std::size_t>(kind)]; }
DataKind parse_data_kind(std::string_view text) { return static_cast<DataKind>(find_name(kKinds, text, "data kind")); }
std::string_view task_name(Task task) { return kTaskNames[static_cast<std::size_t>(task)]; }
Task parse_task(std::string_view text) { return static_cast<Task>(find_name(kTaskNames, text, "task")); }

std::int64_t Example::targets() const {
  const auto tokens = static_cast<std::int64_t>(std::count_if(labels.begin(), labels.end(), [](std::int64_t l) { return l != -100; }));
  return tokens + (label != -100 || !values.empty() || answer_start != -100 ? 1 : 0);
}

void Dataset::count() {
  tokens = targets = cut_rows = cut_tokens = 0;
  for (const Example& example : examples) {
    tokens += static_cast<std::int64_t>(example.ids.size());
    targets += example.targets();
    cut_rows += example.cut > 0 ? 1 : 0;
    cut_tokens += example.cut;
  }
}

Dataset load_dataset(const std::string& path, const Tokenizer* tokenizer, const DataOptions& options) {
  check<ConfigError>(options.max_length >= 2, "max_length: expected at least 2, found ", options.max_length);
  check<ConfigError>(options.task != Task::feature_extraction, "the task feature has no loss of its own: nothing can be learned or measured from ", path, ": choose another --task");
  RowReader rows(path, options.text_key);
  const ExampleReader reader(path, tokenizer, options);
  Dataset dataset;
  dataset.path = path;
  dataset.task = options.task;
  dataset.kind = options.kind;
  dataset.label_names = options.label_names;
  if (rows.is_plain_text()) {
    check<ConfigError>(options.kind == DataKind::automatic || options.kind == DataKind::text, path, ": a .txt file holds plain text, not ", name_of(options.kind));
    check<ConfigError>(tokenizer != nullptr, path, ": this model has no tokenizer: give lines of input_ids");
    dataset.kind = DataKind::text;
  }
  std::size_t width = 0;  // of the lists of numbers to predict
  for (Row row; rows.next(row);) {
    if (dataset.kind == DataKind::automatic) dataset.kind = reader.detect(row.object, row.line);
    if (dataset.examples.empty()) check_kind(dataset.kind, options.task, reader.where(row.line));
    Example example = reader.read(row.object, dataset.kind, row.line);
    if (dataset.examples.empty()) width = example.values.size();
    check<FileError>(example.values.size() == width, reader.where(row.line), ": expected labels as in the first row, ", width == 0 ? "a class" : concat_text(width, " numbers"), ", found ",
                     example.values.empty() ? "a class" : concat_text(example.values.size(), " numbers"));
    dataset.examples.push_back(std::move(example));
  }
  check<FileError>(!dataset.examples.empty(), path, ": there is no row in it");
  dataset.count();
  return dataset;
}

std::vector<std::string> find_label_names(const std::string& path, const DataOptions& options) {
  RowReader rows(path, options.text_key);
  const ExampleReader reader(path, nullptr, options);
  std::set<std::string> found;
  DataKind kind = options.kind;
  const auto add = [&](const Json& label, std::int64_t line) {
    check<FileError>(label.is_string() || label.is_number_integer(), reader.where(line), ": expected names or numbers of classes, found ", label.dump());
    if (label != -100) found.insert(label.is_string() ? label.get<std::string>() : label.dump());
  };
  for (Row row; rows.next(row);) {
    if (kind == DataKind::automatic) kind = reader.detect(row.object, row.line);
    check_kind(kind, options.task, reader.where(row.line));
    if (kind == DataKind::classification) {
      const std::optional<std::string> label = reader.label_text(row.object, row.line);
      if (!label) return {};
      found.insert(*label);
      continue;
    }
    const Json& labels = json_member(row.object, "labels", reader.where(row.line));
    if (options.task == Task::sequence_classification) {
      if (labels.is_number_float() || labels.is_array()) return {};
      add(labels, row.line);
    } else {
      check<FileError>(labels.is_array(), reader.where(row.line), ": 'labels': expected a list, found ", labels.type_name());
      for (const Json& label : labels) add(label, row.line);
    }
  }
  return as_names(found, path);
}

Dataset split_off(Dataset& dataset, double fraction, std::uint64_t seed) {
  check<ConfigError>(fraction > 0.0 && fraction < 1.0, "eval fraction: expected a number between 0 and 1, found ", fraction);
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  const auto taken = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(count))));
  check<ConfigError>(taken < count, "eval fraction: ", fraction, " of ", count, " rows leaves none for training");
  const std::vector<std::int64_t> order = permutation(count, RandomKey{seed, 0}.fold("eval split"));
  std::vector<bool> in_eval(static_cast<std::size_t>(count), false);
  for (std::int64_t i = 0; i < taken; ++i) in_eval[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;
  std::vector<Example> all;
  all.swap(dataset.examples);
  Dataset eval = dataset;
  for (std::size_t i = 0; i < all.size(); ++i) (in_eval[i] ? eval : dataset).examples.push_back(std::move(all[i]));
  dataset.count();
  eval.count();
  return eval;
}

}  // namespace cambium
