// What the forms of attention share, attention on one packed projection, and attention behind a past that all rows share.
#pragma once

#include "autograd/ops.h"
#include "autograd/record.h"
#include "kernels/kernels.h"

namespace cambium {

/// attention() of the first, second and last third of the heads of qkv (B, T, 3 H, D) as q, k and v; out (B, T, H, D). Its gradient is one tensor, written once:
/// slices would each fill a tensor as large as qkv with zeros.
Tensor attention_packed(const Tensor& qkv, const AttentionMask& mask);

/// attention() with past keys and values (P, G', D), H a multiple of G', before those of every row and of every packed sequence: one copy for all, whose gradient
/// is the sum over rows. `mask` speaks of k only, but `window` counts the past as positions and `bias` broadcasts to (B, H, Tq, P + Tk). The two groups of keys
/// are attended to apart and merged by their log-sum-exps; with a window, a bias or dropout the past is repeated instead.
Tensor attention_with_past(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& past_k, const Tensor& past_v, const AttentionMask& mask);

}  // namespace cambium

namespace cambium::detail {

/// Throws for shapes and dtypes that do not fit; op names the caller.
void check_attention(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask);
double attention_scale(const Tensor& q, const AttentionMask& mask);
/// The kernels want the entries of one head next to each other: x or a copy, without a record.
Tensor head_dense(const Tensor& x);

/// A mask as the kernels take it, kept for the backward pass.
struct KeptMask {
  Saved key_mask, bias, starts;
  kernels::AttentionOptions options;
  kernels::AttentionOptions fill() const;
};
KeptMask keep_mask(const Tensor& q, const Tensor& k, const AttentionMask& mask);

}  // namespace cambium::detail
