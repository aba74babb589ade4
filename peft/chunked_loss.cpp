// Cross-entropy in chunks of rows for any head.
#include "peft/chunked_loss.h"

#include <algorithm>
#include <numeric>

#include "autograd/ops.h"

namespace cambium::detail {

namespace {

/// As many rows at once as linear_cross_entropy takes: about 128 MiB of float32, in equal parts.
std::int64_t chunk_rows(std::int64_t rows, std::int64_t classes) {
  const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 25) / std::max<std::int64_t>(classes, 1), 32, 1024);
  const std::int64_t chunks = std::max<std::int64_t>((rows + most - 1) / most, 1);
  return std::max<std::int64_t>((rows + chunks - 1) / chunks, 1);
}

/// stored * g in stored's dtype. What was made in the forward pass cannot be differentiated again.
Tensor scaled(const Tensor& stored, const Tensor& g) {
  check<StateError>(!grad_enabled(), "chunked_cross_entropy: the second derivative is not implemented: use cross_entropy of the head's logits when the backward pass is recorded");
  return mul(stored, to_dtype(g, stored.dtype()));
}

}  // namespace

Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& targets, std::optional<double> count, std::int64_t classes, std::span<const Tensor> parameters,
                             const std::function<Tensor(const Tensor& rows, std::uint64_t chunk)>& logits) {
  const std::int64_t rows = hidden.size(0), step = chunk_rows(rows, classes);
  CrossEntropyOptions options;
  if (step >= rows) {
    options.reduction = count ? LossReduction::sum : LossReduction::mean;
    const Tensor loss = cross_entropy(logits(hidden, 0), targets, options);
    return count ? div(loss, *count) : loss;
  }
  double divisor = 0.0;
  if (count) {
    divisor = *count;
  } else {
    const std::vector<std::int64_t> ids = targets.to_vector<std::int64_t>();
    divisor = static_cast<double>(ids.size()) - static_cast<double>(std::count(ids.begin(), ids.end(), -100));
  }
  options.reduction = LossReduction::sum;

  std::vector<Tensor> trained;  // leaves whose gradients are wanted, without repetition
  for (const Tensor& p : parameters)
    if (needs_grad(p) && std::none_of(trained.begin(), trained.end(), [&](const Tensor& t) { return t.same_body(p); })) trained.push_back(p);
  const bool need_hidden = needs_grad(hidden), recording = need_hidden || !trained.empty();
  std::vector<Tensor> sums(trained.size()), losses, hidden_parts;
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t end = std::min(begin + step, rows);
    Tensor part = slice(detach(hidden), 0, begin, end);
    if (need_hidden) part = detach(part).set_requires_grad(true);
    const Tensor loss = div(cross_entropy(logits(part, static_cast<std::uint64_t>(begin / step)), slice(targets, 0, begin, end), options), divisor);
    losses.push_back(detach(loss));
    if (!recording) continue;
    std::vector<Tensor> inputs = trained;
    if (need_hidden) inputs.push_back(part);
    const std::vector<Tensor> grads = grad({&loss, 1}, inputs);
    NoGrad no_grad;
    for (std::size_t i = 0; i < trained.size(); ++i)
      if (grads[i].defined()) sums[i] = sums[i].defined() ? add(sums[i], grads[i]) : grads[i];
    if (need_hidden) hidden_parts.push_back(grads.back());
  }
  Tensor total, dhidden;
  {
    NoGrad no_grad;
    total = clone(sum(stack(losses)));
    if (need_hidden) dhidden = cat(hidden_parts, 0);
  }
  std::vector<Tensor> inputs = trained;
  inputs.push_back(hidden);
  std::vector<Saved> kept;
  for (const Tensor& g : sums) kept.push_back(saved(g));
  kept.push_back(saved(dhidden));
  return record("chunked_cross_entropy", std::move(total)).wrt(inputs, [kept](const Tensor& g, Needed needed) {
    std::vector<Tensor> grads(kept.size());
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (needed[i] && kept[i].get().defined()) grads[i] = scaled(kept[i].get(), g);
    return grads;
  });
}

}  // namespace cambium::detail
