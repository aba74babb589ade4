// Heads of tasks.
#include "nn/models/heads.h"

#include <algorithm>

namespace cambium {

namespace {

/// Cross-entropy over the rows of logits (R, N) that have a target, as a sum.
LabelledLoss summed_cross_entropy(const Tensor& logits, const std::vector<std::int64_t>& targets) {
  CrossEntropyOptions options;
  options.reduction = LossReduction::sum;
  const auto rows = static_cast<std::int64_t>(targets.size());
  const auto labelled = static_cast<std::int64_t>(std::count_if(targets.begin(), targets.end(), [](std::int64_t t) { return t != -100; }));
  return {cross_entropy(to_dtype(logits, DType::f32), from_vector(targets, {rows}, logits.device()), options), labelled};
}

/// The sum divided by `count`, or by how many labels there were.
LabelledLoss mean_of(LabelledLoss summed, std::optional<double> count) {
  check<StateError>(summed.labelled > 0 || count, "forward: nothing in this batch has a label, so that it has no loss");
  summed.loss = div(summed.loss, count.value_or(static_cast<double>(summed.labelled)));
  return summed;
}

/// Sum over rows of the mean over classes of an elementwise loss.
using ElementwiseLoss = Tensor (*)(const Tensor&, const Tensor&, LossReduction);

LabelledLoss row_means(ElementwiseLoss loss, const Tensor& logits, const Tensor& labels, std::optional<double> count) {
  const std::int64_t rows = logits.size(0), classes = logits.size(1);
  const bool flat = labels.rank() == 1 && classes == 1;
  check<ShapeError>(flat ? labels.size(0) == rows : labels.shape() == logits.shape(), "forward: expected labels ", logits.shape(), ", found ", labels.shape());
  const Tensor targets = reshape(to_dtype(labels, DType::f32), {rows, classes});
  return mean_of({div(loss(to_dtype(logits, DType::f32), targets, LossReduction::sum), static_cast<double>(classes)), rows}, count);
}

bool is_integer(const Tensor& x) { return x.dtype() == DType::i64 || x.dtype() == DType::i32; }

std::vector<std::int64_t> one_each(const char* name, const Tensor& positions, std::int64_t rows) {
  check<ShapeError>(positions.count() == rows && (positions.rank() == 1 || positions.shape() == Shape{rows, 1}), "forward: expected ", name, " ", Shape{rows}, ", found ",
                    positions.shape());
  check<DTypeError>(is_integer(positions), "forward: expected ", name, " of integers, found ", positions.dtype());
  return positions.to_vector<std::int64_t>();
}

}  // namespace

LabelledLoss sequence_classification_loss(const Tensor& logits, const Tensor& labels, const ModelConfig& config, std::optional<double> count) {
  const std::int64_t rows = logits.size(0), classes = logits.size(1);
  const bool integers = is_integer(labels);
  std::string problem = config.problem_type;
  if (problem.empty()) problem = classes == 1 ? "regression" : (integers ? "single_label_classification" : "multi_label_classification");
  if (problem == "regression") return row_means(mse_loss, logits, labels, count);
  if (problem == "multi_label_classification") return row_means(binary_cross_entropy_with_logits, logits, labels, count);
  check<DTypeError>(integers, "forward: expected one integer label for each sequence, found ", labels.dtype());
  check<ShapeError>(labels.count() == rows && (labels.rank() == 1 || labels.shape() == Shape{rows, 1}), "forward: expected labels ", Shape{rows}, ", found ", labels.shape());
  return mean_of(summed_cross_entropy(logits, labels.to_vector<std::int64_t>()), count);
}

LabelledLoss token_classification_loss(const Tensor& logits, const Tensor& labels, std::optional<double> count) {
  const Shape expected{logits.size(0), logits.size(1)};
  check<ShapeError>(labels.shape() == expected, "forward: expected labels ", expected, ", found ", labels.shape());
  check<DTypeError>(is_integer(labels), "forward: expected integer labels, found ", labels.dtype());
  const std::vector<std::int64_t> targets = labels.to_vector<std::int64_t>();
  return mean_of(summed_cross_entropy(reshape(logits, {logits.size(0) * logits.size(1), logits.size(2)}), targets), count);
}

LabelledLoss span_loss(const Tensor& start_logits, const Tensor& end_logits, const Tensor& start_positions, const Tensor& end_positions, const Tensor& starts,
                       std::optional<double> count) {
  std::vector<std::int64_t> borders;
  if (starts.defined()) borders = starts.to_vector<std::int64_t>();
  const std::int64_t rows = starts.defined() ? static_cast<std::int64_t>(borders.size()) - 1 : start_logits.size(0);
  const auto part = [&, rows = rows](const char* name, const Tensor& logits, const Tensor& positions) {
    std::vector<std::int64_t> targets = one_each(name, positions, rows);
    const auto clamped = [](std::int64_t position, std::int64_t length) { return position >= length ? -100 : std::max<std::int64_t>(position, 0); };
    if (!starts.defined()) {
      for (std::int64_t& t : targets) t = clamped(t, logits.size(1));
      return summed_cross_entropy(logits, targets);
    }
    LabelledLoss all{scalar(0.0, DType::f32, logits.device()), 0};
    for (std::int64_t s = 0; s < rows; ++s) {
      const auto at = static_cast<std::size_t>(s);
      const std::int64_t first = borders[at], last = borders[at + 1];
      if (first == last) continue;
      const LabelledLoss one = summed_cross_entropy(slice(logits, 1, first, last), {clamped(targets[at], last - first)});
      all.loss = all.loss + one.loss;
      all.labelled += one.labelled;
    }
    return all;
  };
  const LabelledLoss first = mean_of(part("start_positions", start_logits, start_positions), count), last = mean_of(part("end_positions", end_logits, end_positions), count);
  return {mul(first.loss + last.loss, 0.5), std::max(first.labelled, last.labelled)};
}

void check_labels(Task task, const ModelInput& input) {
  const bool spans = input.start_positions.defined() || input.end_positions.defined(), labels = input.labels.defined();
  if (task == Task::question_answering) {
    check<StateError>(!labels, "forward: question answering takes start_positions and end_positions, not labels");
    check<StateError>(input.start_positions.defined() == input.end_positions.defined(), "forward: start_positions and end_positions go together");
    return;
  }
  check<StateError>(!spans, "forward: start_positions and end_positions are for question answering, this model is for ", name_of(task));
  check<StateError>(task != Task::feature_extraction || !labels, "forward: feature extraction has no loss of its own: expected no labels");
}

void finish_task(Task task, const Layer* head, const Tensor& hidden, const ModelInput& input, const ModelConfig& config, const ForwardContext& context, ModelOutput& out) {
  check_labels(task, input);
  const Tensor logits = task == Task::feature_extraction ? hidden : head->forward(hidden, context);
  LabelledLoss result;
  if (task == Task::question_answering) {
    check<ShapeError>(logits.size(2) == 2, "forward: a head for question answering has two outputs, found ", logits.size(2));
    out.start_logits = select(logits, 2, 0);
    out.end_logits = select(logits, 2, 1);
    if (input.start_positions.defined())
      result = span_loss(out.start_logits, out.end_logits, input.start_positions, input.end_positions, input.starts, input.label_count);
  } else if (input.labels.defined()) {
    result = task == Task::sequence_classification ? sequence_classification_loss(logits, input.labels, config, input.label_count)
                                                   : token_classification_loss(logits, input.labels, input.label_count);
  }
  if (input.want_logits) out.logits = logits;
  out.loss = result.loss;
  out.labelled = result.labelled;
}

}  // namespace cambium
