// Element types of GGML tensors as they lie in GGUF files: number, name, elements and bytes of a block.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/dtype.h"

namespace cambium {

enum class GgmlType : std::uint32_t {
  f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q8_1 = 9, q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14, q8_k = 15,
  iq2_xxs = 16, iq2_xs = 17, iq3_xxs = 18, iq1_s = 19, iq4_nl = 20, iq3_s = 21, iq2_s = 22, iq4_xs = 23, i8 = 24, i16 = 25, i32 = 26, i64 = 27,
  f64 = 28, iq1_m = 29, bf16 = 30, tq1_0 = 34, tq2_0 = 35, mxfp4 = 39, nvfp4 = 40, q1_0 = 41,
};

struct GgmlFormat {
  GgmlType type;
  std::string_view name;
  std::int64_t block_elements;
  std::int64_t block_bytes;
  std::optional<DType> dtype;  ///< the same elements in this library, or nothing for block formats and what is not computed with
  bool dequantizes;            ///< known to kernels::cpu::dequantize
};

inline constexpr std::array<GgmlFormat, 34> kGgmlFormats{{
    {GgmlType::f32, "F32", 1, 4, DType::f32, true},     {GgmlType::f16, "F16", 1, 2, DType::f16, true},
    {GgmlType::q4_0, "Q4_0", 32, 18, {}, true},         {GgmlType::q4_1, "Q4_1", 32, 20, {}, true},
    {GgmlType::q5_0, "Q5_0", 32, 22, {}, true},         {GgmlType::q5_1, "Q5_1", 32, 24, {}, true},
    {GgmlType::q8_0, "Q8_0", 32, 34, {}, true},         {GgmlType::q8_1, "Q8_1", 32, 40, {}, false},
    {GgmlType::q2_k, "Q2_K", 256, 84, {}, true},        {GgmlType::q3_k, "Q3_K", 256, 110, {}, true},
    {GgmlType::q4_k, "Q4_K", 256, 144, {}, true},       {GgmlType::q5_k, "Q5_K", 256, 176, {}, true},
    {GgmlType::q6_k, "Q6_K", 256, 210, {}, true},       {GgmlType::q8_k, "Q8_K", 256, 292, {}, false},
    {GgmlType::iq2_xxs, "IQ2_XXS", 256, 66, {}, false}, {GgmlType::iq2_xs, "IQ2_XS", 256, 74, {}, false},
    {GgmlType::iq3_xxs, "IQ3_XXS", 256, 98, {}, false}, {GgmlType::iq1_s, "IQ1_S", 256, 50, {}, false},
    {GgmlType::iq4_nl, "IQ4_NL", 32, 18, {}, false},    {GgmlType::iq3_s, "IQ3_S", 256, 110, {}, false},
    {GgmlType::iq2_s, "IQ2_S", 256, 82, {}, false},     {GgmlType::iq4_xs, "IQ4_XS", 256, 136, {}, false},
    {GgmlType::i8, "I8", 1, 1, DType::i8, false},       {GgmlType::i16, "I16", 1, 2, {}, false},
    {GgmlType::i32, "I32", 1, 4, DType::i32, false},    {GgmlType::i64, "I64", 1, 8, DType::i64, false},
    {GgmlType::f64, "F64", 1, 8, DType::f64, false},    {GgmlType::iq1_m, "IQ1_M", 256, 56, {}, false},
    {GgmlType::bf16, "BF16", 1, 2, DType::bf16, true},  {GgmlType::tq1_0, "TQ1_0", 256, 54, {}, false},
    {GgmlType::tq2_0, "TQ2_0", 256, 66, {}, false},     {GgmlType::mxfp4, "MXFP4", 32, 17, {}, false},
    {GgmlType::nvfp4, "NVFP4", 64, 36, {}, false},      {GgmlType::q1_0, "Q1_0", 128, 18, {}, false},
}};

/// The format with this number, or nullptr.
constexpr const GgmlFormat* find_ggml_format(std::uint32_t number) {
  for (const GgmlFormat& format : kGgmlFormats) {
    if (static_cast<std::uint32_t>(format.type) == number) return &format;
  }
  return nullptr;
}
constexpr const GgmlFormat& ggml_format(GgmlType type) { return *find_ggml_format(static_cast<std::uint32_t>(type)); }
inline std::ostream& operator<<(std::ostream& stream, GgmlType type) { return stream << ggml_format(type).name; }

}  // namespace cambium
