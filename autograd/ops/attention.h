// Checks and masks that both forms of attention share. Internal.
#pragma once

#include "autograd/ops.h"

namespace cambium::detail {

/// Throws for shapes and dtypes that do not fit; op names the caller.
void check_attention(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask);
double attention_scale(const Tensor& q, const AttentionMask& mask);

}  // namespace cambium::detail
