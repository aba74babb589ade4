// Losses of task heads against their definitions in double: every kind of problem, ignored labels, clamped spans, packed rows, counts; labels that do not fit.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "nn/linear.h"
#include "nn/models/heads.h"

using namespace cambium;

namespace {

Tensor integers(const std::vector<std::int64_t>& values, const Shape& shape) { return from_vector(values, shape); }

Tensor numbers(const Shape& shape, std::uint64_t seed) { return random_normal(shape, RandomKey{seed, 0}, 0.0, 2.0); }

/// -log softmax(row)[target].
double cross_entropy_of(const std::vector<double>& row, std::int64_t target) {
  double sum = 0.0;
  for (const double x : row) sum += std::exp(x);
  return std::log(sum) - row[static_cast<std::size_t>(target)];
}

std::vector<double> row_of(const Tensor& x, std::int64_t first, std::int64_t count) {
  const std::vector<double> all = x.to_vector<double>();
  return {all.begin() + first, all.begin() + first + count};
}

constexpr double kTolerance = 1e-6;

}  // namespace

TEST_CASE("sequences: one label, several labels, regression") {
  ModelConfig config;
  const Tensor logits = numbers({3, 4}, 1);
  const std::vector<double> x = logits.to_vector<double>();
  const LabelledLoss single = sequence_classification_loss(logits, integers({2, -100, 0}, {3}), config);
  CHECK(single.labelled == 2);
  const double sum = cross_entropy_of(row_of(logits, 0, 4), 2) + cross_entropy_of(row_of(logits, 8, 4), 0);
  CHECK(std::fabs(single.loss.item() - sum / 2) <= kTolerance);
  CHECK(std::fabs(sequence_classification_loss(logits, integers({2, -100, 0}, {3, 1}), config, 8.0).loss.item() - sum / 8) <= kTolerance);

  const std::vector<float> marks{1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1};
  double several = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < 12; ++i) {
    several += std::log1p(std::exp(x[i])) - static_cast<double>(marks[i]) * x[i];
    squares += (x[i] - static_cast<double>(marks[i])) * (x[i] - static_cast<double>(marks[i]));
  }
  const Tensor targets = from_vector(marks, {3, 4});
  CHECK(std::fabs(sequence_classification_loss(logits, targets, config).loss.item() - several / 12) <= kTolerance);
  config.problem_type = "regression";
  CHECK(std::fabs(sequence_classification_loss(logits, targets, config).loss.item() - squares / 12) <= kTolerance);
  config.problem_type = "multi_label_classification";
  CHECK(std::fabs(sequence_classification_loss(logits, to_dtype(targets, DType::i64), config).loss.item() - several / 12) <= kTolerance);
  CHECK(std::fabs(sequence_classification_loss(logits, targets, config, 6.0).loss.item() - several / 24) <= kTolerance);

  config.problem_type = "";
  const Tensor one = slice(logits, 1, 0, 1);
  const double regression = (std::pow(x[0] - 1, 2) + std::pow(x[4] + 2, 2) + std::pow(x[8], 2)) / 3;
  CHECK(std::fabs(sequence_classification_loss(one, integers({1, -2, 0}, {3}), config).loss.item() - regression) <= kTolerance);
}

TEST_CASE("tokens: labels of -100 count nothing, sixteen bits make their loss in float32") {
  const Tensor logits = numbers({2, 3, 5}, 2), labels = integers({4, -100, 0, -100, -100, 1}, {2, 3});
  const double sum = cross_entropy_of(row_of(logits, 0, 5), 4) + cross_entropy_of(row_of(logits, 10, 5), 0) + cross_entropy_of(row_of(logits, 25, 5), 1);
  const LabelledLoss found = token_classification_loss(logits, labels);
  CHECK(found.labelled == 3);
  CHECK(std::fabs(found.loss.item() - sum / 3) <= kTolerance);
  const Tensor narrow = to_dtype(logits, DType::bf16);
  CHECK(token_classification_loss(narrow, labels).loss.dtype() == DType::f32);
  CHECK(std::fabs(token_classification_loss(narrow, labels).loss.item() - token_classification_loss(to_dtype(narrow, DType::f32), labels).loss.item()) <= kTolerance);
}

