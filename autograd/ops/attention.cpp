// attention: the fused form, which keeps the output and one log-sum-exp a query instead of probabilities.
#include "autograd/ops/attention.h"

#include <cmath>

#include "autograd/ops/support.h"

namespace cambium {

using detail::head_dense;
using detail::keep_mask;
using detail::KeptMask;
using detail::Run;

void detail::check_attention(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  check_float(op, "q", q);
  check_alike(op, "q", q, "k", k);
  check_alike(op, "q", q, "v", v);
  check<ShapeError>(q.rank() == 4 && k.rank() == 4, op, ": q and k must be (batch, time, heads, head size), found ", q.shape(), " and ", k.shape());
  const std::int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2], keys = k.shape()[1], groups = k.shape()[2];
  check<ShapeError>(k.shape() == v.shape(), op, ": k and v must have one shape, found ", k.shape(), " and ", v.shape());
  check<ShapeError>(k.shape()[0] == batch && k.shape()[3] == q.shape()[3], op, ": batch and head size of q ", q.shape(), " and k ", k.shape(), " differ");
  check<ShapeError>(groups > 0 && heads % groups == 0, op, ": ", heads, " query heads are no multiple of ", groups, " key heads");
  check<ConfigError>(mask.window >= 0, op, ": window must not be negative, found ", mask.window);
  const auto check_place = [&](std::string_view name, const Tensor& x) {
    if (!x.defined()) return;
    check<DeviceError>(x.device() == q.device(), op, ": q is on ", q.device(), ", ", name, " on ", x.device(), ": use to_device");
  };
  check_place("key_mask", mask.key_mask);
  check_place("starts", mask.starts);
  if (mask.key_mask.defined()) {
    check<DTypeError>(mask.key_mask.dtype() == DType::boolean, op, ": key_mask must be bool, found ", mask.key_mask.dtype());
    check<ShapeError>(mask.key_mask.shape() == Shape{batch, keys}, op, ": key_mask must have shape [", batch, ", ", keys, "], found ", mask.key_mask.shape());
  }
  if (mask.bias.defined()) {
    check_alike(op, "q", q, "bias", mask.bias);
    const Shape scores{batch, heads, queries, keys};
    check<ShapeError>(mask.bias.rank() <= 4 && broadcast_shapes(mask.bias.shape(), scores, op) == scores, op, ": bias ", mask.bias.shape(),
                      " does not broadcast to ", scores);
  }
  if (mask.starts.defined()) {
    check<DTypeError>(mask.starts.dtype() == DType::i32, op, ": starts must be int32, found ", mask.starts.dtype());
    check<ShapeError>(mask.starts.rank() == 1 && mask.starts.count() >= 1, op, ": starts must be a vector, found shape ", mask.starts.shape());
    check<ShapeError>(batch == 1 && queries == keys, op, ": packed sequences need a batch of one with as many keys as queries, found q ", q.shape(), ", k ", k.shape());
    const std::vector<std::int64_t> starts = mask.starts.to_vector<std::int64_t>();
    bool ascending = starts.front() == 0 && starts.back() == queries;
    for (std::size_t i = 1; i < starts.size(); ++i) ascending = ascending && starts[i - 1] <= starts[i];
    check<ShapeError>(ascending, op, ": starts must ascend from 0 to ", queries, ", found ", starts);
  }
}

double detail::attention_scale(const Tensor& q, const AttentionMask& mask) { return mask.scale ? *mask.scale : 1.0 / std::sqrt(static_cast<double>(q.shape()[3])); }

Tensor detail::head_dense(const Tensor& x) { return x.shape()[3] == 1 || x.layout().strides[3] == 1 ? x : dense(x); }

kernels::AttentionOptions detail::KeptMask::fill() const {
  kernels::AttentionOptions filled = options;
  filled.key_mask = optional_view(key_mask.get());
  filled.bias = optional_view(bias.get());
  filled.starts = optional_view(starts.get());
  return filled;
}

detail::KeptMask detail::keep_mask(const Tensor& q, const Tensor& k, const AttentionMask& mask) {
  KeptMask kept;
  kept.options.scale = attention_scale(q, mask);
  kept.options.causal = mask.causal;
  kept.options.window = mask.window;
  kept.key_mask = saved(mask.key_mask.defined() ? dense(mask.key_mask) : Tensor());
  const Shape scores{q.shape()[0], q.shape()[2], q.shape()[1], k.shape()[1]};
  kept.bias = saved(mask.bias.defined() ? alias(mask.bias, mask.bias.layout().broadcast_to(scores)) : Tensor());
  kept.starts = saved(mask.starts.defined() ? dense(mask.starts) : Tensor());
  return kept;
}

