// attention, rotary, gated, dropout and lstm against composed references.
#include <doctest/doctest.h>

#include <cmath>

#include "autograd/ops/attention.h"
#include "gradient_by_projection.h"

using namespace cambium;
using namespace cambium::test;

namespace {

Function attend(const AttentionMask& mask) {
  return [mask](const std::vector<Tensor>& v) { return attention(v[0], v[1], v[2], mask); };
}
Function attend_composed(const AttentionMask& mask) {
  return [mask](const std::vector<Tensor>& v) { return attention_composed(v[0], v[1], v[2], mask); };
}

Tensor bools(const std::vector<std::uint8_t>& values, const Shape& shape) { return to_dtype(from_vector(values, shape), DType::boolean); }

// One direction, step by step from public ops.
Tensor composed_lstm(const Tensor& x, const LstmWeights& w, const Tensor& h0, const Tensor& c0, bool reverse) {
  const std::int64_t steps = x.shape()[1], size = w.hidden.shape()[1];
  Tensor h = h0, c = c0;
  std::vector<Tensor> outputs(static_cast<std::size_t>(steps));
  for (std::int64_t i = 0; i < steps; ++i) {
    const std::int64_t t = reverse ? steps - 1 - i : i;
    const Tensor gates = linear(select(x, 1, t), w.input, w.input_bias) + linear(h, w.hidden, w.hidden_bias);
    const auto gate = [&](std::int64_t k) { return slice(gates, 1, k * size, (k + 1) * size); };
    c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * tanh(gate(2));
    h = sigmoid(gate(3)) * tanh(c);
    outputs[static_cast<std::size_t>(t)] = h;
  }
  return cat({reshape(stack(outputs, 1), {-1}), reshape(h, {-1}), reshape(c, {-1})});
}

}  // namespace

TEST_CASE("attention equals its composed form under every mask") {
  struct Row { const char* name; Shape q, k; AttentionMask mask; };
  const std::vector<Row> rows{
      {"plain", {2, 5, 4, 6}, {2, 5, 4, 6}, {}},
      {"causal", {2, 5, 4, 6}, {2, 5, 4, 6}, {.causal = true}},
      {"grouped", {2, 5, 4, 6}, {2, 5, 2, 6}, {.causal = true}},
      {"one key head", {2, 5, 4, 6}, {2, 7, 1, 6}, {.causal = true, .scale = 0.3}},
      {"window", {1, 9, 2, 4}, {1, 9, 2, 4}, {.causal = true, .window = 3}},
      {"more keys", {2, 2, 2, 4}, {2, 6, 2, 4}, {.causal = true}},
      {"padding", {2, 4, 2, 4}, {2, 4, 2, 4}, {.key_mask = bools({1, 1, 1, 0, 0, 1, 1, 1}, {2, 4})}},
      {"padding, causal: a query that sees nothing", {2, 4, 2, 4}, {2, 4, 2, 4}, {.causal = true, .key_mask = bools({0, 0, 1, 1, 1, 1, 1, 0}, {2, 4})}},
      {"bias", {2, 3, 2, 4}, {2, 5, 2, 4}, {.bias = constant({1, 2, 3, 5}, 40)}},
      {"bias a head, causal", {2, 3, 2, 4}, {2, 3, 1, 4}, {.causal = true, .bias = constant({2, 1, 3}, 41)}},
      {"packed", {1, 9, 2, 4}, {1, 9, 2, 4}, {.causal = true, .starts = from_vector(std::vector<std::int32_t>{0, 4, 4, 9}, {4})}},
      {"packed with window", {1, 9, 2, 4}, {1, 9, 1, 4}, {.causal = true, .window = 2, .starts = from_vector(std::vector<std::int32_t>{0, 5, 9}, {3})}},
      {"long", {1, 70, 2, 8}, {1, 70, 1, 8}, {.causal = true}},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const std::vector<Tensor> inputs{leaf(row.q, 1), leaf(row.k, 2), leaf(row.k, 3)};
    check_same(attend(row.mask), attend_composed(row.mask), inputs, 1e-11);
    if (row.q[1] < 10) check_second_order(attend_composed(row.mask), inputs);
  }
}

TEST_CASE("attention reads heads by their strides") {
  const Tensor packed = leaf({2, 5, 3, 2, 4}, 1);  // q, k and v of one projection
  const auto part = [](const Tensor& x, std::int64_t i) { return select(x, 2, i); };
  check_same([&](const auto& v) { return attention(part(v[0], 0), part(v[0], 1), part(v[0], 2), {.causal = true}); },
             [&](const auto& v) { return attention_composed(part(v[0], 0), part(v[0], 1), part(v[0], 2), {.causal = true}); }, {packed}, 1e-12);
}

