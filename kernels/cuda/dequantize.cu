// Block formats of GGML, decoded where the weights are used: what crosses to the device are the blocks of the file, an eighth to a quarter of float32's bytes.
// Formulas as in kernels/cpu/dequantize.cpp. Products and sums are rounded one by one, never fused, so that both devices have the same bits.
#include "kernels/cuda/block.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kFour = 4;  // elements of a thread: neighbours, which share their scale in every format

using Byte = std::uint8_t;

// Blocks have an even number of bytes, so halves in them are aligned.
__device__ __forceinline__ float half_at(const Byte* bytes) { return convert_to<float>(*as_vector<const float16>(bytes)); }

// Four elements: scale times integers, plus an offset.
struct Four {
  float scale, offset;
  int integer[kFour];
};
__device__ __forceinline__ float product(float a, int b) { return __fmul_rn(a, static_cast<float>(b)); }

// Each format: where element i, a multiple of four, and the three after it lie in a block. `kOffset`: an offset is added.

// 32 elements: i lies in the low, i + 16 in the high half of byte i.
__device__ __forceinline__ void halves(Four& four, const Byte* bytes, int i) {
  for (int k = 0; k < kFour; ++k) four.integer[k] = bytes[i % 16 + k] >> i / 16 * 4 & 15;
}
__device__ __forceinline__ void fifth_bits(Four& four, const Byte* bits, int i) {
  for (int k = 0; k < kFour; ++k) four.integer[k] |= (bits[i / 8] >> (i % 8 + k) & 1) << 4;
}
struct Q4_0 {  // d, 16 bytes
  static constexpr bool kOffset = false;
  static constexpr int kElements = 32, kBytes = 18;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    Four four{half_at(in), 0, {}};
    halves(four, in + 2, i);
    for (int& integer : four.integer) integer -= 8;
    return four;
  }
};
struct Q4_1 {  // d, m, 16 bytes
  static constexpr bool kOffset = true;
  static constexpr int kElements = 32, kBytes = 20;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    Four four{half_at(in), half_at(in + 2), {}};
    halves(four, in + 4, i);
    return four;
  }
};
struct Q5_0 {  // d, 32 fifth bits, 16 bytes
  static constexpr bool kOffset = false;
  static constexpr int kElements = 32, kBytes = 22;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    Four four{half_at(in), 0, {}};
    halves(four, in + 6, i);
    fifth_bits(four, in + 2, i);
    for (int& integer : four.integer) integer -= 16;
    return four;
  }
};
struct Q5_1 {  // d, m, 32 fifth bits, 16 bytes
  static constexpr bool kOffset = true;
  static constexpr int kElements = 32, kBytes = 24;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    Four four{half_at(in), half_at(in + 2), {}};
    halves(four, in + 8, i);
    fifth_bits(four, in + 4, i);
    return four;
  }
};
struct Q8_0 {  // d, 32 signed bytes
  static constexpr bool kOffset = false;
  static constexpr int kElements = 32, kBytes = 34;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    Four four{half_at(in), 0, {}};
    for (int k = 0; k < kFour; ++k) four.integer[k] = static_cast<std::int8_t>(in[2 + i + k]);
    return four;
  }
};

