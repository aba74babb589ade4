// One layer with gradient checkpointing or without. Internal: not installed.
#pragma once

#include "nn/module.h"

namespace cambium {

/// f(x), where f runs `layer`. With `on`, only x is kept and f runs again in the backward pass: it has to own what it reads. `besides`: tensors with a gradient that f
/// reads and that are no parameters of the layer.
template <class F>
Tensor checkpointed(bool on, const Module& layer, const Tensor& x, std::span<const Tensor> besides, F f) {
  if (!on || !grad_enabled()) return f(x);
  std::vector<Tensor> parameters(besides.begin(), besides.end());
  for (const auto& [name, slot] : layer.named_parameters())
    if (slot->tensor.requires_grad()) parameters.push_back(slot->tensor);
  return checkpoint([f](std::span<const Tensor> inputs) { return f(inputs[0]); }, std::span(&x, 1), parameters);
}

}  // namespace cambium