TEST_CASE("attention of a packed projection equals attention of its slices") {
  const Tensor packed = leaf({2, 5, 6, 4}, 1), turned = transpose(leaf({2, 6, 5, 4}, 2), 1, 2);
  const auto slices = [](const AttentionMask& mask) {
    return [mask](const std::vector<Tensor>& v) { return attention_composed(slice(v[0], 2, 0, 2), slice(v[0], 2, 2, 4), slice(v[0], 2, 4, 6), mask); };
  };
  const auto whole = [](const AttentionMask& mask) { return [mask](const std::vector<Tensor>& v) { return attention_packed(v[0], mask); }; };
  const Tensor keys = bools({1, 1, 1, 1, 0, 1, 1, 1, 1, 1}, {2, 5});
  for (const AttentionMask& mask : {AttentionMask{.causal = true}, AttentionMask{.causal = true, .window = 2, .scale = 0.3}, AttentionMask{.key_mask = keys}})
    check_same(whole(mask), slices(mask), {packed}, 1e-12);
  check_same(whole({.causal = true, .dropout_p = 0.5}), slices({.causal = true, .dropout_p = 0.5}), {packed}, 1e-12);
  CHECK(largest_difference(whole({})({turned}), slices({})({turned})) < 1e-12);
  check_throws<ShapeError>([] { attention_packed(zeros({1, 2, 4, 3}), {}); }, {"attention_packed", "3 heads", "[1, 2, 4, 3]"});
  const Tensor out = attention_packed(packed, {.causal = true}), first = grad(sum(out), packed, {.create_graph = true});
  check_throws<StateError>([&] { grad(sum(square(first)), packed); }, {"attention_packed", "second derivative"});
}

TEST_CASE("a trained bias goes the composed way and gets its gradient") {
  const std::vector<Tensor> inputs{leaf({1, 3, 2, 4}, 1), leaf({1, 3, 2, 4}, 2), leaf({1, 3, 2, 4}, 3), leaf({2, 3, 3}, 4)};
  check_gradients([](const auto& v) { return attention(v[0], v[1], v[2], {.causal = true, .bias = v[3]}); }, inputs);
}

TEST_CASE("attention keeps no probabilities and refuses a second derivative by name") {
  const std::int64_t T = 256, H = 2, D = 8, size = T * H * D * 4;
  const Tensor q = leaf({1, T, H, D}, 1, DType::f32), k = leaf({1, T, H, D}, 2, DType::f32), v = leaf({1, T, H, D}, 3, DType::f32);
  kernels::reset_peak(Device{});
  const std::int64_t before = live_bytes();
  const Tensor out = attention(q, k, v, {.causal = true});
  CHECK(live_bytes() - before == size + T * H * 4);
  const Tensor first = grad(sum(out), q, {.create_graph = true});
  check_throws<StateError>([&] { grad(sum(square(first)), k); }, {"attention", "second derivative"});
}

TEST_CASE("rotary") {
  const Tensor x = leaf({2, 3, 2, 6}, 1), frequencies = from_vector(std::vector<float>{1.0F, 0.25F}, {2});
  const Tensor positions = from_vector(std::vector<std::int64_t>{0, 1, 2, 5, 6, 7}, {2, 3});
  for (const bool interleaved : {false, true}) {
    check_second_order([&](const auto& v) { return square(rotary(v[0], positions, frequencies, 1.25, interleaved)); }, {x});
    const std::vector<double> out = rotary(x, positions, frequencies, 1.25, interleaved).to_vector<double>(), in = x.to_vector<double>();
    // Row (b 1, t 2, h 1): position 7, pair 1.
    const std::size_t row = ((1 * 3 + 2) * 2 + 1) * 6, first = interleaved ? 2 : 1, second = interleaved ? 3 : 3;
    const double angle = 7 * 0.25;
    CHECK(out[row + first] == doctest::Approx(1.25 * (in[row + first] * std::cos(angle) - in[row + second] * std::sin(angle))).epsilon(1e-6));
    CHECK(out[row + second] == doctest::Approx(1.25 * (in[row + second] * std::cos(angle) + in[row + first] * std::sin(angle))).epsilon(1e-6));
    CHECK(out[row + 5] == in[row + 5]);
  }
  const Tensor shared = from_vector(std::vector<std::int64_t>{0, 1, 2}, {3});
  CHECK(rotary(x, shared, frequencies).shape() == x.shape());
  check_throws<ShapeError>([&] { rotary(x, from_vector(std::vector<std::int64_t>{0, 1}, {2}), frequencies); }, {"rotary", "[3]", "[2]"});
  check_throws<ShapeError>([&] { rotary(x, shared, zeros({4})); }, {"rotary", "[4]"});
  check_throws<DTypeError>([&] { rotary(x, shared, zeros({2}, DType::f64)); }, {"rotary", "float32"});
}

