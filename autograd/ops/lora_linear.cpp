// lora_linear: base product and low-rank updates as one op, one output, one kept input.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::alias;
using detail::as_rows;
using detail::multiply;
using detail::reshaped;
using detail::Run;
using detail::transposed;

void check_lora(const Tensor& x, const Tensor& weight, const Tensor& bias, std::span<const LoraTerm> terms, bool is_transposed) {
  detail::check_float("lora_linear", "the input", x);
  detail::check_alike("lora_linear", "the input", x, "the weight", weight);
  check<ShapeError>(weight.rank() == 2, "lora_linear: the weight must be a matrix, found shape ", weight.shape());
  const std::int64_t k = weight.shape()[is_transposed ? 0 : 1], n = weight.shape()[is_transposed ? 1 : 0];
  check<ShapeError>(x.rank() >= 1 && x.shape()[-1] == k, "lora_linear: inner sizes differ: input ", x.shape(), ", weight ", weight.shape(),
                    is_transposed ? " stored (in, out)" : " stored (out, in)");
  detail::check_vector("lora_linear", "the bias", bias, n, x);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const LoraTerm& term = terms[i];
    detail::check_alike("lora_linear", "A", term.a, "B", term.b);
    check<DTypeError>(term.a.dtype() == x.dtype() || (term.a.dtype() == DType::f32 && item_size(x.dtype()) == 2), "lora_linear: adapter ", i, " is ", term.a.dtype(),
                      " beside a base of ", x.dtype(), ": it must be of the base's type, or float32 beside a 16-bit base");
    check<DeviceError>(term.a.device() == x.device(), "lora_linear: adapter ", i, " is on ", term.a.device(), ", the input on ", x.device());
    check<ShapeError>(term.a.rank() == 2 && term.b.rank() == 2 && term.a.shape()[1] == k && term.b.shape()[0] == n && term.a.shape()[0] == term.b.shape()[1],
                      "lora_linear: adapter ", i, ": expected A (r, ", k, ") and B (", n, ", r), found A ", term.a.shape(), ", B ", term.b.shape());
    check<ConfigError>(term.dropout_p >= 0.0 && term.dropout_p < 1.0, "lora_linear: adapter ", i, ": dropout must be at least 0 and below 1, found ", term.dropout_p);
  }
}

struct KeptTerm {
  Saved a, b, hidden;
  double scaling, dropout_p;
  std::uint64_t seed, offset;
};

// x (R, K) as the adapter sees it; the mask follows from the key.
Tensor dropped(const Tensor& rows, double p, std::uint64_t seed, std::uint64_t offset) {
  if (p == 0.0) return rows;
  const Tensor from = detail::dense(rows);
  Tensor out = empty(rows.shape(), rows.dtype(), rows.device());
  Run run(rows);
  run->dropout(run.context, out.view(), from.view(), p, seed, offset);
  return out;
}

// The type in which base and updates are added up: float32 when any adapter is wider than a 16-bit base.
DType sum_type(DType base, DType adapter) { return item_size(adapter) > item_size(base) ? adapter : base; }

Tensor matrix(std::int64_t rows, std::int64_t columns, DType dtype, const Tensor& like) { return empty({rows, columns}, dtype, like.device()); }

}  // namespace