// K formats: 256 elements in groups with scales of their own.
struct Q2_K {  // 16 bytes of scale (low half) and minimum (high half), 64 bytes, d, dmin
  static constexpr bool kOffset = true;
  static constexpr int kElements = 256, kBytes = 84;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    const int group = i / 16;
    Four four{product(half_at(in + 80), in[group] & 15), -product(half_at(in + 82), in[group] >> 4), {}};
    const Byte* bits = in + 16 + group / 8 * 32 + group % 2 * 16 + i % 16;
    for (int k = 0; k < kFour; ++k) four.integer[k] = bits[k] >> group / 2 % 4 * 2 & 3;
    return four;
  }
};
struct Q3_K {  // 32 bytes of third bits (1: do not subtract 4), 64 bytes, 12 bytes with 16 scales of 6 bits, d
  static constexpr bool kOffset = false;
  static constexpr int kElements = 256, kBytes = 110;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    const Byte* packed = in + 96;
    const int group = i / 16, low = packed[group % 8] >> group / 8 * 4 & 15, high = packed[8 + group % 4] >> group / 4 * 2 & 3;
    Four four{product(half_at(in + 108), (low | high << 4) - 32), 0, {}};
    const Byte* bits = in + 32 + group / 8 * 32 + group % 2 * 16 + i % 16;
    const Byte* third = in + group % 2 * 16 + i % 16;
    for (int k = 0; k < kFour; ++k) four.integer[k] = (bits[k] >> group / 2 % 4 * 2 & 3) - ((third[k] >> group / 2 & 1) ^ 1) * 4;
    return four;
  }
};
// Scale and minimum of a group of 32: 12 bytes hold eight of each, of 6 bits.
__device__ __forceinline__ Four with_minimum(const Byte* in, int group) {
  const Byte* packed = in + 4;
  const int i = group % 4;
  const int scale = group < 4 ? packed[i] & 63 : (packed[8 + i] & 15) | (packed[i] >> 2 & 48);
  const int minimum = group < 4 ? packed[4 + i] & 63 : packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 48);
  return {product(half_at(in), scale), -product(half_at(in + 2), minimum), {}};
}
struct Q4_K {  // d, dmin, 12 bytes of scales, 128 bytes
  static constexpr bool kOffset = true;
  static constexpr int kElements = 256, kBytes = 144;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    const int group = i / 32;
    Four four = with_minimum(in, group);
    for (int k = 0; k < kFour; ++k) four.integer[k] = in[16 + group / 2 * 32 + i % 32 + k] >> group % 2 * 4 & 15;
    return four;
  }
};
struct Q5_K {  // d, dmin, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes
  static constexpr bool kOffset = true;
  static constexpr int kElements = 256, kBytes = 176;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    const int group = i / 32;
    Four four = with_minimum(in, group);
    for (int k = 0; k < kFour; ++k) four.integer[k] = (in[48 + group / 2 * 32 + i % 32 + k] >> group % 2 * 4 & 15) | (in[16 + i % 32 + k] >> group & 1) << 4;
    return four;
  }
};
struct Q6_K {  // 128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed scales, d
  static constexpr bool kOffset = false;
  static constexpr int kElements = 256, kBytes = 210;
  static __device__ __forceinline__ Four at(const Byte* in, int i) {
    const int group = i / 16, half = group / 8, quarter = group / 2 % 4, begin = group % 2 * 16 + i % 16;
    Four four{product(half_at(in + 208), static_cast<std::int8_t>(in[192 + group])), 0, {}};
    const Byte* low = in + half * 64 + quarter % 2 * 32 + begin;
    const Byte* high = in + 128 + half * 32 + begin;
    for (int k = 0; k < kFour; ++k) four.integer[k] = ((low[k] >> quarter / 2 * 4 & 15) | (high[k] >> quarter * 2 & 3) << 4) - 32;
    return four;
  }
};

template <class Format, class T>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(T* out, const Byte* blocks, std::int64_t count) {
  constexpr int kFours = Format::kElements / kFour;
  for (std::int64_t i = grid_thread(); i < count / kFour; i += grid_threads()) {
    const Four four = Format::at(blocks + i / kFours * Format::kBytes, static_cast<int>(i % kFours) * kFour);
    Pack<T, kFour> pack;
    for (int k = 0; k < kFour; ++k) {
      float value = product(four.scale, four.integer[k]);
      if constexpr (Format::kOffset) value = __fadd_rn(value, four.offset);
      pack.element[k] = convert_to<T>(value);
    }
    store_pack(out + i * kFour, pack);
  }
}

template <class Format>
void decode(Context& context, Strided out, Strided blocks) {
  const std::int64_t count = out.shape[0];
  if (count == 0) return;
  const auto start = [&]<class T>(T*) {
    launch(KERNEL(dequantize_kernel<Format, T>), grid_for(count / kFour, kThreads), kThreads, 0, stream_of(context), out.as<T>(), blocks.as<const Byte>(), count);
  };
  if (out.dtype == DType::f32) start(static_cast<float*>(nullptr));
  else if (out.dtype == DType::bf16) start(static_cast<bfloat16*>(nullptr));
  else start(static_cast<float16*>(nullptr));
}

}  // namespace

void dequantize(Context& context, Strided out, Strided blocks, GgmlType type) {
  switch (type) {
    case GgmlType::q4_0: return decode<Q4_0>(context, out, blocks);
    case GgmlType::q4_1: return decode<Q4_1>(context, out, blocks);
    case GgmlType::q5_0: return decode<Q5_0>(context, out, blocks);
    case GgmlType::q5_1: return decode<Q5_1>(context, out, blocks);
    case GgmlType::q8_0: return decode<Q8_0>(context, out, blocks);
    case GgmlType::q2_k: return decode<Q2_K>(context, out, blocks);
    case GgmlType::q3_k: return decode<Q3_K>(context, out, blocks);
    case GgmlType::q4_k: return decode<Q4_K>(context, out, blocks);
    case GgmlType::q5_k: return decode<Q5_K>(context, out, blocks);
    case GgmlType::q6_k: return decode<Q6_K>(context, out, blocks);
    default: fail<DTypeError>("dequantize: blocks of type ", type, " are not supported");
  }
}

}  // namespace cambium::kernels::cuda
