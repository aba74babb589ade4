// The backward pass: accumulation, graphs of all forms, reuse, second derivatives, checkpoints, long chains.
#include "autograd/engine.h"

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "kernels/device.h"

using namespace cambium;

namespace {

using Values = std::vector<double>;
Tensor leaf(Values values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return from_vector(values, {n}).set_requires_grad(true);
}
Tensor number(double value) { return scalar(value, DType::f64).set_requires_grad(true); }
std::int64_t live_blocks() { return kernels::memory_statistics(Device{}).live_blocks; }

}  // namespace

TEST_CASE("leaves accumulate over calls and over uses") {
  const Tensor x = leaf({1, 2});
  backward(sum(mul(x, x)));
  CHECK(x.grad().to_vector<double>() == Values{2, 4});
  backward(sum(mul(x, 3.0)));
  CHECK(x.grad().to_vector<double>() == Values{5, 7});
  x.reset_grad();
  CHECK(!x.grad().defined());
  backward(sum(add(add(x, x), x)));
  CHECK(x.grad().to_vector<double>() == Values{3, 3});
}

TEST_CASE("gradients of two leaves are never the same memory, and a held one does not change") {
  const Tensor x = leaf({1, 2}), y = leaf({3, 4});
  const Tensor upstream = from_vector<double>({1, 1}, {2});
  backward(add(x, y), upstream);  // the vjp hands out one tensor twice
  CHECK(x.grad().storage() != y.grad().storage());
  CHECK(x.grad().storage() != upstream.storage());
  const Tensor held = x.grad();
  backward(add(x, mul(y, 2.0)), upstream);
  CHECK(held.to_vector<double>() == Values{1, 1});
  CHECK(x.grad().to_vector<double>() == Values{2, 2});
  CHECK(y.grad().to_vector<double>() == Values{3, 3});
  CHECK(upstream.to_vector<double>() == Values{1, 1});
}

TEST_CASE("an identity that hands out one tensor twice is not added into") {
  const Tensor x = leaf({1, 2});
  const Tensor y = mul(x, 1.0);
  // y's gradient is made of g itself twice and once more of something else.
  const Tensor out = add(add(y, y), mul(y, 5.0));
  backward(out, from_vector<double>({1, 10}, {2}));
  CHECK(x.grad().to_vector<double>() == Values{7, 70});
}

TEST_CASE("diamonds wait for all their gradients") {
  const Tensor x = number(0.3);
  const Tensor a = sin(x), b = mul(a, a), c = mul(a, 3.0), d = mul(b, c), e = add(d, a);
  backward(e);  // 3 sin^3 + sin
  CHECK(x.grad().item() == doctest::Approx((9.0 * std::sin(0.3) * std::sin(0.3) + 1.0) * std::cos(0.3)).epsilon(1e-14));
}

TEST_CASE("a freed graph says so, retain_graph keeps it") {
  const Tensor x = number(2.0), y = mul(x, x);
  backward(y, {}, {.retain_graph = true});
  backward(y);
  CHECK(x.grad().item() == 8.0);
  CHECK_THROWS_WITH_AS(backward(y), doctest::Contains("the graph of 'mul' was freed by an earlier backward pass: pass retain_graph"), StateError);
  CHECK(x.grad().item() == 8.0);
}

TEST_CASE("what cannot be differentiated is refused") {
  const Tensor x = leaf({1, 2});
  CHECK_THROWS_WITH_AS(backward(mul(x, 2.0)), doctest::Contains("is no scalar: pass its gradient"), ShapeError);
  CHECK_THROWS_WITH_AS(backward(ones({})), doctest::Contains("does not depend on anything that requires a gradient"), StateError);
  CHECK_THROWS_WITH_AS(backward(mul(x, 2.0), ones({3}, DType::f64)), doctest::Contains("a gradient of shape [3] for an output of shape [2]"), ShapeError);
  CHECK_THROWS_WITH_AS(backward(mul(x, 2.0), ones({2})), doctest::Contains("a gradient of float32 for an output of float64"), DTypeError);
  CHECK_THROWS_WITH_AS(grad(sum(x), ones({2})), doctest::Contains("an input does not require a gradient"), StateError);
  CHECK_THROWS_AS(arange(3).set_requires_grad(true), DTypeError);
  CHECK_THROWS_AS(mul(x, 2.0).set_requires_grad(false), StateError);
}

