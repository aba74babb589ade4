// Clipping of gradients by their common norm.
#pragma once

#include <span>

#include "nn/module.h"

namespace cambium {

struct ClipOptions {
  double norm_type = 2.0;         ///< 1, 2 or infinity
  bool allow_not_finite = false;  ///< false: a norm that is NaN or infinite is a StateError naming the first bad parameter, and no gradient is changed
};

/// Scales all gradients by min(1, max_norm / (norm + 1e-6)) in place and returns their norm as one vector before that. Parameters without gradient are skipped.
/// max_norm must be positive; infinity measures without clipping. With allow_not_finite, a norm that is not finite leaves the gradients as they are.
double clip_grad_norm(std::span<const NamedParameter> parameters, double max_norm, const ClipOptions& options = {});
double clip_grad_norm(std::span<const Tensor> parameters, double max_norm, const ClipOptions& options = {});

}  // namespace cambium
