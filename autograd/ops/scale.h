// scale_features: what a layer's features are multiplied by, as IA3 does it.
#pragma once

#include "tensor/tensor.h"

namespace cambium {

/// x f over the last dimension: x (…, N), f (N), of x's type or float32 beside a 16-bit x; the result has x's type, rounded once. The gradient of f is made in one pass over x and
/// the upstream gradient, without their product in memory. ShapeError, DTypeError.
Tensor scale_features(const Tensor& x, const Tensor& f);

}  // namespace cambium
