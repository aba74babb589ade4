// Norms, softmax and losses against composed references; the chunked head loss; what is kept, what is refused.
#include <doctest/doctest.h>

#include <cmath>

#include "gradient_by_projection.h"

using namespace cambium;
using namespace cambium::test;

namespace {

Tensor ids(const std::vector<std::int64_t>& values) { return from_vector(values, {static_cast<std::int64_t>(values.size())}); }

// Mean or sum of weighted, smoothed losses out of log_softmax; the definition of torch.nn.CrossEntropyLoss.
Tensor composed_cross_entropy(const Tensor& logits, const std::vector<std::int64_t>& targets, const CrossEntropyOptions& o) {
  const Tensor logp = log_softmax(logits);
  const std::int64_t classes = logits.shape()[-1];
  const std::vector<double> weights = o.weight.defined() ? o.weight.to_vector<double>() : std::vector<double>(static_cast<std::size_t>(classes), 1.0);
  Tensor total;
  double divisor = 0.0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == o.ignore_index) continue;
    const Tensor row = select(logp, 0, static_cast<std::int64_t>(i));
    Tensor loss = select(row, 0, targets[i]) * (-(1.0 - o.label_smoothing) * weights[static_cast<std::size_t>(targets[i])]);
    if (o.label_smoothing > 0.0) loss = loss - sum(row * from_vector(weights, {classes})) * (o.label_smoothing / static_cast<double>(classes));
    divisor += weights[static_cast<std::size_t>(targets[i])];
    total = total.defined() ? total + loss : loss;
  }
  return o.reduction == LossReduction::mean ? total * (1.0 / divisor) : total;
}

}  // namespace

TEST_CASE("layer_norm and rms_norm equal their formulas") {
  for (const Shape& shape : {Shape{5, 7}, Shape{2, 3, 7}, Shape{7}}) {
    const std::vector<Tensor> inputs{leaf(shape, 1), leaf({7}, 2), leaf({7}, 3)};
    check_same([](const auto& v) { return layer_norm(v[0], v[1], v[2], 1e-3); },
               [](const auto& v) {
                 const Tensor centred = v[0] - mean(v[0], {-1}, true);
                 return centred * rsqrt(mean(square(centred), {-1}, true) + 1e-3) * v[1] + v[2];
               },
               inputs);
    check_same([](const auto& v) { return rms_norm(v[0], v[1], 1e-3); }, [](const auto& v) { return v[0] * rsqrt(mean(square(v[0]), {-1}, true) + 1e-3) * v[1]; },
               {inputs[0], inputs[1]});
    check_gradients([](const auto& v) { return layer_norm(v[0], {}, {}, 1e-5); }, {inputs[0]});
    check_gradients([](const auto& v) { return rms_norm(v[0], {}, 1e-5); }, {inputs[0]});
  }
  check_gradients([](const auto& v) { return layer_norm(transpose(v[0]), v[1], {}, 1e-5); }, {leaf({7, 3}, 4), leaf({7}, 5)});
  // gamma of 1e-33, as real checkpoints have: the input is kept, not recovered from the output.
  const Tensor x = leaf({4, 8}, 6, DType::f32), gamma = full({8}, 1e-33, DType::f32);
  backward(sum(layer_norm(x, gamma, {}, 1e-5)));
  CHECK(all_finite(x.grad()));
}

TEST_CASE("a norm with frozen gamma keeps its input and a number or two a row") {
  const std::int64_t rows = 256, n = 64;
  const Tensor x = leaf({rows, n}, 1, DType::f32), gamma = ones({n});
  Tensor input = x * 1.0;
  const std::int64_t before = live_bytes();
  const Tensor y = rms_norm(input, gamma, 1e-6);
  CHECK(live_bytes() - before == rows * n * 4 + rows * 4);
  const Tensor first = grad(sum(y), x, {.create_graph = true});
  check_throws<StateError>([&] { grad(sum(first), x); }, {"rms_norm", "second derivative"});
}

TEST_CASE("softmax over any dimension, twice differentiable") {
  const Tensor x = leaf({3, 4, 5}, 1);
  for (const int dim : {0, 1, -1}) {
    check_same([dim](const auto& v) { return softmax(v[0], dim); }, [dim](const auto& v) { return exp(v[0]) / sum(exp(v[0]), {dim}, true); }, {x});
    check_same([dim](const auto& v) { return log_softmax(v[0], dim); }, [dim](const auto& v) { return v[0] - log(sum(exp(v[0]), {dim}, true)); }, {x});
    check_second_order([dim](const auto& v) { return softmax(v[0], dim); }, {x});
    check_second_order([dim](const auto& v) { return log_softmax(v[0], dim); }, {x});
  }
  const Tensor large = softmax(from_vector(std::vector<double>{1e4, 0.0, -1e4, 1e4}, {4}));
  CHECK(large.to_vector<double>() == std::vector<double>{0.5, 0.0, 0.0, 0.5});
  check_throws<ShapeError>([] { softmax(scalar(1.0)); }, {"softmax", "scalar"});
}

