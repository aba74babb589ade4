// Attention without tiles or vectors: for float64, and the yardstick of the tests.
#pragma once

#include "kernels/kernels.h"

namespace cambium::kernels::cpu {

void attention_forward_plain(Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);
void attention_backward_plain(Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);

}  // namespace cambium::kernels::cpu
