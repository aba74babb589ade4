// Measuring a model on data: loss, perplexity, classes, answers.
#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "train/trainer.h"

namespace cambium {

namespace {

/// Adds the predictions of a batch to the confusion matrix. Logits (B, N), (B, T, N) or (1, T, N); labels of the same leading shape.
void count_classes(Confusion& confusion, const Tensor& logits, const Tensor& labels) {
  const std::vector<std::int64_t> predicted = argmax(logits, -1).to_vector<std::int64_t>(), truth = labels.to_vector<std::int64_t>();
  check<ShapeError>(predicted.size() == truth.size(), "evaluate: logits ", logits.shape(), " do not belong to labels ", labels.shape());
  for (std::size_t i = 0; i < truth.size(); ++i)
    if (truth[i] != -100) confusion.add(truth[i], predicted[i]);
}

struct Answers {
  std::int64_t rows = 0, exact = 0;
  double overlap = 0;
};

/// The likeliest start, and the likeliest end from there on, among the row's own tokens; overlap is F1 over tokens.
void count_answers(Answers& answers, const ModelOutput& output, std::span<const Example* const> examples, const BatchFormat& format) {
  const std::vector<float> starts = to_dtype(output.start_logits, DType::f32).to_vector<float>(), ends = to_dtype(output.end_logits, DType::f32).to_vector<float>();
  const bool padded = format.layout == BatchLayout::padded;
  const auto width = static_cast<std::size_t>(output.start_logits.size(-1));
  std::size_t row = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& example = *examples[i];
    const std::size_t length = example.ids.size(), begin = padded ? i * width + static_cast<std::size_t>(format.virtual_tokens) : row;
    row += length;
    const auto at = [&](std::size_t t) { return static_cast<std::ptrdiff_t>(begin + t); };
    const auto start = static_cast<std::size_t>(std::max_element(starts.begin() + at(0), starts.begin() + at(length)) - starts.begin()) - begin;
    const auto end = static_cast<std::size_t>(std::max_element(ends.begin() + at(start), ends.begin() + at(length)) - ends.begin()) - begin;
    const auto first = static_cast<std::size_t>(example.answer_start), last = static_cast<std::size_t>(example.answer_end);
    const std::size_t common_first = std::max(first, start), common_last = std::min(last, end);
    const std::size_t common = common_last >= common_first ? common_last - common_first + 1 : 0;
    ++answers.rows;
    answers.exact += start == first && end == last ? 1 : 0;
    answers.overlap += 2.0 * static_cast<double>(common) / static_cast<double>((end - start + 1) + (last - first + 1));
  }
}

}  // namespace

EvalResult evaluate(const Trainable& model, const Dataset& data, std::int64_t batch_size, const std::atomic<bool>* stop) {
  NoGrad no_grad;
  const BatchPlan plan{batch_size, false, 0, false, 0};
  EvalResult result;
  result.task = data.task;
  const bool language = data.task == Task::causal_lm || data.task == Task::seq2seq_lm;
  const bool classes = data.task == Task::token_classification || (data.task == Task::sequence_classification && data.examples.front().values.empty());
  Answers answers;
  double total = 0;
  for (const std::vector<std::int64_t>& rows : plan_epoch(data, plan, 0)) {
    if (stop != nullptr && stop->load()) break;
    std::vector<const Example*> examples;
    for (std::int64_t i : rows) examples.push_back(&data.examples[static_cast<std::size_t>(i)]);
    Batch batch = make_batch(examples, model.format, data.task);
    batch.input.want_logits = !language;
    const ModelOutput output = model.forward(batch.input, {});
    total += output.loss.item() * static_cast<double>(batch.targets);
    result.tokens += batch.targets;
    if (classes) {
      if (!result.confusion) result.confusion.emplace(output.logits.size(-1));
      count_classes(*result.confusion, output.logits, batch.input.labels);
    } else if (data.task == Task::question_answering) {
      count_answers(answers, output, examples, model.format);
    }
  }
  result.loss = result.tokens > 0 ? total / static_cast<double>(result.tokens) : 0.0;
  if (language) result.perplexity = std::exp(result.loss);
  if (result.confusion) result.accuracy = result.confusion->accuracy();
  if (answers.rows > 0) {
    result.accuracy = static_cast<double>(answers.exact) / static_cast<double>(answers.rows);
    result.f1 = answers.overlap / static_cast<double>(answers.rows);
  }
  return result;
}

}  // namespace cambium
