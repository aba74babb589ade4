// cross_entropy: one fused pass over each row of logits; and the check of targets that the losses share.
#include "autograd/ops.h"
#include "autograd/ops/support.h"
#include "autograd/ops/targets.h"

namespace cambium {

using detail::dense;
using detail::dense_as;
using detail::reshaped;
using detail::Run;

detail::Targets detail::check_targets(std::string_view op, const Tensor& targets, const Shape& expected, std::int64_t classes, std::int64_t ignore_index, Device device) {
  check<StateError>(targets.defined(), op, ": the targets are undefined");
  check<DTypeError>(targets.dtype() == DType::i64 || targets.dtype() == DType::i32, op, ": targets must be int64 or int32 class numbers, found ", targets.dtype());
  check<DeviceError>(targets.device() == device, op, ": the targets are on ", targets.device(), ", what they are compared with on ", device, ": use to_device");
  check<ShapeError>(targets.shape() == expected, op, ": targets must have shape ", expected, ", found ", targets.shape());
  Targets out;
  const std::vector<std::int64_t> values = targets.to_vector<std::int64_t>();
  out.labelled.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == ignore_index) continue;
    check<Error>(values[i] >= 0 && values[i] < classes, op, ": target ", values[i], " at position ", i, " is neither a class below ", classes, " nor ignore_index ",
                 ignore_index);
    out.labelled.push_back(static_cast<std::int64_t>(i));
  }
  out.ids = reshaped(dense_as(targets, DType::i64), {targets.count()});
  return out;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  detail::check_float("cross_entropy", "the logits", logits);
  check<ShapeError>(logits.rank() >= 1 && logits.shape()[-1] > 0, "cross_entropy: the last dimension of the logits must not be empty, found shape ", logits.shape());
  check<ConfigError>(options.label_smoothing >= 0.0 && options.label_smoothing <= 1.0, "cross_entropy: label_smoothing must be from 0 to 1, found ",
                     options.label_smoothing);
  const std::int64_t classes = logits.shape()[-1];
  detail::check_vector("cross_entropy", "the class weights", options.weight, classes, logits);
  const Shape row_shape(std::span(logits.shape().begin(), static_cast<std::size_t>(logits.rank() - 1)));
  const detail::Targets checked = detail::check_targets("cross_entropy", targets, row_shape, classes, options.ignore_index, logits.device());
  const Shape matrix{targets.count(), classes};
  const DType sums = detail::accumulator(logits.dtype());

  // What the mean divides by: as in torch, 0 / 0 when no row counts, which is NaN and not a loss of zero. A sum of weights stays on the device.
  const Tensor weight = options.weight.defined() ? dense(options.weight) : Tensor();
  const bool mean = options.reduction == LossReduction::mean, weighted = mean && weight.defined();
  const double divisor = mean && !weighted ? static_cast<double>(checked.labelled.size()) : 1.0;
  Tensor weights;
  if (weighted) {
    const NoGrad no_grad;
    std::vector<std::int64_t> classes_of_rows = targets.to_vector<std::int64_t>();
    std::erase(classes_of_rows, options.ignore_index);
    const auto rows = static_cast<std::int64_t>(classes_of_rows.size());
    weights = sum(dense_as(index_select(weight, 0, from_vector(classes_of_rows, {rows}, logits.device())), sums));
  }

  Run run(logits);
  Tensor losses = empty({matrix[0]}, sums, logits.device()), lse = empty_like(losses);
  run->cross_entropy_forward(run.context, losses.view(), lse.view(), reshaped(dense(logits), matrix).view(), checked.ids.view(), detail::optional_view(weight),
                             options.ignore_index, options.label_smoothing);
  const bool reduced = options.reduction != LossReduction::none;
  Tensor out;
  if (reduced) {
    out = empty({}, sums, logits.device());
    run->reduce(run.context, kernels::Reduction::sum, reshaped(out, {1}).view(), losses.view());
    if (weighted) run->binary(run.context, kernels::BinaryFunction::div, out.view(), out.view(), weights.view());
    else if (mean) run->unary(run.context, UnaryFunction::mul_scalar, out.view(), out.view(), 1.0 / divisor, 0.0);
  } else {
    out = reshaped(losses, row_shape);
  }
  return record("cross_entropy", out)
      .wrt(logits, [logits = saved(logits), lse = saved(lse), ids = saved(checked.ids), weight = saved(weight), ignore = options.ignore_index,
                    smoothing = options.label_smoothing, divisor, weights, reduced, matrix](const Tensor& g) {
        const Tensor& x = logits.get();
        Run backward_run(x);
        Tensor row_gradients = empty({matrix[0]}, g.dtype(), g.device());
        const Tensor upstream = reduced ? detail::alias(g, g.layout().broadcast_to({matrix[0]})) : reshaped(dense(g), {matrix[0]});
        if (weights.defined())
          backward_run->binary(backward_run.context, kernels::BinaryFunction::div, row_gradients.view(), upstream.view(), detail::alias(weights, weights.layout().broadcast_to({matrix[0]})).view());
        else
          backward_run->unary(backward_run.context, UnaryFunction::mul_scalar, row_gradients.view(), upstream.view(), 1.0 / divisor, 0.0);
        Tensor dx = empty(x.shape(), x.dtype(), x.device());
        backward_run->cross_entropy_backward(backward_run.context, reshaped(dx, matrix).view(), row_gradients.view(), reshaped(dense(x), matrix).view(), lse.get().view(),
                                             ids.get().view(), detail::optional_view(weight.get()), ignore, smoothing);
        return detail::once("cross_entropy", dx, {g, x});
      });
}

}  // namespace cambium