TEST_CASE("grad() answers for leaves and results alike, leaves unused inputs undefined and stores nothing") {
  const Tensor x = leaf({1, 2}), unused = leaf({5});
  const Tensor h = square(x), y = sum(mul(h, 3.0));
  const std::vector<Tensor> inputs{h, x, unused};
  const std::vector<Tensor> grads = grad(std::span(&y, 1), inputs);
  CHECK(grads[0].to_vector<double>() == Values{3, 3});
  CHECK(grads[1].to_vector<double>() == Values{6, 12});
  CHECK(!grads[2].defined());
  CHECK(!x.grad().defined());
}

TEST_CASE("a gradient up to a result leaves the graph behind it whole") {
  const Tensor x = leaf({1, 2});
  const Tensor h = square(x), y = sum(mul(h, 3.0));
  const Tensor dh = grad(y, h);
  backward(h, dh);
  CHECK(x.grad().to_vector<double>() == Values{6, 12});
}

TEST_CASE("several outputs, one of them a leaf, one inside the graph of another") {
  const Tensor x = leaf({1, 2});
  const Tensor h = mul(x, 2.0), y = square(h);
  const std::vector<Tensor> outputs{x, h, y}, upstream{ones({2}, DType::f64), ones({2}, DType::f64), ones({2}, DType::f64)};
  CHECK(grad(outputs, std::span(&x, 1), upstream)[0].to_vector<double>() == Values{1 + 2 + 8, 1 + 2 + 16});
}

TEST_CASE("derivatives of tanh to the third order are its closed forms") {
  const Tensor x = number(0.7);
  const double t = std::tanh(0.7), s = 1.0 - t * t;
  const BackwardOptions recorded{.create_graph = true};
  const Tensor first = grad(tanh(x), x, recorded), second = grad(first, x, recorded), third = grad(second, x);
  CHECK(first.item() == doctest::Approx(s).epsilon(1e-14));
  CHECK(second.item() == doctest::Approx(-2.0 * t * s).epsilon(1e-14));
  CHECK(third.item() == doctest::Approx(s * (6.0 * t * t - 2.0)).epsilon(1e-13));
  // A gradient made while recording is part of a graph and can be used in a loss.
  const Tensor y = number(0.5);
  backward(square(grad(sin(y), y, recorded)));
  CHECK(y.grad().item() == doctest::Approx(-2.0 * std::cos(0.5) * std::sin(0.5)).epsilon(1e-14));
}

TEST_CASE("a second derivative of prod is right where entries are zero") {
  const Tensor x = leaf({0.0, 3.0, 0.0});
  const Tensor first = grad(prod(x), x, {.create_graph = true});
  CHECK(first.to_vector<double>() == Values{0, 0, 0});
  CHECK(grad(slice(first, 0, 0, 1), x).to_vector<double>() == Values{0, 0, 3});
}

TEST_CASE("chains of a hundred thousand ops are run and let go of without recursion") {
  const std::int64_t start = live_blocks();
  {
    const Tensor x = number(1.0);
    Tensor y = x;
    for (int i = 0; i < 100000; ++i) y = add(y, 0.0);
    backward(y);
    CHECK(x.grad().item() == 1.0);
    Tensor never_run = x;
    for (int i = 0; i < 100000; ++i) never_run = mul(never_run, x);
    Tensor kept = x;  // nodes only: nobody holds the results
    for (int i = 0; i < 100000; ++i) kept = reshape(unsqueeze(kept, 0), std::initializer_list<std::int64_t>{});
    backward(kept, {}, {.retain_graph = true});
  }
  CHECK(live_blocks() == start);
}