TEST_CASE("spans: clamped at both ends, left out beyond the text, packed rows as rows of their own") {
  const Tensor begin = numbers({2, 6}, 3), end = numbers({2, 6}, 4);
  const double first = cross_entropy_of(row_of(begin, 0, 6), 2) + cross_entropy_of(row_of(begin, 6, 6), 0);
  const double last = cross_entropy_of(row_of(end, 0, 6), 5);
  const LabelledLoss found = span_loss(begin, end, integers({2, -3}, {2}), integers({5, 6}, {2}));
  CHECK(std::fabs(found.loss.item() - (first / 2 + last) / 2) <= kTolerance);
  CHECK(found.labelled == 2);

  const Tensor packed_begin = reshape(slice(begin, 0, 0, 1), {1, 6}), packed_end = reshape(slice(end, 0, 0, 1), {1, 6});
  const Tensor starts = from_vector(std::vector<std::int32_t>{0, 4, 6}, {3});
  const double packed = (cross_entropy_of(row_of(begin, 0, 4), 3) + cross_entropy_of(row_of(begin, 4, 2), 0)) / 2 + (cross_entropy_of(row_of(end, 0, 4), 0) + cross_entropy_of(row_of(end, 4, 2), 1)) / 2;
  CHECK(std::fabs(span_loss(packed_begin, packed_end, integers({3, 0}, {2}), integers({0, 1}, {2}), starts).loss.item() - packed / 2) <= kTolerance);
}

TEST_CASE("gradients of a head and its loss: what the definition gives") {
  const Tensor hidden = numbers({3, 2}, 5);
  const Linear head(4, 2, RandomKey{6, 0});
  Tensor x = numbers({3, 4}, 7);
  x.set_requires_grad(true);
  ModelInput input;
  input.labels = integers({1, 0, -100}, {3});
  ModelOutput out;
  finish_task(Task::sequence_classification, &head, x, input, {}, {}, out);
  REQUIRE(out.logits.shape() == Shape{3, 2});
  backward(out.loss);
  const std::vector<double> g = x.grad().to_vector<double>(), w = head.weight().get().to_vector<double>();
  for (std::int64_t r = 0; r < 3; ++r) {
    const std::vector<double> row = row_of(out.logits, 2 * r, 2);
    const double p = 1.0 / (1.0 + std::exp(row[0] - row[1]));  // of class 1
    const double d = r == 2 ? 0.0 : (p - (r == 0 ? 1.0 : 0.0)) / 2;
    for (std::size_t c = 0; c < 4; ++c) CHECK(std::fabs(g[static_cast<std::size_t>(r) * 4 + c] - d * (w[4 + c] - w[c])) <= kTolerance);
  }
}

TEST_CASE("labels that do not fit are refused") {
  ModelConfig config;
  const Tensor logits = numbers({3, 4}, 1), tokens = numbers({2, 3, 5}, 2);
  CHECK_THROWS_AS(sequence_classification_loss(logits, integers({1, 2}, {2}), config), ShapeError);
  CHECK_THROWS_AS(sequence_classification_loss(logits, integers({1, 2, 4}, {3}), config), Error);
  CHECK_THROWS_WITH_AS(sequence_classification_loss(logits, integers({-100, -100, -100}, {3}), config), doctest::Contains("has a label"), StateError);
  CHECK(sequence_classification_loss(logits, integers({-100, -100, -100}, {3}), config, 2.0).loss.item() == 0.0);
  CHECK_THROWS_AS(sequence_classification_loss(logits, numbers({3}, 1), config), ShapeError);
  config.problem_type = "single_label_classification";
  CHECK_THROWS_AS(sequence_classification_loss(logits, numbers({3}, 1), config), DTypeError);
  CHECK_THROWS_AS(token_classification_loss(tokens, integers({1, 2, 3}, {1, 3})), ShapeError);
  CHECK_THROWS_AS(token_classification_loss(tokens, numbers({2, 3}, 1)), DTypeError);
  CHECK_THROWS_AS(span_loss(logits, logits, integers({1}, {1}), integers({1, 2, 3}, {3})), ShapeError);
  ModelInput input;
  input.labels = integers({1}, {1});
  CHECK_THROWS_AS(check_labels(Task::feature_extraction, input), StateError);
  CHECK_THROWS_AS(check_labels(Task::question_answering, input), StateError);
  input.start_positions = input.labels;
  CHECK_THROWS_AS(check_labels(Task::token_classification, input), StateError);
}
