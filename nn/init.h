// Starting values of parameters: PyTorch's defaults, and those of the pretrained families.
#pragma once

#include "autograd/random.h"
#include "tensor/tensor.h"

namespace cambium {

class Module;

/// Uniform in ±sqrt(6 / ((1 + a²) fan_in)), fan_in being the product of all sizes but the first. With a = sqrt(5), PyTorch's default for linear layers,
/// the bound is 1 / sqrt(fan_in). He et al. 2015, arXiv 1502.01852.
Tensor kaiming_uniform(const Shape& shape, RandomKey key, double a = 2.23606797749979, DType dtype = DType::f32);

/// A leaf with the same values in memory of its own and the same need of a gradient: what Module::copy() gives the new module. Undefined stays undefined.
Tensor copied(const Tensor& parameter);
/// The tensor itself, from now on requiring a gradient.
Tensor trained(Tensor tensor);

/// Gives every parameter of the tree a value, as the families of transformers start: weights of LinearLike and Embedding normal with `deviation` (a padding row: 0),
/// biases 0, norms 1. Each parameter has its own key, folded from its path, and requires a gradient afterwards.
void initialize_normal(Module& root, RandomKey key, double deviation, DType dtype = DType::f32);

}  // namespace cambium