TEST_CASE("cross_entropy with every option equals its definition") {
  const std::vector<std::int64_t> targets{0, 4, -100, 2, 2, -100};
  const Tensor logits = leaf({6, 5}, 1), weight = from_vector(std::vector<double>{1.0, 2.0, 0.5, 1.5, 3.0}, {5});
  for (const LossReduction reduction : {LossReduction::mean, LossReduction::sum})
    for (const double smoothing : {0.0, 0.1})
      for (const bool weighted : {false, true}) {
        const CrossEntropyOptions options{.reduction = reduction, .label_smoothing = smoothing, .weight = weighted ? weight : Tensor()};
        check_same([&](const auto& v) { return cross_entropy(v[0], ids(targets), options); }, [&](const auto& v) { return composed_cross_entropy(v[0], targets, options); }, {logits});
      }
  const Tensor rows = cross_entropy(logits, ids(targets), {.reduction = LossReduction::none});
  CHECK(rows.shape() == Shape{6});
  CHECK(rows.to_vector<double>()[2] == 0.0);
  check_gradients([&](const auto& v) { return cross_entropy(v[0], ids(targets), {.reduction = LossReduction::none, .ignore_index = 2 - 102}); }, {logits});
  CHECK(cross_entropy(reshape(logits, {2, 3, 5}), reshape(ids(targets), {2, 3})).item() == doctest::Approx(cross_entropy(logits, ids(targets)).item()));
}

TEST_CASE("a mean over no label is NaN, a sum is zero, as in torch") {
  const Tensor logits = leaf({2, 3}, 1), none = ids({-100, -100});
  CHECK(std::isnan(cross_entropy(logits, none).item()));
  CHECK(std::isnan(nll_loss(log_softmax(logits), none).item()));
  const Tensor total = cross_entropy(logits, none, {.reduction = LossReduction::sum});
  CHECK(total.item() == 0.0);
  backward(total);
  CHECK(sum(abs(logits.grad())).item() == 0.0);
  CHECK(std::isnan(linear_cross_entropy(leaf({2, 4}, 2), leaf({3, 4}, 3), {}, none).item()));
  CHECK(linear_cross_entropy(leaf({2, 4}, 2), leaf({3, 4}, 3), {}, none, -100, 2.0).item() == 0.0);
}

TEST_CASE("losses of 16-bit logits are float32") {
  const Tensor wide = constant({4, 6}, 1, DType::f32), targets = ids({1, 5, 0, 2});
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Tensor logits = to_dtype(wide, dtype);
    const double exact = cross_entropy(to_dtype(logits, DType::f64), targets).item();
    logits.set_requires_grad(true);
    const Tensor loss = cross_entropy(logits, targets);
    CHECK(loss.dtype() == DType::f32);
    CHECK(loss.item() == doctest::Approx(exact).epsilon(1e-6));
    backward(loss);
    CHECK(logits.grad().dtype() == dtype);
  }
}

TEST_CASE("composed losses") {
  const Tensor x = leaf({3, 4}, 1), y = leaf({3, 4}, 2);
  check_second_order([](const auto& v) { return mse_loss(v[0], v[1]); }, {x, y});
  check_second_order([](const auto& v) { return binary_cross_entropy_with_logits(v[0], sigmoid(v[1]), LossReduction::sum); }, {x, y});
  check_gradients([](const auto& v) { return kl_div(log_softmax(v[0]), softmax(v[1])); }, {x, y});
  check_second_order([](const auto& v) { return nll_loss(log_softmax(v[0]), ids({3, -100, 0})); }, {x});
  const Tensor target = from_vector(std::vector<double>{0.0, 1.0}, {1, 2}), input = from_vector(std::vector<double>{std::log(0.25), std::log(0.75)}, {1, 2});
  CHECK(kl_div(input, target).item() == doctest::Approx(-std::log(0.75)));
  CHECK(binary_cross_entropy_with_logits(full({1}, 500.0, DType::f64), zeros({1}, DType::f64)).item() == 500.0);
  check_throws<ShapeError>([&] { mse_loss(x, leaf({4}, 3)); }, {"mse_loss", "[3, 4]", "[4]"});
}

