// dropout: a mask from a key, made again in the backward pass instead of kept.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

Tensor dropout(const Tensor& x, double p, RandomKey key) {
  detail::check_float("dropout", "the input", x);
  check<ConfigError>(p >= 0.0 && p < 1.0, "dropout: the probability must be at least 0 and below 1, found ", p);
  if (p == 0.0) return x;
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  const Tensor from = detail::dense(x);
  detail::Run run(x);
  run->dropout(run.context, out.view(), from.view(), p, key.seed, key.offset);
  return record("dropout", out).wrt(x, [p, key](const Tensor& g) { return dropout(g, p, key); });
}

}  // namespace cambium
