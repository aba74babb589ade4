// Frequencies of rotary positions, with the scalings of configurations. Internal: not installed.
#pragma once

#include "nn/models/config_reader.h"
#include "tensor/tensor.h"

namespace cambium {

/// f32 (head_dim / 2): theta^(-2i / head_dim), scaled as `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (transformers 4) say.
/// Types: default, linear (positions divided by `factor`), llama3 (long waves divided, a smooth passage between; Llama 3.1's reference code), and "factors":
/// `frequency_factors`, a list of divisors, as GGUF files store theirs. ConfigError naming any other.
Tensor rope_frequencies(const ConfigReader& config, std::int64_t head_dim);

}  // namespace cambium
