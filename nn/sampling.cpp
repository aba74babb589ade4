// Choosing the next token from logits.
#include "nn/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/ops.h"

namespace cambium {

namespace {

std::vector<double> penalised(std::span<const float> logits, std::span<const std::int64_t> seen, double penalty) {
  std::vector<double> values(logits.begin(), logits.end());
  if (penalty == 1.0) return values;
  std::vector<std::int64_t> once(seen.begin(), seen.end());
  std::sort(once.begin(), once.end());
  once.erase(std::unique(once.begin(), once.end()), once.end());
  for (const std::int64_t token : once) {
    if (token < 0 || token >= static_cast<std::int64_t>(values.size())) continue;
    double& value = values[static_cast<std::size_t>(token)];
    value = value < 0.0 ? value * penalty : value / penalty;
  }
  return values;
}

void check_logits(const std::vector<double>& values) {
  bool finite = false;
  for (const double v : values) {
    check<StateError>(!std::isnan(v), "sampling: a logit is NaN: the model's weights or its adapter are damaged, or it diverged in training");
    finite = finite || std::isfinite(v);
  }
  check<StateError>(finite, "sampling: no logit of ", values.size(), " is finite");
}

void normalise(std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& c : candidates) total += c.probability;
  for (Candidate& c : candidates) c.probability /= total;
}

}  // namespace

void SamplingOptions::check() const {
  cambium::check<ConfigError>(temperature > 0.0 && std::isfinite(temperature), "sampling: 'temperature': expected a positive number, found ", temperature,
                              ": for the most likely token leave do_sample off");
  cambium::check<ConfigError>(top_k >= 0, "sampling: 'top_k': expected 0 (all) or a positive number, found ", top_k);
  cambium::check<ConfigError>(top_p > 0.0 && top_p <= 1.0, "sampling: 'top_p': expected a number above 0 up to 1, found ", top_p);
  cambium::check<ConfigError>(min_p >= 0.0 && min_p <= 1.0, "sampling: 'min_p': expected a number from 0 to 1, found ", min_p);
  cambium::check<ConfigError>(repetition_penalty > 0.0 && std::isfinite(repetition_penalty), "sampling: 'repetition_penalty': expected a positive number, found ",
                              repetition_penalty);
}

std::vector<Candidate> sampling_candidates(std::span<const float> logits, std::span<const std::int64_t> seen, const SamplingOptions& options) {
  options.check();
  std::vector<double> values = penalised(logits, seen, options.repetition_penalty);
  check_logits(values);
  const auto likelier = [&](std::int64_t a, std::int64_t b) {
    const double va = values[static_cast<std::size_t>(a)], vb = values[static_cast<std::size_t>(b)];
    return va != vb ? va > vb : a < b;
  };
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(order.size())) {
    std::nth_element(order.begin(), order.begin() + (options.top_k - 1), order.end(), likelier);
    // Equals of the last one stay too, as in transformers, which removes what is below it.
    const double last = values[static_cast<std::size_t>(order[static_cast<std::size_t>(options.top_k - 1)])];
    std::erase_if(order, [&](std::int64_t token) { return values[static_cast<std::size_t>(token)] < last; });
  }
  std::sort(order.begin(), order.end(), likelier);

  const double best = values[static_cast<std::size_t>(order.front())];
  std::vector<Candidate> candidates;
  for (const std::int64_t token : order) {
    const double p = std::exp((values[static_cast<std::size_t>(token)] - best) / options.temperature);
    if (p > 0.0) candidates.push_back({token, p});
  }
  normalise(candidates);
  if (options.top_p < 1.0) {
    // Kept: every candidate before which less than top_p has been gathered, hence always the first.
    double gathered = 0.0;
    std::size_t kept = 0;
    while (kept < candidates.size() && (kept == 0 || gathered < options.top_p)) gathered += candidates[kept++].probability;
    candidates.resize(kept);
    normalise(candidates);
  }
  if (options.min_p > 0.0) {
    const double threshold = options.min_p * candidates.front().probability;
    std::erase_if(candidates, [&](const Candidate& c) { return c.probability < threshold; });
    normalise(candidates);
  }
  return candidates;
}

std::int64_t sample_token(std::span<const float> logits, std::span<const std::int64_t> seen, const SamplingOptions& options, RandomKey key) {
  if (!options.do_sample) {
    options.check();
    const std::vector<double> values = penalised(logits, seen, options.repetition_penalty);
    check_logits(values);
    return std::max_element(values.begin(), values.end()) - values.begin();
  }
  const std::vector<Candidate> candidates = sampling_candidates(logits, seen, options);
  const double draw = random_uniform({1}, key, 0.0, 1.0, DType::f64).item();
  double gathered = 0.0;
  for (const Candidate& c : candidates) {
    gathered += c.probability;
    if (draw < gathered) return c.token;
  }
  return candidates.back().token;  // the sum of the probabilities was rounded below the draw
}

}  // namespace cambium
