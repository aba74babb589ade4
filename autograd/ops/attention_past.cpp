// attention_with_past: keys that all rows share stay one copy; the two groups of keys are attended to apart and merged by their log-sum-exps.
#include "autograd/ops/attention.h"

#include "autograd/ops/support.h"

namespace cambium {

using detail::Run;

namespace {

void check_past(const Tensor& q, const Tensor& past_k, const Tensor& past_v) {
  const char* op = "attention_with_past";
  detail::check_alike(op, "q", q, "past_k", past_k);
  detail::check_alike(op, "q", q, "past_v", past_v);
  check<ShapeError>(q.rank() == 4 && past_k.rank() == 3 && past_k.shape() == past_v.shape(), op, ": expected q (batch, time, heads, head size) and past keys and values ",
                    "(length, heads, head size) of one shape, found ", q.shape(), ", ", past_k.shape(), " and ", past_v.shape());
  check<ShapeError>(past_k.size(2) == q.size(3) && past_k.size(1) > 0 && q.size(2) % past_k.size(1) == 0, op, ": past keys ", past_k.shape(), " do not go with queries ", q.shape(),
                    ": one head size, and query heads a multiple of past heads");
}

// (B, T, H, D) as one row of B T queries.
Tensor one_row(const Tensor& x) {
  const Shape shape{1, x.size(0) * x.size(1), x.size(2), x.size(3)};
  const std::optional<Layout> layout = x.layout().reshape(shape);
  return layout ? detail::alias(x, *layout) : detail::reshaped(detail::dense(x), shape);
}
Tensor one_row_of_keys(const Tensor& x) { return detail::head_dense(detail::alias(x, x.layout().unsqueeze(0))); }

// (B, H, T) from (1, H, B T) and back.
Tensor by_batch(const Tensor& lse, std::int64_t batch) {
  return permute(reshape(lse, {lse.size(1), batch, lse.size(2) / batch}), {1, 0, 2});
}
Tensor by_head(const Tensor& lse) { return contiguous(reshape(permute(lse, {1, 0, 2}), {1, lse.size(1), lse.size(0) * lse.size(2)})); }

struct Merged { Tensor out, lse; };

// Softmax over both groups from the softmax over each: out = sum of e^(lse_i - lse) out_i. What a query may not see has lse -inf and weight 0; the past is always seen.
Merged merge(const Tensor& past_out, const Tensor& past_lse, const Tensor& own_out, const Tensor& own_lse) {
  NoGrad no_grad;
  const Tensor difference = sub(own_lse, past_lse);
  const auto weighted = [&](const Tensor& out, const Tensor& weight) { return mul(to_dtype(out, weight.dtype()), unsqueeze(permute(weight, {0, 2, 1}), 3)); };
  return {to_dtype(add(weighted(past_out, sigmoid(neg(difference))), weighted(own_out, sigmoid(difference))), own_out.dtype()), contiguous(add(past_lse, softplus(difference)))};
}

Tensor attention_apart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& past_k, const Tensor& past_v, const AttentionMask& mask) {
  const std::int64_t batch = q.size(0), time = q.size(1), heads = q.size(2);
  const detail::KeptMask kept = detail::keep_mask(q, k, mask);
  kernels::AttentionOptions past_options;
  past_options.scale = kept.options.scale;
  const DType sums = detail::accumulator(q.dtype());
  const Tensor query = detail::head_dense(q), key = detail::head_dense(k), value = detail::head_dense(v), past_key = one_row_of_keys(past_k), past_value = one_row_of_keys(past_v);
  Tensor own_out = empty(q.shape(), q.dtype(), q.device()), past_out = empty(q.shape(), q.dtype(), q.device());
  Tensor own_lse = empty({batch, heads, time}, sums, q.device()), past_lse = empty({1, heads, batch * time}, sums, q.device());
  {
    Run run(q);
    run->attention_forward(run.context, own_out.view(), own_lse.view(), query.view(), key.view(), value.view(), kept.fill());
    const Tensor row_q = one_row(query);
    run->attention_forward(run.context, one_row(past_out).view(), past_lse.view(), row_q.view(), past_key.view(), past_value.view(), past_options);
  }
  const Merged merged = merge(past_out, by_batch(past_lse, batch), own_out, own_lse);
  // With the output and the log-sum-exp over all keys, the backward kernel gives the gradients of each group as if it saw the other one, too.
  return record("attention_with_past", merged.out)
      .wrt({q, k, v, past_k, past_v}, [q = saved(q), k = saved(k), v = saved(v), past_k = saved(past_k), past_v = saved(past_v), lse = saved(merged.lse), kept,
                                       past_options](const Tensor& g, const Tensor& out, Needed needed) {
        const Tensor from_q = detail::head_dense(q.get()), from_k = detail::head_dense(k.get()), from_v = detail::head_dense(v.get()), upstream = detail::head_dense(g);
        const auto gradient_of = [](const Saved& x, bool wanted) { return wanted ? empty(x.get().shape(), x.get().dtype(), x.get().device()) : Tensor(); };
        Tensor dq = gradient_of(q, needed[0]), dq_past = gradient_of(q, needed[0]), dk = gradient_of(k, needed[1]), dv = gradient_of(v, needed[2]),
               dpast_k = gradient_of(past_k, needed[3]), dpast_v = gradient_of(past_v, needed[4]);
        const auto row_view = [](const Tensor& x) { return x.defined() ? one_row(x).view() : kernels::Strided{}; };
        const auto keys_view = [](const Tensor& x) { return x.defined() ? one_row_of_keys(x).view() : kernels::Strided{}; };
        {
          NoGrad no_grad;
          Run backward_run(from_q);
          if (needed[0] || needed[1] || needed[2])
            backward_run->attention_backward(backward_run.context, detail::optional_view(dq), detail::optional_view(dk), detail::optional_view(dv), upstream.view(), out.view(),
                                             lse.get().view(), from_q.view(), from_k.view(), from_v.view(), kept.fill());
          if (needed[0] || needed[3] || needed[4]) {
            const Tensor row_g = one_row(upstream), row_out = one_row(out), row_lse = by_head(lse.get()), row_q = one_row(from_q), keys = one_row_of_keys(past_k.get()),
                         values = one_row_of_keys(past_v.get());
            backward_run->attention_backward(backward_run.context, row_view(dq_past), keys_view(dpast_k), keys_view(dpast_v), row_g.view(), row_out.view(), row_lse.view(),
                                             row_q.view(), keys.view(), values.view(), past_options);
          }
          if (needed[0]) dq = add(dq, dq_past);
        }
        const std::vector<Tensor> from{g, q.get(), k.get(), v.get(), past_k.get(), past_v.get()};
        std::vector<Tensor> gradients{dq, dk, dv, dpast_k, dpast_v};
        for (Tensor& gradient : gradients) gradient = detail::once("attention_with_past", gradient, from);
        return gradients;
      });
}

Tensor repeated(const Tensor& x, std::int64_t heads, int dim) { return x.size(dim) == heads ? x : repeat_interleave(x, heads / x.size(dim), dim); }

// The same by keys and values of P + T tokens in every row: for windows, biases and dropout of probabilities.
Tensor attention_joined(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& past_k, const Tensor& past_v, const AttentionMask& mask) {
  const std::int64_t batch = q.size(0), length = past_k.size(0), own = k.size(2), given = past_k.size(1), heads = own % given == 0 ? own : given % own == 0 ? given : q.size(2);
  const auto joined = [&](const Tensor& past, const Tensor& x) {
    return cat({broadcast_to(unsqueeze(repeated(past, heads, 1), 0), {batch, length, heads, q.size(3)}), repeated(x, heads, 2)}, 1);
  };
  AttentionMask all = mask;
  if (mask.key_mask.defined()) all.key_mask = cat({to_dtype(ones({batch, length}, DType::i64, q.device()), DType::boolean), mask.key_mask}, 1);
  return attention(q, joined(past_k, k), joined(past_v, v), all);
}

// Packed sequences have the past before each of them, which one row of keys cannot say: one after the other.
Tensor attention_by_sequence(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& past_k, const Tensor& past_v, const AttentionMask& mask) {
  const std::vector<std::int64_t> starts = mask.starts.to_vector<std::int64_t>();
  const std::int64_t length = past_k.size(0);
  std::vector<Tensor> parts;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t begin = starts[s], end = starts[s + 1];
    if (begin == end) continue;
    AttentionMask one = mask;
    one.starts = Tensor();
    one.dropout_key = mask.dropout_key.fold(static_cast<std::uint64_t>(s));
    if (mask.key_mask.defined()) one.key_mask = slice(mask.key_mask, 1, begin, end);
    if (mask.bias.defined() && mask.bias.rank() > 0) {
      if (mask.bias.size(-1) > 1) one.bias = cat({slice(mask.bias, -1, 0, length), slice(mask.bias, -1, length + begin, length + end)}, -1);
      if (mask.bias.rank() > 1 && mask.bias.size(-2) > 1) one.bias = slice(one.bias, -2, begin, end);
    }
    parts.push_back(attention_joined(slice(q, 1, begin, end), slice(k, 1, begin, end), slice(v, 1, begin, end), past_k, past_v, one));
  }
  return parts.size() == 1 ? parts.front() : cat(parts, 1);
}

}  // namespace

Tensor attention_with_past(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& past_k, const Tensor& past_v, const AttentionMask& mask) {
  check_past(q, past_k, past_v);
  AttentionMask own = mask;
  own.bias = Tensor();
  detail::check_attention("attention_with_past", q, k, v, own);
  if (past_k.size(0) == 0) return attention(q, k, v, mask);
  if (mask.bias.defined() || mask.window > 0 || mask.dropout_p > 0.0)
    return mask.starts.defined() ? attention_by_sequence(q, k, v, past_k, past_v, mask) : attention_joined(q, k, v, past_k, past_v, mask);
  return attention_apart(q, k, v, past_k, past_v, mask);
}

}  // namespace cambium
