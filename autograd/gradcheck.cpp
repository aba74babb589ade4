// Gradient checks by random projection.
#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"

namespace cambium {

namespace {

using Function = std::function<Tensor(std::span<const Tensor>)>;

// The inputs moved by `distance` along the directions (undefined: constant), as leaves.
std::vector<Tensor> moved(std::span<const Tensor> inputs, std::span<const Tensor> directions, double distance) {
  NoGrad no_grad;
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    out.push_back(directions[i].defined() ? add(inputs[i], mul(directions[i], distance)).set_requires_grad(true) : inputs[i]);
  return out;
}

Tensor projected(const Function& function, std::span<const Tensor> inputs, RandomKey key) {
  const Tensor out = function(inputs);
  return sum(mul(out, random_normal(out.shape(), key, 0.0, 1.0, out.dtype(), out.device())));
}

double check_direction(const Function& function, std::span<const Tensor> inputs, double step, RandomKey key) {
  const RandomKey weights = key.fold("weights");
  std::vector<Tensor> directions(inputs.size()), varied;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined() && inputs[i].requires_grad())
      directions[i] = random_normal(inputs[i].shape(), key.fold("direction").fold(i), 0.0, 1.0, DType::f64, inputs[i].device());
  const std::vector<Tensor> leaves = moved(inputs, directions, 0.0);
  std::vector<Tensor> along;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (directions[i].defined()) {
      varied.push_back(leaves[i]);
      along.push_back(directions[i]);
    }
  const Tensor out = projected(function, leaves, weights);
  const std::vector<Tensor> grads = grad(std::span(&out, 1), varied);
  double expected = 0.0;
  for (std::size_t i = 0; i < grads.size(); ++i)
    if (grads[i].defined()) expected += sum(mul(grads[i], along[i])).item();
  const auto value = [&](double distance) { return projected(function, moved(inputs, directions, distance), weights).item(); };
  const double quotient = (8.0 * (value(step) - value(-step)) - (value(2.0 * step) - value(-2.0 * step))) / (12.0 * step);
  const double deviation = std::fabs(expected - quotient) / std::max(1.0, std::fabs(quotient));
  return std::isfinite(deviation) ? deviation : std::numeric_limits<double>::infinity();
}

}  // namespace

double gradcheck(const Function& function, std::span<const Tensor> inputs, const GradcheckOptions& options) {
  bool any_varied = false;
  for (const Tensor& x : inputs) {
    if (!x.defined() || !x.requires_grad()) continue;
    any_varied = true;
    check<DTypeError>(x.dtype() == DType::f64, "gradcheck: inputs that require a gradient must be float64, found ", x.dtype());
  }
  check<StateError>(any_varied, "gradcheck: no input requires a gradient");
  // Second order: the gradient itself, projected, becomes the function that is checked.
  const Function slope = [&](std::span<const Tensor> leaves) {
    const Tensor out = projected(function, leaves, options.key.fold("slope"));
    std::vector<Tensor> varied;
    for (const Tensor& x : leaves)
      if (x.defined() && x.requires_grad()) varied.push_back(x);
    const std::vector<Tensor> grads = grad(std::span(&out, 1), varied, {}, {.create_graph = true});
    // Starts from zero times the inputs, so that a gradient that does not depend on them is a constant and no error.
    Tensor total = mul(sum(varied.front()), 0.0);
    for (std::size_t i = 0; i < grads.size(); ++i)
      if (grads[i].defined())
        total = add(total, sum(mul(grads[i], random_normal(grads[i].shape(), options.key.fold("slope").fold(i), 0.0, 1.0, DType::f64, grads[i].device()))));
    return total;
  };
  double worst = 0.0;
  for (int seed = 0; seed < options.seeds; ++seed)
    worst = std::max(worst, check_direction(options.second_order ? slope : function, inputs, options.step, options.key.fold(static_cast<std::uint64_t>(seed))));
  return worst;
}

}  // namespace cambium
