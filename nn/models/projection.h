// The linear layers of models.
#pragma once

#include <memory>

#include "nn/linear.h"

namespace cambium {

/// A layer from `in` to `out` features that has sizes, but no numbers yet.
inline std::shared_ptr<Layer> projection(std::int64_t in, std::int64_t out, bool with_bias, DType dtype) {
  return std::make_shared<Linear>(meta({out, in}, dtype), with_bias ? meta({out}, dtype) : Tensor());
}

}  // namespace cambium
