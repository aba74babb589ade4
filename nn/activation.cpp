// Activation functions by the names that configurations use.
#include "nn/activation.h"

#include <utility>

namespace cambium {

namespace {

constexpr std::pair<std::string_view, UnaryFunction> kActivations[] = {
    {"silu", UnaryFunction::silu},          {"swish", UnaryFunction::silu},
    {"gelu", UnaryFunction::gelu_erf},      {"gelu_new", UnaryFunction::gelu_tanh},
    {"gelu_pytorch_tanh", UnaryFunction::gelu_tanh}, {"gelu_fast", UnaryFunction::gelu_tanh},
    {"relu", UnaryFunction::relu},          {"tanh", UnaryFunction::tanh},
    {"sigmoid", UnaryFunction::sigmoid},    {"quick_gelu", UnaryFunction::quick_gelu},
};

}  // namespace

UnaryFunction activation_function(const std::string& name) {
  std::string known;
  for (const auto& [text, function] : kActivations) {
    if (text == name) return function;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  fail<ConfigError>("activation '", name, "' is not supported: ", known, " are");
}

Tensor apply_activation(UnaryFunction function, const Tensor& x) {
  switch (function) {
    case UnaryFunction::silu: return silu(x);
    case UnaryFunction::gelu_erf: return gelu_erf(x);
    case UnaryFunction::gelu_tanh: return gelu_tanh(x);
    case UnaryFunction::relu: return relu(x);
    case UnaryFunction::tanh: return tanh(x);
    case UnaryFunction::sigmoid: return sigmoid(x);
    case UnaryFunction::quick_gelu: return quick_gelu(x);
    default: fail<ConfigError>("apply_activation: this function is no activation");
  }
}

}  // namespace cambium
