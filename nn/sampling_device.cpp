// sample_token() as ops on a device.
#include "nn/sampling_device.h"

#include <algorithm>
#include <limits>

#include "autograd/ops.h"

namespace cambium {

namespace {

constexpr std::int64_t kNoToken = -1;  // of a row with a NaN, or without a finite number

Tensor penalised(const Tensor& values, std::vector<std::int64_t> seen, double penalty) {
  const std::int64_t vocabulary = values.size(0);
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  std::erase_if(seen, [&](std::int64_t token) { return token < 0 || token >= vocabulary; });
  if (penalty == 1.0 || seen.empty()) return values;
  const Tensor index = from_vector(seen, {static_cast<std::int64_t>(seen.size())}, values.device());
  const Tensor now = index_select(values, 0, index), changed = where(less(now, 0.0), mul(now, penalty), div(now, penalty));
  // Infinite ones stay what they are; their difference would be NaN.
  const Tensor difference = where(equal(now, changed), zeros_like(now), sub(changed, now));
  return index_add(values, 0, index, difference);
}

/// Entries of p where `keep` holds, with sum 1 again.
Tensor kept(const Tensor& p, const Tensor& keep) {
  const Tensor left = where(keep, p, zeros_like(p));
  return div(left, sum(left));
}

/// The place of the drawn token among sorted logits (V), int64 scalar.
Tensor drawn(const Tensor& sorted, const SamplingOptions& options, RandomKey key) {
  const Tensor best = select(sorted, 0, 0);
  Tensor p = exp(div(sub(sorted, best), options.temperature));
  if (options.top_k > 0 && options.top_k < sorted.size(0)) p = where(greater_equal(sorted, select(sorted, 0, options.top_k - 1)), p, zeros_like(p));
  p = div(p, sum(p));
  // Kept: every candidate before which less than top_p has been gathered, hence always the first.
  if (options.top_p < 1.0) p = kept(p, less(sub(cumsum(p, 0), p), options.top_p));
  if (options.min_p > 0.0) p = kept(p, greater_equal(p, mul(select(p, 0, 0), options.min_p)));
  const double draw = random_uniform({1}, key, 0.0, 1.0, DType::f64).item();
  const Tensor passed = sum(to_dtype(logical_not(less(full({1}, draw, DType::f64, p.device()), cumsum(p, 0))), DType::i64));
  // The sum of the probabilities may have been rounded below the draw.
  return minimum(passed, sub(sum(to_dtype(greater(p, 0.0), DType::i64)), full({}, 1.0, DType::i64, p.device())));
}

}  // namespace

std::vector<std::int64_t> sample_on_device(const Tensor& logits, const std::vector<SamplingRow>& rows, const SamplingOptions& options) {
  NoGrad no_grad;
  options.check();
  const Device device = logits.device();
  const Tensor places = arange(logits.size(1), DType::i64, device), none = full({}, static_cast<double>(kNoToken), DType::i64, device);
  std::vector<Tensor> chosen;
  for (const SamplingRow& row : rows) {
    const Tensor given = to_dtype(select(logits, 0, row.row), DType::f64), values = penalised(given, row.seen, options.repetition_penalty);
    Tensor token;
    if (options.do_sample) {
      const ValuesAndIndices sorted = sort(values, 0, true);
      token = sum(where(equal(places, drawn(sorted.values, options, row.key)), sorted.indices, zeros_like(places)));
    } else {
      token = argmax(values, 0);
    }
    const Tensor no_number = to_dtype(not_equal(given, given), DType::i64), finite = to_dtype(less(abs(given), std::numeric_limits<double>::infinity()), DType::i64);
    const Tensor good = logical_and(equal(sum(no_number), 0.0), greater(sum(finite), 0.0));
    chosen.push_back(where(good, token, none));
  }
  std::vector<std::int64_t> tokens = stack(chosen).to_vector<std::int64_t>();
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (tokens[i] == kNoToken) {  // the message says what was wrong
      const std::vector<float> values = select(logits, 0, rows[i].row).to_vector<float>();
      tokens[i] = sample_token(values, rows[i].seen, options, rows[i].key);
    }
  return tokens;
}

}  // namespace cambium
