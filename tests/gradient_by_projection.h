// Gradients checked against finite differences along random directions, and fused ops against their composed references; in double.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "autograd/ops.h"

namespace cambium::test {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

/// Normal numbers that are a leaf requiring a gradient.
inline Tensor leaf(const Shape& shape, std::uint64_t seed, DType dtype = DType::f64, double mean = 0.0) {
  Tensor x = random_normal(shape, RandomKey{seed, 77}, mean, 1.0, dtype);
  return x.set_requires_grad(true);
}
inline Tensor constant(const Shape& shape, std::uint64_t seed, DType dtype = DType::f64) { return random_normal(shape, RandomKey{seed, 77}, 0.0, 1.0, dtype); }

inline double dot(const Tensor& a, const Tensor& b) { return sum(mul(to_dtype(a, DType::f64), to_dtype(b, DType::f64))).item(); }

inline double largest_difference(const Tensor& a, const Tensor& b) {
  CHECK(a.shape() == b.shape());
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
    if (std::isnan(x[i]) && std::isnan(y[i])) continue;
    const double d = std::fabs(x[i] - y[i]);
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

/// f's gradient by every input against central differences of <f, r> along three random directions.
inline void check_gradients(const Function& f, const std::vector<Tensor>& inputs, double tolerance = 1e-7) {
  const Tensor out = f(inputs);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const Tensor r = constant(out.shape(), 1000 + seed);
    const std::vector<Tensor> grads = grad(std::vector<Tensor>{out}, inputs, std::vector<Tensor>{r}, {.retain_graph = true});
    NoGrad no_grad;
    constexpr double kStep = 1e-5;
    std::vector<Tensor> up, down;
    double along = 0.0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Tensor direction = constant(inputs[i].shape(), 2000 + 10 * seed + i);
      up.push_back(inputs[i] + direction * kStep);
      down.push_back(inputs[i] - direction * kStep);
      if (grads[i].defined()) along += dot(grads[i], direction);
    }
    const double difference = (dot(f(up), r) - dot(f(down), r)) / (2 * kStep);
    CHECK(along == doctest::Approx(difference).epsilon(tolerance).scale(1.0 + std::fabs(difference)));
  }
}

/// Second derivatives: the gradient of <df/dinputs, v> against finite differences.
inline void check_second_order(const Function& f, const std::vector<Tensor>& inputs, double tolerance = 1e-6) {
  check_gradients(
      [&](const std::vector<Tensor>& xs) {
        EnableGrad recording;
        std::vector<Tensor> leaves;
        for (const Tensor& x : xs) leaves.push_back(x.requires_grad() ? x : detach(x).set_requires_grad(true));
        const Tensor out = f(leaves);
        const std::vector<Tensor> first = grad(std::vector<Tensor>{out}, leaves, std::vector<Tensor>{constant(out.shape(), 5)}, {.create_graph = true});
        Tensor total;
        for (std::size_t i = 0; i < first.size(); ++i) {
          if (!first[i].defined()) continue;
          const Tensor part = sum(first[i] * constant(first[i].shape(), 50 + i));
          total = total.defined() ? total + part : part;
        }
        return total;
      },
      inputs, tolerance);
}

/// Both functions give the same value and the same gradients.
inline void check_same(const Function& f, const Function& reference, const std::vector<Tensor>& inputs, double tolerance = 1e-12) {
  const Tensor a = f(inputs), b = reference(inputs);
  CHECK(largest_difference(a, b) <= tolerance);
  const Tensor r = to_dtype(constant(a.shape(), 9), a.dtype());
  const std::vector<Tensor> left = grad(std::vector<Tensor>{a}, inputs, std::vector<Tensor>{r}), right = grad(std::vector<Tensor>{b}, inputs, std::vector<Tensor>{r});
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    REQUIRE(left[i].defined() == right[i].defined());
    if (left[i].defined()) CHECK(largest_difference(left[i], right[i]) <= tolerance);
  }
}

/// Bytes that live tensors hold now.
inline std::int64_t live_bytes() { return kernels::memory_statistics(Device{}).live_bytes; }

/// Runs `f`, which must throw an E whose message contains all words and is one line.
template <class E, class F>
void check_throws(F&& f, std::initializer_list<const char*> words) {
  try {
    f();
    FAIL("nothing was thrown");
  } catch (const E& error) {
    const std::string text = error.what();
    CAPTURE(text);
    for (const char* word : words) CHECK(text.find(word) != std::string::npos);
    CHECK(text.find('\n') == std::string::npos);
  }
}

}  // namespace cambium::test
