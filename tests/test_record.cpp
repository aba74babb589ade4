// What ops keep for the backward pass, and what happens when it is changed.
#include "autograd/record.h"

#include <doctest/doctest.h>

#include "autograd/ops.h"
#include "kernels/device.h"

using namespace cambium;

namespace {

std::int64_t live_blocks() { return kernels::memory_statistics(Device{}).live_blocks; }
Tensor leaf(std::vector<double> values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return from_vector(values, {n}).set_requires_grad(true);
}

}  // namespace

TEST_CASE("an op without an input that needs a gradient makes no node") {
  const Tensor a = from_vector<double>({1, 2}, {2}), b = from_vector<double>({3, 4}, {2});
  const Tensor out = mul(a, b);
  CHECK(out.is_leaf());
  CHECK(!out.requires_grad());
  const Tensor x = leaf({1, 2});
  {
    NoGrad no_grad;
    CHECK(mul(x, b).is_leaf());
    EnableGrad again;
    CHECK(!mul(x, b).is_leaf());
  }
  CHECK(grad_enabled());
}

TEST_CASE("next to a frozen operand the other one is not kept") {
  const std::int64_t start = live_blocks();
  const Tensor frozen = from_vector<double>({3, 4}, {2});
  Tensor x = leaf({1, 2});
  Tensor middle = mul(x, 2.0);  // its value would be needed for the gradient of `frozen` only
  const Tensor out = mul(middle, frozen);
  const std::int64_t before = live_blocks();
  middle = Tensor();
  CHECK(live_blocks() == before - 1);
  x = Tensor();
  CHECK(live_blocks() == before - 1);  // the leaf stays: its gradient goes there

  const Tensor trained = leaf({3, 4});
  Tensor y = leaf({1, 2}), kept = mul(y, 2.0);
  const Tensor product = mul(kept, trained);
  const std::int64_t full = live_blocks();
  kept = Tensor();
  CHECK(live_blocks() == full);
  CHECK(start < full);
}

TEST_CASE("a kept value that was changed in place is an error that names op and input") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor out = mul(a, b);
  {
    NoGrad no_grad;
    fill_into(b, 7.0);
  }
  CHECK_THROWS_WITH_AS(backward(sum(out)), doctest::Contains("mul: input 1 of shape [2] was modified in place between forward and backward"), StateError);

  const Tensor frozen = from_vector<double>({3, 4}, {2});
  const Tensor other = mul(leaf({1, 2}), frozen);
  fill_into(frozen, 1.0);
  CHECK_THROWS_WITH_AS(backward(sum(other)), doctest::Contains("mul: a tensor of shape [2] kept for the backward pass was modified in place"), StateError);

  // A view shares the version of what it looks at.
  const Tensor whole = from_vector<double>({1, 2, 3, 4}, {4});
  const Tensor part = mul(leaf({1, 2}), slice(whole, 0, 1, 3));
  fill_into(whole, 0.0);
  CHECK_THROWS_AS(backward(sum(part)), StateError);
}

TEST_CASE("a changed result is noticed by the op whose gradient is made of it") {
  const Tensor out = tanh(leaf({0.5, 1.0}));
  fill_into(detach(out), 0.0);
  CHECK_THROWS_WITH_AS(backward(sum(out)), doctest::Contains("tanh: its result was modified in place"), StateError);
}

TEST_CASE("a frozen first operand does not shift the numbers of the others") {
  const Tensor a = from_vector<double>({1, 2}, {2}), b = leaf({3, 4}), c = leaf({3, 4});
  const Tensor out = record("three", clone(detach(a)))
                         .wrt(a, [](const Tensor& g) { return g; })
                         .wrt(b, [b = saved(b)](const Tensor& g) { return mul(g, b.get()); });
  {
    NoGrad no_grad;
    fill_into(b, 0.0);
  }
  CHECK_THROWS_WITH_AS(backward(sum(out)), doctest::Contains("three: input 1 of shape [2]"), StateError);
}

TEST_CASE("a gradient of the wrong shape or type is an error of the op that made it") {
  const Tensor x = leaf({1, 2});
  const Tensor wrong_shape = record("wrong", zeros({2}, DType::f64)).wrt(x, [](const Tensor& g) { return sum(g); });
  CHECK_THROWS_WITH_AS(backward(sum(wrong_shape)), doctest::Contains("wrong: the gradient of input 0 has shape [], expected [2]"), ShapeError);
  const Tensor wrong_dtype = record("wrong", zeros({2}, DType::f64)).wrt(x, [](const Tensor& g) { return to_dtype(g, DType::f32); });
  CHECK_THROWS_WITH_AS(backward(sum(wrong_dtype)), doctest::Contains("wrong: the gradient of input 0 is float32, expected float64"), DTypeError);
}

TEST_CASE("a joint gradient is told which inputs need it") {
  const Tensor a = leaf({1, 2}), b = from_vector<double>({3, 4}, {2}), c = leaf({5, 6});
  std::vector<bool> asked;
  const Tensor out = record("joint", zeros({2}, DType::f64)).wrt({a, b, c, Tensor()}, [&](const Tensor& g, Needed needed) {
    for (std::size_t i = 0; i < 4; ++i) asked.push_back(needed[i]);
    return std::vector<Tensor>{g, Tensor(), mul(g, 2.0), Tensor()};
  });
  backward(sum(out));
  CHECK(asked == std::vector<bool>{true, false, true, false});
  CHECK(c.grad().to_vector<double>() == std::vector<double>{2, 2});
  CHECK(!b.grad().defined());
}

TEST_CASE("an undefined tensor answers with an error") {
  const Tensor none;
  CHECK_THROWS_AS(none.shape(), StateError);
  CHECK_THROWS_AS(none.dtype(), StateError);
  CHECK_THROWS_AS(none.set_requires_grad(true), StateError);
  CHECK_THROWS_AS(backward(none), StateError);
  CHECK_THROWS_AS(none + none, StateError);
}

