// lstm: one direction over a whole sequence as one op; its results are slices of one packed tensor.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::alias;
using detail::multiply;
using detail::reshaped;
using detail::Run;
using detail::transposed;

// Everything inside is time-major: step t of a (T, B, N) tensor is a dense (B, N) block.
Tensor step(const Tensor& x, std::int64_t t) { return alias(x, x.layout().select(0, t)); }
Tensor time_major(const Tensor& x) { return detail::dense(alias(x, x.layout().transpose(0, 1))); }
Tensor rows_of(const Tensor& x) { return reshaped(x, {x.shape()[0] * x.shape()[1], x.shape()[2]}); }

void check_lstm(const Tensor& x, const LstmWeights& w, const Tensor& hidden, const Tensor& cell) {
  detail::check_float("lstm", "the input", x);
  check<ShapeError>(x.rank() == 3 && x.shape()[1] > 0, "lstm: the input must be (batch, time, channels) with at least one step, found shape ", x.shape());
  detail::check_alike("lstm", "the input", x, "weights.input", w.input);
  detail::check_alike("lstm", "the input", x, "weights.hidden", w.hidden);
  check<ShapeError>(w.hidden.rank() == 2 && w.hidden.shape()[0] == 4 * w.hidden.shape()[1], "lstm: weights.hidden must be (4H, H), found ", w.hidden.shape());
  const std::int64_t h = w.hidden.shape()[1];
  const Shape expected{4 * h, x.shape()[2]}, state{x.shape()[0], h};
  check<ShapeError>(w.input.shape() == expected, "lstm: weights.input must be ", expected, ", found ", w.input.shape());
  detail::check_vector("lstm", "weights.input_bias", w.input_bias, 4 * h, x);
  detail::check_vector("lstm", "weights.hidden_bias", w.hidden_bias, 4 * h, x);
  for (const Tensor* initial : {&hidden, &cell}) {
    if (!initial->defined()) continue;
    detail::check_alike("lstm", "the input", x, "the initial state", *initial);
    check<ShapeError>(initial->shape() == state, "lstm: the initial state must be ", state, ", found ", initial->shape());
  }
}

Tensor dense_or_zeros(const Tensor& x, const Shape& shape, const Tensor& like) { return x.defined() ? detail::dense(x) : zeros(shape, like.dtype(), like.device()); }

struct Kept {
  Saved x, input, hidden, first_hidden, first_cell, gates, cells, tanh_cells;  // x only if the input weights are trained
  bool reverse;
};

// Order of the inputs in the record.
enum { kX, kInput, kHidden, kInputBias, kHiddenBias, kFirstHidden, kFirstCell, kInputs };

