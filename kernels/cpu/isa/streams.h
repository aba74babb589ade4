// Entries of the table of an instruction set: passes over long arrays (optimizer steps, dropout) and rotary embedding.
#pragma once

#include "kernels/cpu/isa/element.h"

namespace cambium::kernels::cpu {

struct AdamWFactors { float decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step, root_scale, epsilon; };
struct SgdFactors { float learning_rate, momentum, one_minus_dampening, weight_decay; bool nesterov, first_step; };

struct StreamTable {
  /// p *= decay; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p -= step m / (sqrt(v) root_scale + epsilon).
  void (*adamw)(Element parameter_type, Element gradient_type, void* parameter, const void* gradient, float* m, float* v, int64_t n, const AdamWFactors&);
  void (*sgd)(Element parameter_type, Element gradient_type, void* parameter, const void* gradient, float* buffer, int64_t n, const SgdFactors&);
  /// Elements [4 block, 4 block + n) of a tensor; x and out point at the first of them.
  void (*dropout)(Element, void* out, const void* x, int64_t block, int64_t n, float p, float scale, uint64_t seed, uint64_t offset);
  /// cosines[j], sines[j] = scale cos, scale sin of position * frequencies[j], computed in double; |angles| below 2^20.
  void (*sincos)(float* cosines, float* sines, const float* frequencies, int64_t pairs, double position, double scale);
  /// Rotates pairs (j, j + pairs) of one head; or pairs (2j, 2j+1) if interleaved, with cosines (c0, c0, c1, c1, ...) and sines (-s0, s0, -s1, s1, ...).
  /// out may be x.
  void (*rotate)(Element, void* out, const void* x, const float* cosines, const float* sines, int64_t pairs, bool interleaved);
};

}  // namespace cambium::kernels::cpu
