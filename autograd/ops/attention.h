// What the forms of attention share, and attention on one packed projection.
#pragma once

#include "autograd/ops.h"

namespace cambium {

/// attention() of the first, second and last third of the heads of qkv (B, T, 3 H, D) as q, k and v; out (B, T, H, D). Its gradient is one tensor, written once:
/// slices would each fill a tensor as large as qkv with zeros.
Tensor attention_packed(const Tensor& qkv, const AttentionMask& mask);

}  // namespace cambium

namespace cambium::detail {

/// Throws for shapes and dtypes that do not fit; op names the caller.
void check_attention(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask);
double attention_scale(const Tensor& q, const AttentionMask& mask);

}  // namespace cambium::detail
