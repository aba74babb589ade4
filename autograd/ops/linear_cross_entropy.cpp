// linear_cross_entropy: head and loss in chunks of labelled rows, gradients made while a chunk's logits are there.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/support.h"
#include "autograd/ops/targets.h"

namespace cambium {

namespace {

using detail::alias;
using detail::dense_as;
using detail::multiply;
using detail::reshaped;
using detail::Run;

// Rows of logits that are there at once: about 128 MiB of float32 (fewer, larger products are faster), cut into equal parts so that no chunk is a small rest.
std::int64_t chunk_rows(std::int64_t rows, std::int64_t classes) {
  const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 25) / classes, 32, 1024);
  const std::int64_t chunks = std::max<std::int64_t>((rows + most - 1) / most, 1);
  return std::max<std::int64_t>((rows + chunks - 1) / chunks, 1);
}

Tensor rows_between(const Tensor& x, std::int64_t begin, std::int64_t end) { return alias(x, x.layout().slice(0, begin, end)); }

// The loss and, as far as they are needed, its gradients: hidden's only for the labelled rows.
struct Pass {
  Tensor loss, dhidden, dweight, dbias;
};

Pass run_chunks(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const detail::Targets& targets, const Tensor& rows, std::int64_t ignore_index, double divisor,
                bool need_hidden, bool need_weight, bool need_bias) {
  const std::int64_t labelled = static_cast<std::int64_t>(targets.labelled.size()), classes = weight.shape()[0], channels = hidden.shape()[1];
  const bool all_rows = labelled == hidden.shape()[0];
  const DType sums = detail::accumulator(hidden.dtype());
  const Device device = hidden.device();
  Run run(hidden);
  const Tensor wide_bias = bias.defined() ? dense_as(bias, sums) : Tensor();
  Tensor losses = empty({labelled}, sums, device);
  Pass pass;
  if (need_hidden) pass.dhidden = empty({labelled, channels}, hidden.dtype(), device);
  if (need_weight) pass.dweight = labelled > 0 ? empty({classes, channels}, sums, device) : zeros({classes, channels}, sums, device);
  if (need_bias) pass.dbias = zeros({1, classes}, sums, device);

  const std::int64_t step = chunk_rows(labelled, classes);
  Tensor logits = empty({std::min(step, labelled), classes}, sums, device);
  Tensor gathered = all_rows ? Tensor() : empty({std::min(step, labelled), channels}, hidden.dtype(), device);
  for (std::int64_t begin = 0; begin < labelled; begin += step) {
    const std::int64_t end = std::min(begin + step, labelled), count = end - begin;
    Tensor x = rows_between(hidden, begin, end), ids = rows_between(targets.ids, begin, end);
    if (!all_rows) {
      const Tensor index = rows_between(rows, begin, end);
      x = rows_between(gathered, 0, count);
      run->index_select(run.context, x.view(), hidden.view(), index.view(), 0);
      ids = empty({count}, DType::i64, device);
      run->index_select(run.context, ids.view(), targets.ids.view(), index.view(), 0);
    }
    const Tensor part = rows_between(logits, 0, count), loss = rows_between(losses, begin, end);
    multiply(part, x, detail::transposed(weight), 1.0, 0.0, wide_bias);
    Tensor lse = empty({count}, sums, device);
    run->cross_entropy_forward(run.context, loss.view(), lse.view(), part.view(), ids.view(), {}, ignore_index, 0.0);
    if (!need_hidden && !need_weight && !need_bias) continue;
    const Tensor row_gradients = full({count}, 1.0 / divisor, sums, device);
    run->cross_entropy_backward(run.context, part.view(), row_gradients.view(), part.view(), lse.view(), ids.view(), {}, ignore_index, 0.0);
    if (need_hidden) multiply(rows_between(pass.dhidden, begin, end), part, weight);
    if (need_weight) multiply(pass.dweight, detail::transposed(part), x, 1.0, begin == 0 ? 0.0 : 1.0);
    if (need_bias) {
      Tensor columns = empty({1, classes}, sums, device);
      run->reduce(run.context, kernels::Reduction::sum, columns.view(), part.view());
      run->binary(run.context, kernels::BinaryFunction::add, pass.dbias.view(), pass.dbias.view(), columns.view());
    }
  }
  pass.loss = empty({}, sums, device);
  run->reduce(run.context, kernels::Reduction::sum, reshaped(pass.loss, {1}).view(), losses.view());
  run->unary(run.context, UnaryFunction::mul_scalar, pass.loss.view(), pass.loss.view(), 1.0 / divisor, 0.0);
  return pass;
}

