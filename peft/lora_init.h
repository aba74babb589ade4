// Initial values of LoRA's factors.
#pragma once

#include "autograd/random.h"
#include "peft/config.h"
#include "tensor/tensor.h"

namespace cambium {

struct LoraFactors {
  Tensor a, b;  ///< (r, in), (out, r)
  Tensor bias;  ///< (out), of B, if asked for
  Tensor base;  ///< what the base weight becomes; undefined: it stays
};

/// Values that do not depend on the base weight. kaiming: A uniform in ±1/sqrt(in), B zero; uniform: both uniform, B in ±1/sqrt(r); gaussian: A normal with deviation 1/r, B zero;
/// orthogonal: B A = 0 with both not zero (an even r). Embeddings: A zero and B standard normal; uniform: both standard normal.
LoraFactors initial_factors(const LoraInit& init, std::int64_t r, std::int64_t in, std::int64_t out, bool is_embedding, bool with_bias, DType dtype, Device device, RandomKey key);

/// pissa: the r largest singular triples of W (out, in), A = sqrt(S/s) Vᵀ and B = U sqrt(S/s), by the exact SVD or by power iterations (Halko et al. 2011);
/// olora: the first r rows of R and columns of Q. `base` is W - s B A in W's own layout and dtype. Computed in float32. DTypeError, ConfigError when r is larger than W allows.
LoraFactors principal_factors(const Tensor& weight, bool transposed, const LoraInit& init, std::int64_t r, double scaling, RandomKey key);

}  // namespace cambium
