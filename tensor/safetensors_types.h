// The element types of the safetensors format in the order of the reference library, which is also its order of tensors in a file.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/dtype.h"

namespace cambium {

struct SafetensorsType {
  std::string_view name;
  std::uint8_t bits;
  std::optional<DType> dtype;
};

inline constexpr std::array<SafetensorsType, 20> kSafetensorsTypes{{
    {"BOOL", 8, DType::boolean}, {"F4", 4, {}}, {"F6_E2M3", 6, {}}, {"F6_E3M2", 6, {}}, {"U8", 8, DType::u8}, {"I8", 8, DType::i8},
    {"F8_E5M2", 8, {}}, {"F8_E4M3", 8, {}}, {"F8_E8M0", 8, {}}, {"I16", 16, {}}, {"U16", 16, {}}, {"F16", 16, DType::f16},
    {"BF16", 16, DType::bf16}, {"I32", 32, DType::i32}, {"U32", 32, {}}, {"F32", 32, DType::f32}, {"C64", 64, {}}, {"F64", 64, DType::f64},
    {"I64", 64, DType::i64}, {"U64", 64, {}},
}};

constexpr std::uint8_t safetensors_type_of(DType dtype) {
  for (std::uint8_t i = 0; i < kSafetensorsTypes.size(); ++i) {
    if (kSafetensorsTypes[i].dtype == dtype) return i;
  }
  return 0;
}

}  // namespace cambium