// stored * g, g a scalar of another float type, in a new tensor of `dtype`. What was made in the forward pass cannot be differentiated again.
Tensor scaled(const Tensor& stored, const Tensor& g, DType dtype) {
  check<StateError>(!grad_enabled(), "linear_cross_entropy: the second derivative is not implemented: use cross_entropy of linear when the backward pass is recorded");
  const Tensor factor = dense_as(g, stored.dtype());
  Tensor out = empty(stored.shape(), stored.dtype(), stored.device());
  Run run(stored);
  run->binary(run.context, kernels::BinaryFunction::mul, out.view(), stored.view(), alias(factor, factor.layout().broadcast_to(stored.shape())).view());
  return dense_as(out, dtype);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets, std::int64_t ignore_index, std::optional<double> count) {
  constexpr std::string_view op = "linear_cross_entropy";
  detail::check_float(op, "the hidden states", hidden);
  detail::check_alike(op, "the hidden states", hidden, "the weight", weight);
  check<ShapeError>(hidden.rank() == 2 && weight.rank() == 2 && hidden.shape()[1] == weight.shape()[1] && weight.shape()[0] > 0,
                    op, ": expected hidden (R, C) and weight (V, C), found ", hidden.shape(), " and ", weight.shape());
  detail::check_vector(op, "the bias", bias, weight.shape()[0], hidden);
  const detail::Targets checked = detail::check_targets(op, targets, {hidden.shape()[0]}, weight.shape()[0], ignore_index, hidden.device());
  check<ConfigError>(!count || *count > 0.0, op, ": count must be positive, found ", count.value_or(0.0));
  const auto labelled = static_cast<std::int64_t>(checked.labelled.size());
  const double divisor = count ? *count : static_cast<double>(labelled);  // no label and no count: NaN, as cross_entropy gives
  Tensor rows;
  if (labelled < hidden.shape()[0]) rows = from_vector(checked.labelled, {labelled}, hidden.device());

  const bool need_hidden = needs_grad(hidden), need_weight = needs_grad(weight), need_bias = needs_grad(bias);
  Pass pass = run_chunks(hidden, weight, bias, checked, rows, ignore_index, divisor, need_hidden, need_weight, need_bias);
  Tensor out = std::move(pass.loss);
  return record(op, out)
      .wrt(hidden, [kept = saved(pass.dhidden), rows = saved(rows), shape = hidden.shape(), dtype = hidden.dtype()](const Tensor& g) {
        Tensor dx = scaled(kept.get(), g, dtype);
        if (rows.get().defined()) {
          Tensor whole = zeros(shape, dtype, dx.device());
          Run run(whole);
          run->index_add(run.context, whole.view(), rows.get().view(), dx.view(), 0);
          dx = whole;
        }
        return dx;
      })
      .wrt(weight, [kept = saved(pass.dweight), dtype = weight.dtype()](const Tensor& g) { return scaled(kept.get(), g, dtype); })
      .wrt(bias, [kept = saved(pass.dbias), dtype = weight.dtype()](const Tensor& g) {
        const Tensor db = scaled(kept.get(), g, dtype);
        return reshaped(db, {db.count()});
      });
}

}  // namespace cambium