namespace {

// Heads first, first + 1, … of x (B, T, H, D), without a record.
Tensor heads_of(const Tensor& x, std::int64_t first, std::int64_t count) { return detail::alias(x, x.layout().slice(2, first, first + count)); }

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  if (needs_grad(mask.bias) || mask.dropout_p > 0.0) return attention_composed(q, k, v, mask);
  detail::check_attention("attention", q, k, v, mask);
  const KeptMask kept = keep_mask(q, k, mask);
  Tensor out = empty(q.shape(), q.dtype(), q.device());
  Tensor lse = empty({q.shape()[0], q.shape()[2], q.shape()[1]}, detail::accumulator(q.dtype()), q.device());
  const Tensor query = head_dense(q), key = head_dense(k), value = head_dense(v);
  Run run(q);
  run->attention_forward(run.context, out.view(), lse.view(), query.view(), key.view(), value.view(), kept.fill());
  return record("attention", out)
      .wrt({q, k, v}, [q = saved(q), k = saved(k), v = saved(v), lse = saved(lse), kept](const Tensor& g, const Tensor& result, Needed) {
        const Tensor &from_q = q.get(), &from_k = k.get(), &from_v = v.get();
        const Tensor backward_query = head_dense(from_q), backward_key = head_dense(from_k), backward_value = head_dense(from_v), upstream = head_dense(g);
        Tensor dq = empty(from_q.shape(), from_q.dtype(), from_q.device()), dk = empty(from_k.shape(), from_k.dtype(), from_k.device()), dv = empty_like(dk);
        Run backward_run(from_q);
        backward_run->attention_backward(backward_run.context, dq.view(), dk.view(), dv.view(), upstream.view(), result.view(), lse.get().view(), backward_query.view(),
                                         backward_key.view(), backward_value.view(), kept.fill());
        const std::vector<Tensor> from{g, from_q, from_k, from_v};
        return std::vector<Tensor>{detail::once("attention", dq, from), detail::once("attention", dk, from), detail::once("attention", dv, from)};
      });
}

Tensor attention_packed(const Tensor& qkv, const AttentionMask& mask) {
  check<ShapeError>(qkv.defined() && qkv.rank() == 4 && qkv.shape()[2] % 3 == 0, "attention_packed: expected (batch, time, 3 heads, head size), found ",
                    qkv.defined() ? concat_text(qkv.shape()) : "none");
  const std::int64_t heads = qkv.shape()[2] / 3;
  if (needs_grad(mask.bias) || mask.dropout_p > 0.0)
    return attention_composed(slice(qkv, 2, 0, heads), slice(qkv, 2, heads, 2 * heads), slice(qkv, 2, 2 * heads), mask);
  const Tensor dense = head_dense(qkv), q = heads_of(dense, 0, heads), k = heads_of(dense, heads, heads), v = heads_of(dense, 2 * heads, heads);
  detail::check_attention("attention_packed", q, k, v, mask);
  const KeptMask kept = keep_mask(q, k, mask);
  Tensor out = empty(q.shape(), q.dtype(), q.device());
  Tensor lse = empty({q.shape()[0], heads, q.shape()[1]}, detail::accumulator(q.dtype()), q.device());
  Run run(q);
  run->attention_forward(run.context, out.view(), lse.view(), q.view(), k.view(), v.view(), kept.fill());
  return record("attention_packed", out).wrt(qkv, [qkv = saved(qkv), lse = saved(lse), kept, heads](const Tensor& g, const Tensor& result) {
    const Tensor &from = qkv.get(), all = head_dense(from), upstream = head_dense(g);
    Tensor gradient = empty(from.shape(), from.dtype(), from.device());
    const auto part = [&](const Tensor& x, std::int64_t i) { return heads_of(x, i * heads, heads); };
    Run backward_run(from);
    backward_run->attention_backward(backward_run.context, part(gradient, 0).view(), part(gradient, 1).view(), part(gradient, 2).view(), upstream.view(), result.view(),
                                     lse.get().view(), part(all, 0).view(), part(all, 1).view(), part(all, 2).view(), kept.fill());
    return detail::once("attention_packed", gradient, {g, from});
  });
}

}  // namespace cambium
