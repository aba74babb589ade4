// Random tensors: every element is a function of the key and its position.
#include <cmath>

#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;

namespace {
void check_dtype(std::string_view what, DType dtype) { check<DTypeError>(is_float(dtype), what, ": expected a floating type, found ", dtype); }
}  // namespace

Tensor random_uniform(const Shape& shape, RandomKey key, double low, double high, DType dtype, Device device) {
  check_dtype("random_uniform", dtype);
  check<ConfigError>(low <= high, "random_uniform: the lower bound ", low, " is above the upper bound ", high);
  const Tensor out = empty(shape, dtype, device);
  Run run(out);
  run->random_uniform(run.context, out.view(), key.seed, key.offset, low, high);
  return out;
}

Tensor random_normal(const Shape& shape, RandomKey key, double mean, double deviation, DType dtype, Device device) {
  check_dtype("random_normal", dtype);
  check<ConfigError>(deviation >= 0.0, "random_normal: negative deviation ", deviation);
  const Tensor out = empty(shape, dtype, device);
  Run run(out);
  run->random_normal(run.context, out.view(), key.seed, key.offset, mean, deviation);
  return out;
}

Tensor bernoulli(const Shape& shape, RandomKey key, double p, DType dtype, Device device) {
  check<ConfigError>(p >= 0.0 && p <= 1.0, "bernoulli: expected a probability, found ", p);
  return to_dtype(less(random_uniform(shape, key, 0.0, 1.0, DType::f64, device), p), dtype);
}

Tensor random_integers(const Shape& shape, RandomKey key, std::int64_t low, std::int64_t high, Device device) {
  check<ConfigError>(low < high, "random_integers: nothing lies in [", low, ", ", high, ")");
  const double width = static_cast<double>(high) - static_cast<double>(low);
  check<ConfigError>(width <= 0x1p24, "random_integers: at most 2^24 different values can be drawn, [", low, ", ", high, ") has more");
  return add(to_dtype(floor(random_uniform(shape, key, 0.0, width, DType::f64, device)), DType::i64), static_cast<double>(low));
}

Tensor multinomial(const Tensor& probabilities, RandomKey key) {
  detail::check_float("multinomial", probabilities);
  check<ShapeError>(probabilities.rank() == 2, "multinomial: expected probabilities (rows, classes), found ", probabilities.shape());
  NoGrad no_grad;
  const std::int64_t rows = probabilities.size(0), classes = probabilities.size(1);
  if (rows == 0) return empty({0}, DType::i64, probabilities.device());
  const Tensor p = to_dtype(probabilities, DType::f64);
  check<StateError>(all_finite(p) && !any(less(p, 0.0)), "multinomial: probabilities are finite and not negative");
  check<ShapeError>(classes > 0, "multinomial: no classes to choose from");
  const Tensor running = cumsum(p, 1), total = slice(running, 1, classes - 1);
  check<StateError>(!any(equal(total, 0.0)), "multinomial: the probabilities of a row are all 0");
  // The first class whose running sum is above the point: how many are not above it.
  const Tensor point = mul(random_uniform({rows, 1}, key, 0.0, 1.0, DType::f64, p.device()), total);
  return sum(less_equal(running, point), {1});
}

}  // namespace cambium