TEST_CASE("linear_cross_entropy equals linear and cross_entropy") {
  // More than 1024 labelled rows make several chunks.
  struct Row { std::int64_t rows, classes; int every; };
  for (const Row& row : {Row{6, 5, 1}, Row{7, 5, 3}, Row{1500, 40, 1}, Row{2100, 30, 2}}) {
    CAPTURE(row.rows);
    std::vector<std::int64_t> targets(static_cast<std::size_t>(row.rows), -100);
    for (std::size_t i = 0; i < targets.size(); i += static_cast<std::size_t>(row.every)) targets[i] = static_cast<std::int64_t>(i * 7) % row.classes;
    const std::vector<Tensor> inputs{leaf({row.rows, 4}, 1), leaf({row.classes, 4}, 2), leaf({row.classes}, 3)};
    const Function reference = [&](const std::vector<Tensor>& v) { return cross_entropy(linear(v[0], v[1], v[2]), ids(targets)); };
    check_same([&](const std::vector<Tensor>& v) { return linear_cross_entropy(v[0], v[1], v[2], ids(targets)); }, reference, inputs);
    const Function frozen = [&](const std::vector<Tensor>& v) { return linear_cross_entropy(v[0], detach(inputs[1]), detach(inputs[2]), ids(targets), -100, 17.0); };
    check_same(frozen, [&](const std::vector<Tensor>& v) { return cross_entropy(linear(v[0], detach(inputs[1]), detach(inputs[2])), ids(targets), {.reduction = LossReduction::sum}) * (1.0 / 17.0); },
               {inputs[0]});
  }
}

TEST_CASE("logits are never whole, and a frozen head leaves one gradient of the labelled rows") {
  const std::int64_t rows = 8448, channels = 8, classes = 2048, labelled = rows / 4;
  std::vector<std::int64_t> targets(static_cast<std::size_t>(rows), -100);
  for (std::size_t i = 0; i < targets.size(); i += 4) targets[i] = static_cast<std::int64_t>(i % 100);
  const Tensor hidden = leaf({rows, channels}, 1, DType::f32), weight = constant({classes, channels}, 2, DType::f32), labels = ids(targets);
  kernels::reset_peak(Device{});
  const std::int64_t before = live_bytes();
  const Tensor loss = linear_cross_entropy(hidden, weight, {}, labels);
  CHECK(live_bytes() - before == labelled * channels * 4 + labelled * 8 + 64);  // gradient, row numbers, the loss in a smallest block
  // 2112 labelled rows make three chunks: the logits of one of them are there at once, with little beside them.
  CHECK(kernels::memory_statistics(Device{}).peak_bytes - before < labelled * classes * 4 / 2);
  backward(loss);
  CHECK(all_finite(hidden.grad()));
  CHECK(sum(abs(slice(hidden.grad(), 0, 1, rows, 4))).item() == 0.0);
}

TEST_CASE("what does not fit is named") {
  const Tensor logits = zeros({2, 3});
  check_throws<Error>([&] { cross_entropy(logits, ids({0, 3})); }, {"cross_entropy", "target 3", "position 1", "3"});
  check_throws<Error>([&] { cross_entropy(logits, ids({0, -1})); }, {"target -1", "ignore_index"});
  check_throws<ShapeError>([&] { cross_entropy(logits, ids({0})); }, {"cross_entropy", "[2]", "[1]"});
  check_throws<DTypeError>([&] { cross_entropy(logits, zeros({2})); }, {"int64", "float32"});
  check_throws<ConfigError>([&] { cross_entropy(logits, ids({0, 1}), {.label_smoothing = 2.0}); }, {"label_smoothing"});
  check_throws<ShapeError>([&] { linear_cross_entropy(logits, zeros({4, 2}), {}, ids({0, 1})); }, {"linear_cross_entropy", "[2, 3]", "[4, 2]"});
  check_throws<Error>([&] { linear_cross_entropy(logits, zeros({4, 3}), {}, ids({0, 4})); }, {"linear_cross_entropy", "target 4"});
  check_throws<ShapeError>([&] { layer_norm(logits, zeros({2}), {}, 1e-5); }, {"layer_norm", "gamma", "[3]", "[2]"});
  check_throws<StateError>([&] {
    const Tensor hidden = leaf({2, 3}, 1);
    grad(linear_cross_entropy(hidden, leaf({4, 3}, 2), {}, ids({0, 1})), hidden, {.create_graph = true});
  }, {"linear_cross_entropy", "second derivative"});
}
