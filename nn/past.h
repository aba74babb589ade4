// Past: keys and values that stand before the tokens of every row.
#pragma once

#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace cambium {

/// What a prefix learns, or what a prompt became in each layer of a causal model: one copy for all rows of a batch and all sequences of a packed row, with
/// gradients. A KvCache is another thing: memory for generation, written in place.
struct Past {
  struct Layer {
    Tensor keys, values;  ///< (P, G, D), as they enter attention: after norms and rotation
  };
  std::vector<Layer> layers;

  std::int64_t length() const { return layers.empty() ? 0 : layers.front().keys.size(0); }
};

}  // namespace cambium
