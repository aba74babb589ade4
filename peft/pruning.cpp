// Pruning and sign election, entry by entry in float32.
#include "peft/pruning.h"

#include <algorithm>
#include <cmath>

namespace cambium {

namespace {

void check_parts(const std::vector<Tensor>& parts, const std::vector<double>& weights) {
  check<ShapeError>(!parts.empty() && parts.size() == weights.size(), "combining: expected a weight for each of the parts, found ", weights.size(), " weights and ", parts.size(), " parts");
  for (const Tensor& part : parts)
    check<ShapeError>(part.shape() == parts.front().shape(), "combining: shapes differ: ", parts.front().shape(), " and ", part.shape());
}

}  // namespace

Tensor magnitude_prune(const Tensor& x, double density) {
  NoGrad no_grad;
  check<ConfigError>(density >= 0.0, "density: expected 0 or more, found ", density);
  if (density >= 1.0) return x;
  const Tensor dense = detail::on_host(contiguous(to_dtype(x, DType::f32)));  // what ties keep depends on their order
  // The product in double and cut, as PEFT has it: .7 of 10 are 7, .29 of 100 are 28.
  const auto count = static_cast<std::size_t>(dense.count());
  const auto kept = static_cast<std::size_t>(density * static_cast<double>(count));
  Tensor out = zeros(dense.shape());
  if (kept == 0) return to_device(out, x.device());
  const float* from = dense.data<float>();
  float* to = out.mutable_data<float>();
  std::vector<float> sizes(count);
  for (std::size_t i = 0; i < count; ++i) sizes[i] = std::fabs(from[i]);
  const auto border = sizes.begin() + static_cast<std::ptrdiff_t>(kept - 1);
  std::nth_element(sizes.begin(), border, sizes.end(), std::greater<>());
  const float threshold = *border;
  std::size_t ties = kept - static_cast<std::size_t>(std::count_if(sizes.begin(), border, [&](float v) { return v > threshold; }));
  for (std::size_t i = 0; i < count; ++i) {
    const float size = std::fabs(from[i]);
    if (size > threshold) to[i] = from[i];
    else if (size == threshold && ties > 0) {
      to[i] = from[i];
      --ties;
    }
  }
  return to_device(out, x.device());
}

Tensor random_prune(const Tensor& x, double density, RandomKey key) {
  NoGrad no_grad;
  check<ConfigError>(density > 0.0, "density: expected a positive share to keep at random, found ", density);
  if (density >= 1.0) return x;
  return mul(mul(to_dtype(x, DType::f32), bernoulli(x.shape(), key, density, DType::f32, x.device())), 1.0 / density);
}

Tensor task_arithmetic(const std::vector<Tensor>& parts, const std::vector<double>& weights) {
  NoGrad no_grad;
  check_parts(parts, weights);
  Tensor out = mul(parts[0], weights[0]);
  for (std::size_t i = 1; i < parts.size(); ++i) out = add(out, mul(parts[i], weights[i]));
  return out;
}

Tensor elect_and_average(const std::vector<Tensor>& parts, const std::vector<double>& weights, const std::string& majority_sign_method) {
  NoGrad no_grad;
  check_parts(parts, weights);
  const bool total = majority_sign_method == "total";
  check<ConfigError>(total || majority_sign_method == "frequency", "majority_sign_method: expected total or frequency, found '", majority_sign_method, "'");
  std::vector<Tensor> dense;
  std::vector<const float*> from;
  std::vector<float> factors(weights.begin(), weights.end());
  for (const Tensor& part : parts) from.push_back(dense.emplace_back(detail::on_host(contiguous(to_dtype(part, DType::f32)))).data<float>());
  Tensor out = empty(parts.front().shape());
  float* to = out.mutable_data<float>();
  const auto sign_of = [](float v) { return v > 0.0F ? 1.0F : v < 0.0F ? -1.0F : 0.0F; };
  for (std::int64_t i = 0; i < out.count(); ++i) {
    float votes = 0.0F, added = 0.0F;
    for (const float* part : from) votes += total ? part[i] : sign_of(part[i]);
    const float elected = votes >= 0.0F ? 1.0F : -1.0F;
    int agreeing = 0;
    for (std::size_t p = 0; p < from.size(); ++p)
      if (sign_of(from[p][i]) == elected) {
        added += factors[p] * from[p][i];
        ++agreeing;
      }
    to[i] = added / static_cast<float>(std::max(1, agreeing));
  }
  return to_device(out, parts.front().device());
}

}  // namespace cambium
