// The backward pass: grad() is the primitive, backward() accumulates into leaves.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace cambium {

struct BackwardOptions {
  bool create_graph = false;  ///< record the backward pass, for derivatives of derivatives
  bool retain_graph = false;  ///< keep what ops saved, so that the same graph can be used again; implied by create_graph
};

/// Gradients of sum_i <outputs[i], grad_outputs[i]> with respect to `inputs` (leaves or results of ops). `grad_outputs` may be empty when every
/// output has one element: ones. An input the outputs do not depend on gives an undefined tensor. Throws StateError for outputs without a graph or
/// with a freed one, ShapeError for gradients that do not fit.
std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs, std::span<const Tensor> grad_outputs = {}, const BackwardOptions& = {});
Tensor grad(const Tensor& output, const Tensor& input, const BackwardOptions& options = {});

/// Adds the gradient of a scalar (or of <output, grad_output>) to `.grad()` of every leaf that requires one.
void backward(const Tensor& output, const Tensor& grad_output = {}, const BackwardOptions& = {});

/// Runs `function(inputs)` without keeping anything but the inputs, and runs it again in the backward pass. `parameters` are the leaves that function
/// uses besides: below a frozen embedding no input needs a gradient, and without their names the adapters' gradients would be lost.
/// The source: Chen et al. 2016, arXiv 1604.06174.
Tensor checkpoint(const std::function<Tensor(std::span<const Tensor>)>& function, std::span<const Tensor> inputs, std::span<const Tensor> parameters);

}  // namespace cambium
