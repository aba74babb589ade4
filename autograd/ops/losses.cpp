// Losses composed of public ops: derivatives of any order come with them.
#include "autograd/ops.h"
#include "autograd/ops/support.h"
#include "autograd/ops/targets.h"

namespace cambium {

namespace {

Tensor reduced(const Tensor& losses, LossReduction reduction) {
  switch (reduction) {
    case LossReduction::mean: return mean(losses);
    case LossReduction::sum: return sum(losses);
    case LossReduction::none: return losses;
  }
  return losses;
}

void check_same(std::string_view op, std::string_view name_x, const Tensor& x, std::string_view name_y, const Tensor& y) {
  detail::check_float(op, name_x, x);
  detail::check_alike(op, name_x, x, name_y, y);
  check<ShapeError>(x.shape() == y.shape(), op, ": ", name_x, " and ", name_y, " must have one shape, found ", x.shape(), " and ", y.shape());
}

}  // namespace

Tensor nll_loss(const Tensor& log_probabilities, const Tensor& targets, LossReduction reduction) {
  constexpr std::int64_t kIgnored = -100;
  detail::check_float("nll_loss", "the log probabilities", log_probabilities);
  check<ShapeError>(log_probabilities.rank() >= 1, "nll_loss: the log probabilities need a dimension of classes");
  const Shape row_shape(std::span(log_probabilities.shape().begin(), static_cast<std::size_t>(log_probabilities.rank() - 1)));
  const detail::Targets checked = detail::check_targets("nll_loss", targets, row_shape, log_probabilities.shape()[-1], kIgnored, log_probabilities.device());
  const Tensor ids = detail::reshaped(checked.ids, row_shape);
  const Tensor ignored = equal(ids, static_cast<double>(kIgnored));
  const Tensor picked = squeeze(gather(log_probabilities, -1, unsqueeze(masked_fill(ids, ignored, 0.0), -1)), -1);
  const Tensor losses = neg(masked_fill(picked, ignored, 0.0));
  // As in torch: no row that counts gives 0 / 0.
  if (reduction == LossReduction::mean) return sum(losses) * (1.0 / static_cast<double>(checked.labelled.size()));
  return reduced(losses, reduction);
}

Tensor mse_loss(const Tensor& x, const Tensor& y, LossReduction reduction) {
  check_same("mse_loss", "the input", x, "the target", y);
  return reduced(square(x - y), reduction);
}

Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& target, LossReduction reduction) {
  check_same("binary_cross_entropy_with_logits", "the input", x, "the target", target);
  return reduced(softplus(x) - x * target, reduction);
}

Tensor kl_div(const Tensor& log_input, const Tensor& target) {
  check_same("kl_div", "the input", log_input, "the target", target);
  check<ShapeError>(log_input.rank() >= 1 && log_input.shape()[0] > 0, "kl_div: expected rows to divide by, found shape ", log_input.shape());
  // t log t is 0 at t = 0.
  const Tensor safe = masked_fill(target, less_equal(target, 0.0), 1.0);
  return sum(target * (log(safe) - log_input)) * (1.0 / static_cast<double>(log_input.shape()[0]));
}

}  // namespace cambium
