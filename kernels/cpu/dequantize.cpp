// One struct for each block format: where scales and bits lie in the block, and what they mean.
#include "kernels/cpu/dequantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {

namespace {

using Byte = std::uint8_t;

float half_at(const Byte* bytes) {
  float16 value;
  std::memcpy(&value.bits, bytes, 2);
  return static_cast<float>(value);
}
float as_float(int value) { return static_cast<float>(value); }

// Formats of 32 elements: element i lies in the low, element i + 16 in the high half of byte i.
struct Q4_0 {  // d, 16 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in);
    for (int i = 0; i < 16; ++i) out[i] = d * as_float((in[2 + i] & 15) - 8);
    for (int i = 0; i < 16; ++i) out[16 + i] = d * as_float((in[2 + i] >> 4) - 8);
  }
};
struct Q4_1 {  // d, m, 16 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in), m = half_at(in + 2);
    for (int i = 0; i < 16; ++i) out[i] = d * as_float(in[4 + i] & 15) + m;
    for (int i = 0; i < 16; ++i) out[16 + i] = d * as_float(in[4 + i] >> 4) + m;
  }
};
struct Q5_0 {  // d, 32 fifth bits, 16 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in);
    std::uint32_t high = 0;
    std::memcpy(&high, in + 2, 4);
    for (int i = 0; i < 16; ++i) out[i] = d * as_float(static_cast<int>((in[6 + i] & 15U) | (high >> i & 1U) << 4) - 16);
    for (int i = 0; i < 16; ++i) out[16 + i] = d * as_float(static_cast<int>(in[6 + i] >> 4U | (high >> (16 + i) & 1U) << 4) - 16);
  }
};
struct Q5_1 {  // d, m, 32 fifth bits, 16 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in), m = half_at(in + 2);
    std::uint32_t high = 0;
    std::memcpy(&high, in + 4, 4);
    for (int i = 0; i < 16; ++i) out[i] = d * as_float(static_cast<int>((in[8 + i] & 15U) | (high >> i & 1U) << 4)) + m;
    for (int i = 0; i < 16; ++i) out[16 + i] = d * as_float(static_cast<int>(in[8 + i] >> 4U | (high >> (16 + i) & 1U) << 4)) + m;
  }
};
struct Q8_0 {  // d, 32 signed bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in);
    for (int i = 0; i < 32; ++i) out[i] = d * as_float(static_cast<std::int8_t>(in[2 + i]));
  }
};

