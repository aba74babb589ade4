// Dropout.
#include "nn/dropout.h"

namespace cambium {

Dropout::Dropout(double p) : p_(p) { check<ConfigError>(p >= 0.0 && p <= 1.0, "Dropout: p is a probability, found ", p); }

Tensor Dropout::forward(const Tensor& x, const ForwardContext& context) const {
  if (!context.training || p_ == 0.0) return x;
  return dropout(x, p_, context.key.fold(path()));
}

}  // namespace cambium