std::vector<Tensor> backward_through_time(const Tensor& g, const Tensor& packed, Needed needed, const Kept& kept) {
  const Tensor &x = kept.x.get(), &w_input = kept.input.get(), &w_hidden = kept.hidden.get(), &gates = kept.gates.get(), &cells = kept.cells.get(),
               &tanh_cells = kept.tanh_cells.get();
  const std::int64_t steps = gates.shape()[0], batch = gates.shape()[1], h = gates.shape()[2] / 4;
  const Shape state{batch, h};
  const DType dtype = gates.dtype();
  Run run(gates);
  const Tensor upstream = detail::dense(g), first_hidden = dense_or_zeros(kept.first_hidden.get(), state, gates), first_cell = dense_or_zeros(kept.first_cell.get(), state, gates);
  Tensor dgates = empty(gates.shape(), dtype, gates.device()), dhidden = empty(state, dtype, gates.device()), dcell = empty_like(dhidden), dprevious = empty_like(dhidden);
  run->copy(run.context, dcell.view(), step(upstream, steps).view());
  run->fill(run.context, dhidden.view(), 0.0);
  const auto at = [&](std::int64_t i) { return kept.reverse ? steps - 1 - i : i; };  // i-th step taken
  for (std::int64_t i = steps - 1; i >= 0; --i) {
    const std::int64_t t = at(i);
    run->binary(run.context, kernels::BinaryFunction::add, dhidden.view(), dhidden.view(), step(upstream, t).view());
    const Tensor before = i == 0 ? first_cell : step(cells, at(i - 1));
    run->lstm_cell_backward(run.context, step(dgates, t).view(), dprevious.view(), dhidden.view(), dcell.view(), step(gates, t).view(), step(tanh_cells, t).view(), before.view());
    std::swap(dcell, dprevious);
    multiply(dhidden, step(dgates, t), w_hidden);
  }

  std::vector<Tensor> grads(kInputs);
  const Tensor flat = rows_of(dgates);
  if (needed[kX]) {
    Tensor dx = empty({steps, batch, w_input.shape()[1]}, dtype, gates.device());
    multiply(rows_of(dx), flat, w_input);
    grads[kX] = detail::dense(alias(dx, dx.layout().transpose(0, 1)));
  }
  if (needed[kInput]) {
    grads[kInput] = empty(w_input.shape(), dtype, gates.device());
    multiply(grads[kInput], transposed(flat), rows_of(time_major(x)));
  }
  if (needed[kHidden]) {  // every step's gates against the hidden state before it
    grads[kHidden] = empty(w_hidden.shape(), dtype, gates.device());
    multiply(grads[kHidden], transposed(step(dgates, at(0))), first_hidden);
    const std::int64_t late = kept.reverse ? 0 : 1, early = kept.reverse ? 1 : 0;
    const auto span_of = [steps](const Tensor& t, std::int64_t from) { return rows_of(alias(t, t.layout().slice(0, from, from + steps - 1))); };
    if (steps > 1) multiply(grads[kHidden], transposed(span_of(dgates, late)), span_of(packed, early), 1.0, 1.0);
  }
  if (needed[kInputBias] || needed[kHiddenBias]) {
    Tensor total = empty({1, 4 * h}, dtype, gates.device());
    run->reduce(run.context, kernels::Reduction::sum, total.view(), flat.view());
    for (int bias : {kInputBias, kHiddenBias})
      if (needed[static_cast<std::size_t>(bias)]) grads[static_cast<std::size_t>(bias)] = reshaped(total, {4 * h});
  }
  if (needed[kFirstHidden]) grads[kFirstHidden] = dhidden;
  if (needed[kFirstCell]) grads[kFirstCell] = dcell;
  const std::vector<Tensor> from{g, x, w_input, w_hidden, kept.first_hidden.get(), kept.first_cell.get()};
  for (Tensor& result : grads) result = detail::once("lstm", result, from);
  return grads;
}

}  // namespace

LstmResult lstm(const Tensor& x, const LstmWeights& weights, const Tensor& hidden, const Tensor& cell, bool reverse) {
  check_lstm(x, weights, hidden, cell);
  const std::int64_t batch = x.shape()[0], steps = x.shape()[1], h = weights.hidden.shape()[1];
  const Shape state{batch, h};
  Run run(x);
  Tensor bias = zeros({4 * h}, x.dtype(), x.device());
  for (const Tensor* part : {&weights.input_bias, &weights.hidden_bias})
    if (part->defined()) run->binary(run.context, kernels::BinaryFunction::add, bias.view(), bias.view(), part->view());

  // The input's share of all gates at once; each step adds the hidden state's.
  Tensor gates = empty({steps, batch, 4 * h}, x.dtype(), x.device());
  if (gates.count() > 0) multiply(rows_of(gates), rows_of(time_major(x)), transposed(weights.input), 1.0, 0.0, bias);
  Tensor cells = empty({steps, batch, h}, x.dtype(), x.device()), tanh_cells = empty_like(cells);
  Tensor packed = empty({steps + 1, batch, h}, x.dtype(), x.device());  // hidden states in the order of time, then the last cell
  Tensor last_hidden = dense_or_zeros(hidden, state, x), last_cell = dense_or_zeros(cell, state, x);
  for (std::int64_t i = 0; i < steps && gates.count() > 0; ++i) {
    const std::int64_t t = reverse ? steps - 1 - i : i;
    multiply(step(gates, t), last_hidden, transposed(weights.hidden), 1.0, 1.0);
    run->lstm_cell_forward(run.context, step(packed, t).view(), step(cells, t).view(), step(tanh_cells, t).view(), step(gates, t).view(), last_cell.view());
    last_hidden = step(packed, t);
    last_cell = step(cells, t);
  }
  run->copy(run.context, step(packed, steps).view(), last_cell.view());
  last_hidden = Tensor();

  Kept kept{needs_grad(weights.input) ? saved(x) : Saved(), saved(weights.input), saved(weights.hidden), saved(hidden), saved(cell), saved(gates), saved(cells), saved(tanh_cells), reverse};
  const Tensor all = record("lstm", packed)
                         .wrt({x, weights.input, weights.hidden, weights.input_bias, weights.hidden_bias, hidden, cell},
                              [kept = std::move(kept)](const Tensor& g, const Tensor& out, Needed needed) { return backward_through_time(g, out, needed, kept); });
  return {transpose(slice(all, 0, 0, steps), 0, 1), select(all, 0, reverse ? 0 : steps - 1), select(all, 0, steps)};
}

}  // namespace cambium