// K formats: 256 elements in groups with scales of their own.
struct Q2_K {  // 16 bytes of scale (low half) and minimum (high half), 64 bytes, d, dmin
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in + 80), minimum = half_at(in + 82);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * as_float(in[group] & 15), offset = minimum * as_float(in[group] >> 4);
      const Byte* bits = in + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group / 2 % 4 * 2;
      for (int i = 0; i < 16; ++i) out[group * 16 + i] = scale * as_float(bits[i] >> shift & 3) - offset;
    }
  }
};
struct Q3_K {  // 32 bytes of third bits (1: do not subtract 4), 64 bytes, 12 bytes with 16 scales of 6 bits, d
  static void block(const Byte* __restrict in, float* __restrict out) {
    const Byte* packed = in + 96;
    const float d = half_at(in + 108);
    for (int group = 0; group < 16; ++group) {
      const int low = packed[group % 8] >> group / 8 * 4 & 15, high = packed[8 + group % 4] >> group / 4 * 2 & 3;
      const float scale = d * as_float((low | high << 4) - 32);
      const Byte* bits = in + 32 + group / 8 * 32 + group % 2 * 16;
      const Byte* third = in + group % 2 * 16;
      const int shift = group / 2 % 4 * 2, bit = group / 2;
      for (int i = 0; i < 16; ++i) out[group * 16 + i] = scale * as_float((bits[i] >> shift & 3) - ((third[i] >> bit & 1) ^ 1) * 4);
    }
  }
};
// 12 bytes hold eight scales and eight minima of 6 bits.
void scale_and_minimum(const Byte* packed, int group, int& scale, int& minimum) {
  const int i = group % 4;
  if (group < 4) {
    scale = packed[i] & 63;
    minimum = packed[4 + i] & 63;
  } else {
    scale = (packed[8 + i] & 15) | (packed[i] >> 2 & 48);
    minimum = packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 48);
  }
}
struct Q4_K {  // d, dmin, 12 bytes of scales, 128 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in), dmin = half_at(in + 2);
    for (int group = 0; group < 8; ++group) {
      int scale = 0, minimum = 0;
      scale_and_minimum(in + 4, group, scale, minimum);
      const float a = d * as_float(scale), b = dmin * as_float(minimum);
      const Byte* bits = in + 16 + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) out[group * 32 + i] = a * as_float(bits[i] >> shift & 15) - b;
    }
  }
};
struct Q5_K {  // d, dmin, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in), dmin = half_at(in + 2);
    for (int group = 0; group < 8; ++group) {
      int scale = 0, minimum = 0;
      scale_and_minimum(in + 4, group, scale, minimum);
      const float a = d * as_float(scale), b = dmin * as_float(minimum);
      const Byte* bits = in + 48 + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) out[group * 32 + i] = a * as_float((bits[i] >> shift & 15) | (in[16 + i] >> group & 1) << 4) - b;
    }
  }
};
struct Q6_K {  // 128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed scales, d
  static void block(const Byte* __restrict in, float* __restrict out) {
    const float d = half_at(in + 208);
    for (int group = 0; group < 16; ++group) {
      const float scale = d * as_float(static_cast<std::int8_t>(in[192 + group]));
      const int half = group / 8, quarter = group / 2 % 4, begin = group % 2 * 16;
      const Byte* low = in + half * 64 + quarter % 2 * 32 + begin;
      const Byte* high = in + 128 + half * 32 + begin;
      const int low_shift = quarter / 2 * 4, high_shift = quarter * 2;
      for (int i = 0; i < 16; ++i) out[group * 16 + i] = scale * as_float(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    }
  }
};
struct F32 {
  static void block(const Byte* __restrict in, float* __restrict out) { std::memcpy(out, in, 4); }
};
struct F16 {
  static void block(const Byte* __restrict in, float* __restrict out) { *out = half_at(in); }
};
struct BF16 {
  static void block(const Byte* __restrict in, float* __restrict out) {
    bfloat16 value;
    std::memcpy(&value.bits, in, 2);
    *out = static_cast<float>(value);
  }
};

constexpr int kLongestBlock = 256;

template <class Format, class T>
void all_blocks(const GgmlFormat& format, const std::byte* blocks, std::int64_t count, T* out) {
  const auto* in = reinterpret_cast<const Byte*>(blocks);
  const std::int64_t elements = format.block_elements, bytes = format.block_bytes;
  const std::int64_t grain = std::int64_t{1 << 16} / elements;
  parallel_ranges(count / elements, grain, [&](std::int64_t begin, std::int64_t end) {
    if constexpr (std::is_same_v<T, float>) {
      for (std::int64_t i = begin; i < end; ++i) Format::block(in + i * bytes, out + i * elements);
    } else {
      float values[kLongestBlock]{};
      for (std::int64_t i = begin; i < end; ++i) {
        Format::block(in + i * bytes, values);
        for (std::int64_t k = 0; k < elements; ++k) out[i * elements + k] = T(values[k]);
      }
    }
  });
}

template <class T>
void decode(GgmlType type, const std::byte* blocks, std::int64_t count, T* out) {
  const GgmlFormat& format = ggml_format(type);
  switch (type) {
    case GgmlType::f32: return all_blocks<F32>(format, blocks, count, out);
    case GgmlType::f16: return all_blocks<F16>(format, blocks, count, out);
    case GgmlType::bf16: return all_blocks<BF16>(format, blocks, count, out);
    case GgmlType::q4_0: return all_blocks<Q4_0>(format, blocks, count, out);
    case GgmlType::q4_1: return all_blocks<Q4_1>(format, blocks, count, out);
    case GgmlType::q5_0: return all_blocks<Q5_0>(format, blocks, count, out);
    case GgmlType::q5_1: return all_blocks<Q5_1>(format, blocks, count, out);
    case GgmlType::q8_0: return all_blocks<Q8_0>(format, blocks, count, out);
    case GgmlType::q2_k: return all_blocks<Q2_K>(format, blocks, count, out);
    case GgmlType::q3_k: return all_blocks<Q3_K>(format, blocks, count, out);
    case GgmlType::q4_k: return all_blocks<Q4_K>(format, blocks, count, out);
    case GgmlType::q5_k: return all_blocks<Q5_K>(format, blocks, count, out);
    case GgmlType::q6_k: return all_blocks<Q6_K>(format, blocks, count, out);
    default: fail<DTypeError>("dequantize: blocks of type ", type, " are not supported");
  }
}

}  // namespace

void dequantize(GgmlType type, const std::byte* blocks, std::int64_t count, float* out) { decode(type, blocks, count, out); }

void dequantize(Context&, Strided out, Strided blocks, GgmlType type) {
  const auto* bytes = blocks.as<const std::byte>();
  const std::int64_t count = out.shape[0];
  if (out.dtype == DType::f32) decode(type, bytes, count, out.as<float>());
  else if (out.dtype == DType::bf16) decode(type, bytes, count, out.as<bfloat16>());
  else decode(type, bytes, count, out.as<float16>());
}

void quantize_q8_0(const float* values, std::int64_t count, std::byte* out) {
  parallel_ranges(count / 32, 2048, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const float* x = values + block * 32;
      std::byte* to = out + block * 34;
      float largest = 0;
      for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
      const float d = largest / 127.0F, inverse = d == 0 ? 0.0F : 1.0F / d;
      const float16 half(d);
      std::memcpy(to, &half.bits, 2);
      for (int i = 0; i < 32; ++i) {
        const float q = std::round(x[i] * inverse);  // NaN and infinity have no place in a block: they become 0
        to[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::abs(q) <= 127.0F ? q : 0.0F));
      }
    }
  });
}

}  // namespace cambium::kernels::cpu