TEST_CASE("gated") {
  const std::vector<Tensor> inputs{leaf({3, 5}, 1), leaf({3, 5}, 2)};
  check_same([](const auto& v) { return gated(UnaryFunction::silu, v[0], v[1]); }, [](const auto& v) { return silu(v[0]) * v[1]; }, inputs);
  check_same([](const auto& v) { return gated(UnaryFunction::gelu_tanh, v[0], v[1]); }, [](const auto& v) { return gelu_tanh(v[0]) * v[1]; }, inputs);
  check_same([](const auto& v) { return gated(UnaryFunction::gelu_erf, v[0], v[1]); }, [](const auto& v) { return gelu_erf(v[0]) * v[1]; }, inputs);
  check_same([](const auto& v) { return gated(UnaryFunction::relu, v[0], v[1]); }, [](const auto& v) { return relu(v[0]) * v[1]; }, inputs);
  // Halves of one projection.
  check_same([](const auto& v) { return gated(UnaryFunction::silu, slice(v[0], 1, 0, 2), slice(v[0], 1, 2, 4)); },
             [](const auto& v) { return silu(slice(v[0], 1, 0, 2)) * slice(v[0], 1, 2, 4); }, {inputs[0]});
  check_throws<ConfigError>([&] { gated(UnaryFunction::tanh, inputs[0], inputs[1]); }, {"gated", "silu"});
  check_throws<ShapeError>([&] { gated(UnaryFunction::silu, inputs[0], leaf({5}, 3)); }, {"gated", "[3, 5]", "[5]"});
}

TEST_CASE("dropout") {
  const Tensor x = leaf({100, 20}, 1);
  const RandomKey key{7, 9};
  check_second_order([&](const auto& v) { return square(dropout(v[0], 0.25, key)); }, {x});
  const std::vector<double> mask = dropout(ones({2000}, DType::f64), 0.25, key).to_vector<double>();
  double kept = 0;
  for (const double m : mask) {
    CHECK((m == 0.0 || m == doctest::Approx(1.0 / 0.75)));
    kept += m != 0.0;
  }
  CHECK(std::fabs(kept / 2000 - 0.75) < 5 * std::sqrt(0.25 * 0.75 / 2000));
  CHECK(dropout(x, 0.0, key).same_body(x));
  check_throws<ConfigError>([&] { dropout(x, 1.0, key); }, {"dropout"});
  const std::int64_t before = live_bytes();
  const Tensor out = dropout(x, 0.5, key);
  CHECK(live_bytes() - before == 100 * 20 * 8);
}

TEST_CASE("lstm equals its steps, every gradient included") {
  for (const bool reverse : {false, true})
    for (const std::int64_t steps : {1, 4}) {
      CAPTURE(reverse);
      CAPTURE(steps);
      const std::vector<Tensor> inputs{leaf({2, steps, 5}, 1), leaf({12, 5}, 2), leaf({12, 3}, 3), leaf({12}, 4), leaf({12}, 5), leaf({2, 3}, 6), leaf({2, 3}, 7)};
      const Function fused = [reverse](const std::vector<Tensor>& v) {
        const LstmResult r = lstm(v[0], {v[1], v[2], v[3], v[4]}, v[5], v[6], reverse);
        return cat({reshape(r.output, {-1}), reshape(r.hidden, {-1}), reshape(r.cell, {-1})});
      };
      check_same(fused, [reverse](const std::vector<Tensor>& v) { return composed_lstm(v[0], {v[1], v[2], v[3], v[4]}, v[5], v[6], reverse); }, inputs);
    }
  // No biases, no initial state; only the hidden weights are trained.
  const Tensor x = constant({2, 3, 5}, 1), w = constant({12, 5}, 2), zero = zeros({2, 3}, DType::f64);
  check_same([&](const auto& v) { return lstm(x, {w, v[0], {}, {}}).output; },
             [&](const auto& v) { return reshape(slice(composed_lstm(x, {w, v[0], {}, {}}, zero, zero, false), 0, 0, 18), {2, 3, 3}); }, {leaf({12, 3}, 3)});
  check_throws<ShapeError>([&] { lstm(x, {zeros({8, 5}, DType::f64), constant({12, 3}, 1), {}, {}}); }, {"lstm", "weights.input", "[12, 5]", "[8, 5]"});
  check_throws<ShapeError>([&] { lstm(x, {w, constant({12, 3}, 1), {}, {}}, zeros({2, 4}, DType::f64)); }, {"lstm", "initial state", "[2, 3]"});
}

TEST_CASE("attention's shapes that do not fit are named") {
  const Tensor q = zeros({2, 3, 4, 6}), k = zeros({2, 3, 4, 6});
  check_throws<ShapeError>([&] { attention(q, zeros({2, 3, 3, 6}), zeros({2, 3, 3, 6}), {}); }, {"attention", "4 query heads", "3"});
  check_throws<ShapeError>([&] { attention(q, k, zeros({2, 4, 4, 6}), {}); }, {"attention", "k and v"});
  check_throws<ShapeError>([&] { attention(q, k, k, {.key_mask = bools({1, 1}, {1, 2})}); }, {"attention", "key_mask", "[2, 3]"});
  check_throws<ShapeError>([&] { attention(q, k, k, {.bias = zeros({5, 1, 1})}); }, {"attention"});
  check_throws<ShapeError>([&] { attention(zeros({1, 3, 4, 6}), zeros({1, 3, 4, 6}), zeros({1, 3, 4, 6}), {.starts = from_vector(std::vector<std::int32_t>{0, 2}, {2})}); }, {"attention", "starts"});
  check_throws<DTypeError>([&] { attention(q, k, k, {.key_mask = zeros({2, 3})}); }, {"attention", "bool"});
}
