// One layer with gradient checkpointing or without. Internal: not installed.
#pragma once

#include "nn/module.h"

namespace cambium {

/// f(x, besides), where f runs `layer`. With `on`, only these are kept and f runs again in the backward pass: it has to own what else it reads. `besides` are tensors
/// made before the layers (biases, a past, an encoder's output): f reads what it is given, so that what they were made from takes no part in the layer's gradients.
template <class F>
Tensor checkpointed(bool on, const Module& layer, const Tensor& x, const std::vector<Tensor>& besides, F f) {
  if (!on || !grad_enabled()) return f(x, std::span<const Tensor>(besides));
  std::vector<Tensor> inputs{x}, parameters;
  inputs.insert(inputs.end(), besides.begin(), besides.end());
  for (const auto& [name, slot] : layer.named_parameters())
    if (slot->tensor.requires_grad()) parameters.push_back(slot->tensor);
  return checkpoint([f](std::span<const Tensor> in) { return f(in[0], in.subspan(1)); }, inputs, parameters);
}

}  // namespace cambium
