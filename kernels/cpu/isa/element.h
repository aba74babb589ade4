// Element types that the vector kernels read and write; all of them compute in float.
#pragma once

#include <stdint.h>

namespace cambium::kernels::cpu {

enum class Element : uint8_t { f32, bf16, f16 };

}  // namespace cambium::kernels::cpu
