// matmul: products of matrices, batches of matrices and vectors, read by strides.
#include "autograd/ops.h"
#include "autograd/ops/helpers.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::alias;
using detail::Run;
using detail::sum_to;

Shape batch_of(const Shape& shape) { return Shape(std::span(shape.begin(), static_cast<std::size_t>(shape.rank() - 2))); }

Layout expand(const Tensor& x, const Shape& batch) {
  std::vector<std::int64_t> sizes = batch.to_vector();
  sizes.push_back(x.shape()[-2]);
  sizes.push_back(x.shape()[-1]);
  return x.layout().broadcast_to(Shape(sizes));
}

// One gemm call runs over one batch dimension; those before it are walked here.
void multiply_batches(const Tensor& c, const Tensor& a, const Tensor& b) {
  if (c.count() == 0) return;
  if (c.rank() > 3) {
    for (std::int64_t i = 0; i < c.shape()[0]; ++i)
      multiply_batches(alias(c, c.layout().select(0, i)), alias(a, a.layout().select(0, i)), alias(b, b.layout().select(0, i)));
    return;
  }
  Run run(c);
  run->gemm(run.context, c.view(), a.view(), b.view(), {});
}

// Joins batch dimensions that lie behind each other in all three operands.
void join_batches(Layout& c, Layout& a, Layout& b) {
  for (int i = c.shape.rank() - 4; i >= 0; --i) {
    const auto joins = [i](const Layout& l) {
      const auto at = static_cast<std::size_t>(i);
      return l.shape[i] == 1 || l.shape[i + 1] == 1 || l.strides[at] == l.strides[at + 1] * l.shape[i + 1];
    };
    if (!joins(c) || !joins(a) || !joins(b)) continue;
    for (Layout* l : {&c, &a, &b}) {
      const int drop = l->shape[i + 1] == 1 ? i + 1 : i;
      const std::int64_t count = l->shape[i] * l->shape[i + 1];
      const std::int64_t kept = l->strides[static_cast<std::size_t>(drop == i ? i + 1 : i)];
      *l = l->select(drop, 0);
      l->shape.set(i, count);
      l->strides[static_cast<std::size_t>(i)] = kept;
    }
  }
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  detail::check_float("matmul", "the left operand", a);
  detail::check_alike("matmul", "the left operand", a, "the right one", b);
  check<ShapeError>(a.rank() > 0 && b.rank() > 0, "matmul: operands need at least one dimension, found ", a.shape(), " x ", b.shape());
  if (a.rank() == 1) return squeeze(matmul(unsqueeze(a, 0), b), b.rank() == 1 ? 0 : -2);
  if (b.rank() == 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  check<ShapeError>(a.shape()[-1] == b.shape()[-2], "matmul: inner sizes differ: ", a.shape(), " x ", b.shape());

  const Shape batch = broadcast_shapes(batch_of(a.shape()), batch_of(b.shape()), "matmul");
  std::vector<std::int64_t> sizes = batch.to_vector();
  sizes.push_back(a.shape()[-2]);
  sizes.push_back(b.shape()[-1]);
  Tensor out = empty(Shape(sizes), a.dtype(), a.device());
  const std::int64_t k = a.shape()[-1];
  const auto rows = a.layout().reshape({detail::row_count(a.shape()), k});
  if (out.count() > 0) {
    if (b.rank() == 2 && rows) {
      detail::multiply(detail::as_rows(out), alias(a, *rows), b);
    } else {
      Layout lc = out.layout(), la = expand(a, batch), lb = expand(b, batch);
      if (batch.rank() == 0) {
        lc = lc.unsqueeze(0);
        la = la.unsqueeze(0);
        lb = lb.unsqueeze(0);
      }
      join_batches(lc, la, lb);
      multiply_batches(alias(out, lc), alias(a, la), alias(b, lb));
    }
  }
  return record("matmul", out)
      .wrt(a, [b = saved(b), shape = a.shape()](const Tensor& g) { return sum_to(matmul(g, transpose(b.get())), shape); })  // dA = G Bᵀ
      .wrt(b, [a = saved(a), shape = b.shape()](const Tensor& g) {                                                          // dB = Aᵀ G
        const Tensor& x = a.get();
        // A matrix shared by a batch: one product over all rows instead of a sum over the batch.
        if (shape.rank() == 2 && x.rank() > 2) return matmul(transpose(reshape(x, {-1, shape[0]})), reshape(g, {-1, shape[1]}));
        return sum_to(matmul(transpose(x), g), shape);
      });
}

Tensor outer(const Tensor& a, const Tensor& b) {
  detail::check_alike("outer", "the left operand", a, "the right one", b);
  check<ShapeError>(a.rank() == 1 && b.rank() == 1, "outer: expected two vectors, found ", a.shape(), " and ", b.shape());
  return mul(unsqueeze(a, 1), unsqueeze(b, 0));
}

}  // namespace cambium