Tensor lora_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, std::span<const LoraTerm> terms, bool is_transposed) {
  check_lora(x, weight, bias, terms, is_transposed);
  const std::int64_t n = weight.shape()[is_transposed ? 1 : 0];
  const Tensor rows = as_rows(x);
  const std::int64_t r = rows.shape()[0];
  DType sums = x.dtype();
  for (const LoraTerm& term : terms) sums = sum_type(sums, term.a.dtype());

  Tensor sum = matrix(r, n, sums, x);
  multiply(sum, rows, is_transposed ? weight : transposed(weight), 1.0, 0.0, bias);
  std::vector<KeptTerm> kept;
  std::vector<Tensor> inputs{x, weight, bias};
  bool any_a = false;
  for (const LoraTerm& term : terms) {
    Tensor hidden = matrix(r, term.a.shape()[0], term.a.dtype(), x);
    multiply(hidden, dropped(rows, term.dropout_p, term.seed, term.offset), transposed(term.a));
    multiply(sum, hidden, transposed(term.b), term.scaling, 1.0);
    kept.push_back({saved(term.a), saved(term.b), needs_grad(term.b) ? saved(hidden) : Saved(), term.scaling, term.dropout_p, term.seed, term.offset});
    inputs.push_back(term.a);
    inputs.push_back(term.b);
    any_a = any_a || needs_grad(term.a);
  }
  Tensor out = reshaped(detail::dense_as(sum, x.dtype()), detail::with_last(x.shape(), n));
  sum = Tensor();  // the record wants a result that nothing else refers to
  return record("lora_linear", out)
      .wrt(inputs, [x = any_a || needs_grad(weight) ? saved(x) : Saved(), shape = x.shape(), weight = saved(weight), kept, sums, is_transposed](const Tensor& g, Needed needed) {
        const Tensor upstream = as_rows(g), input = x.get().defined() ? as_rows(x.get()) : Tensor();
        const Tensor& w = weight.get();
        const std::int64_t count = upstream.shape()[0], features = shape[-1], width = upstream.shape()[1];
        std::vector<Tensor> grads(3 + 2 * kept.size());
        Tensor dx;
        if (needed[0]) {  // dX = G W + sum of s (G B) A, masked as the input was
          dx = matrix(count, features, sums, g);
          multiply(dx, upstream, is_transposed ? transposed(w) : w);
        }
        if (needed[1]) {
          grads[1] = empty(w.shape(), w.dtype(), w.device());
          if (is_transposed) multiply(grads[1], transposed(input), upstream);
          else multiply(grads[1], transposed(upstream), input);
        }
        if (needed[2]) {
          NoGrad no_grad;
          grads[2] = cambium::sum(upstream, {0});
        }
        for (std::size_t i = 0; i < kept.size(); ++i) {
          const KeptTerm& term = kept[i];
          const Tensor &a = term.a.get(), &b = term.b.get();
          const std::int64_t rank = a.shape()[0];
          if (needed[4 + 2 * i]) {  // dB = s Gᵀ H
            grads[4 + 2 * i] = matrix(width, rank, b.dtype(), g);
            multiply(grads[4 + 2 * i], transposed(upstream), term.hidden.get(), term.scaling);
          }
          if (!needed[0] && !needed[3 + 2 * i]) continue;
          Tensor through = matrix(count, rank, b.dtype(), g);
          multiply(through, upstream, b, term.scaling);
          if (needed[3 + 2 * i]) {  // dA = s (G B)ᵀ dropout(X)
            grads[3 + 2 * i] = matrix(rank, features, a.dtype(), g);
            multiply(grads[3 + 2 * i], transposed(through), dropped(input, term.dropout_p, term.seed, term.offset));
          }
          if (!needed[0]) continue;
          if (term.dropout_p == 0.0) {
            multiply(dx, through, a, 1.0, 1.0);
          } else {
            Tensor part = matrix(count, features, sums, g);
            multiply(part, through, a);
            part = dropped(part, term.dropout_p, term.seed, term.offset);
            Run run(part);
            run->binary(run.context, kernels::BinaryFunction::add, dx.view(), dx.view(), part.view());
          }
        }
        if (dx.defined()) grads[0] = reshaped(detail::dense_as(dx, g.dtype()), shape);
        std::vector<Tensor> from{g, x.get(), w};
        for (const KeptTerm& term : kept) {
          from.push_back(term.a.get());
          from.push_back(term.b.get());
        }
        for (Tensor& result : grads) result = detail::once("lora_linear", result, from);
        return grads;
      });
}

}  // namespace cambium
