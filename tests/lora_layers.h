// What tests of LoRA's kinds share: the layer of the golden vectors, configurations, values away from the start.
#pragma once

#include <doctest/doctest.h>

#include "nn/linear.h"
#include "peft/peft_model.h"
#include "tests/tiny_models.h"

namespace cambium::test {

using Floats = std::vector<float>;

inline Tensor matrix(const Floats& values, std::int64_t rows, std::int64_t columns) { return from_vector(values, {rows, columns}); }

inline void check_close(const Tensor& found, const Floats& expected, double tolerance = 1e-5) { CHECK(largest_difference(found.to_vector<float>(), expected) <= tolerance); }

inline std::shared_ptr<LoraLinear> layer_of(bool transposed, const LoraLayerOptions& options, bool with_bias = true, DType dtype = DType::f32) {
  const Tensor bias = with_bias ? to_dtype(from_vector(Floats{.5F, -.5F, 1.F}, {3}), dtype) : Tensor();
  std::shared_ptr<LinearLike> base;
  if (transposed) base = std::make_shared<Conv1D>(to_dtype(matrix({1, 3, 5, 2, 4, 6}, 2, 3), dtype), bias);
  else base = std::make_shared<Linear>(to_dtype(matrix({1, 2, 3, 4, 5, 6}, 3, 2), dtype), bias);
  auto layer = std::make_shared<LoraLinear>(base);
  layer->add_adapter("a", options, RandomKey{1, 0});
  layer->set_active({"a"});
  return layer;
}

inline void set_golden(LoraLinear& layer, const std::string& name = "a") {
  layer.lora_A->at(name).set(matrix({1, -1, 2, 0}, 2, 2));
  layer.lora_B->at(name).set(matrix({1, 0, 0, 1, 1, 1}, 3, 2));
}

inline LoraLayerOptions options_of(std::int64_t r, double alpha) {
  LoraLayerOptions options;
  options.r = r;
  options.alpha = alpha;
  return options;
}

inline LoraConfig config_of(ModuleSelection targets) {
  LoraConfig config;
  config.r = 4;
  config.target_modules = std::move(targets);
  config.init_lora_weights = false;
  return config;
}

/// All parameters of adapters away from their starts.
inline void randomize(PeftModel& peft, std::uint64_t seed) {
  for (const auto& [path, layer] : peft.lora().lora_layers())
    for (const std::string& name : layer->adapters())
      for (const auto& [key, slot] : layer->adapter_parameters(name)) {
        const bool trained = slot->tensor.requires_grad(), magnitude = key == "lora_magnitude_vector";
        slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{seed, 0}.fold(path).fold(name).fold(key), magnitude ? 0.5 : -0.3, magnitude ? 1.5 : 0.3, slot->tensor.dtype());
        slot->tensor.set_requires_grad(trained);
      }
}

}  // namespace cambium::test