TEST_CASE("a checkpoint gives the plain gradients of inputs and parameters") {
  const std::int64_t start = live_blocks();
  {
    const Tensor x = leaf({0.3, -0.4, 0.9}), w = leaf({1.5, 0.5, -2.0}), frozen = from_vector<double>({1, 2, 3}, {3});
    int calls = 0;
    const auto block = [&](std::span<const Tensor> in) {
      ++calls;
      return mul(tanh(mul(in[0], w)), add(in[1], frozen));
    };
    const auto plain = [&](const Tensor& a, const Tensor& b) { return block(std::vector<Tensor>{a, b}); };
    const auto spared = [&](const Tensor& a, const Tensor& b) { return checkpoint(block, std::vector<Tensor>{a, b}, std::vector<Tensor>{w}); };
    std::vector<Values> expected;
    for (bool use : {false, true}) {
      x.reset_grad();
      w.reset_grad();
      const Tensor h = square(x);
      backward(sum(use ? spared(h, x) : plain(h, x)));  // one input is made from the other
      if (!use) expected = {x.grad().to_vector<double>(), w.grad().to_vector<double>()};
      else {
        for (std::size_t i = 0; i < 3; ++i) {
          CHECK(x.grad().to_vector<double>()[i] == doctest::Approx(expected[0][i]).epsilon(1e-14));
          CHECK(w.grad().to_vector<double>()[i] == doctest::Approx(expected[1][i]).epsilon(1e-14));
        }
        CHECK(calls == 3);
      }
    }
    // Below a frozen embedding only the parameters need a gradient.
    w.reset_grad();
    backward(sum(spared(detach(x), detach(x))));
    CHECK(w.grad().defined());
    // Second order passes through.
    const std::vector<Tensor> inputs{x, w};
    const auto function = [](std::span<const Tensor> in) {
      const Tensor weight = in[1];
      return checkpoint([weight](std::span<const Tensor> y) { return mul(tanh(mul(y[0], weight)), y[1]); }, std::vector<Tensor>{square(in[0]), in[0]}, std::vector<Tensor>{weight});
    };
    CHECK(gradcheck(function, inputs) < 1e-8);
    CHECK(gradcheck(function, inputs, {.second_order = true}) < 1e-7);
    // A step of an optimizer between forward and backward must not go unnoticed.
    const Tensor out = spared(x, x);
    {
      NoGrad no_grad;
      fill_into(w, 0.0);
    }
    CHECK_THROWS_WITH_AS(backward(sum(out)), doctest::Contains("checkpoint: input 2"), StateError);
  }
  CHECK(live_blocks() == start);
}

TEST_CASE("a checkpoint whose function hands back its input has a result of its own") {
  const Tensor x = leaf({1, 2});
  const Tensor out = checkpoint([](std::span<const Tensor> in) { return in[0]; }, std::span(&x, 1), {});
  CHECK(!out.same_body(x));
  backward(sum(out));
  CHECK(x.grad().to_vector<double>() == Values{1, 1});
  CHECK(x.is_leaf());
}

TEST_CASE("the gradient checker finds a wrong gradient") {
  const auto wrong = [](std::span<const Tensor> in) {
    const Tensor x = in[0];
    NoGrad no_grad;
    Tensor out = square(x);
    EnableGrad again;
    return Tensor(record("wrong", out).wrt(x, [x = saved(x)](const Tensor& g) { return mul(g, x.get()); }));
  };
  const Tensor x = leaf({1, 2});
  CHECK(gradcheck(wrong, std::span(&x, 1)) > 0.1);
  CHECK(gradcheck([](std::span<const Tensor> in) { return square(in[0]); }, std::span(&x, 1)) < 1e-10);
  CHECK_THROWS_AS(gradcheck(wrong, std::vector<Tensor>{ones({2})}), StateError);
  CHECK_THROWS_AS(gradcheck(wrong, std::vector<Tensor>{ones({2}).set_requires_grad(true)}), DTypeError);
}

