// Activation functions by the names that configurations use.
#pragma once

#include <string>
#include <string_view>

#include "autograd/ops.h"

namespace cambium {

/// "silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "tanh", "sigmoid", "quick_gelu" as transformers means them; ConfigError listing
/// these for another name.
UnaryFunction activation_function(const std::string& name);
Tensor apply_activation(UnaryFunction function, const Tensor& x);

}  // namespace cambium
