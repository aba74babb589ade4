// Strided operands on the device: dimensions merged and cut on the host so that positions are found by 32-bit arithmetic without division.
#pragma once

#include <array>
#include <bit>

#include "kernels/cuda/block.h"
#include "kernels/strided.h"

namespace cambium::kernels::cuda {

/// Division of numbers below 2^31 by one that is known at the launch: a multiplication and a shift (Granlund and Montgomery 1994).
struct Divisor {
  std::uint32_t value = 1, factor = 1, shift = 0;
  Divisor() = default;
  explicit Divisor(std::uint32_t divisor) : value(divisor), shift(static_cast<std::uint32_t>(std::bit_width(divisor - 1))) {
    factor = static_cast<std::uint32_t>((((std::uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ __forceinline__ std::uint32_t quotient(std::uint32_t n) const {
    return (static_cast<std::uint32_t>((static_cast<std::uint64_t>(n) * factor) >> 32) + n) >> shift;
  }
};

/// Sizes and strides of N operands of one shape, the innermost dimension first. All offsets lie within 31 bits.
template <int N>
struct Layout {
  int rank = 1;
  std::uint32_t count = 0;
  Divisor sizes[kMaxRank];
  std::int32_t strides[N][kMaxRank] = {};

  Layout() = default;
  explicit Layout(const std::array<Strided, N>& operands) : rank(operands[0].rank), count(static_cast<std::uint32_t>(operands[0].count())) {
    for (int d = 0; d < rank; ++d) {
      sizes[d] = Divisor(static_cast<std::uint32_t>(operands[0].shape[rank - 1 - d]));
      for (int k = 0; k < N; ++k) strides[k][d] = static_cast<std::int32_t>(operands[static_cast<std::size_t>(k)].strides[rank - 1 - d]);
    }
  }

  /// Offsets in elements of element `index` of each operand.
  __device__ __forceinline__ void locate(std::uint32_t index, std::int32_t (&offsets)[N]) const {
    for (int k = 0; k < N; ++k) offsets[k] = 0;
#pragma unroll
    for (int d = 0; d < kMaxRank; ++d) {
      const bool last = d + 1 >= rank;
      const std::uint32_t outer = last ? 0 : sizes[d].quotient(index), at = last ? index : index - outer * sizes[d].value;
      for (int k = 0; k < N; ++k) offsets[k] += static_cast<std::int32_t>(at) * strides[k][d];
      if (last) break;
      index = outer;
    }
  }
};

/// The element numbers of a grid-stride loop over a Layout; counts stay below 2^31 and steps below 2^23, so nothing wraps.
__device__ __forceinline__ std::uint32_t grid_index() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::uint32_t grid_step() { return gridDim.x * blockDim.x; }

/// Calls `body(operands)` for parts of operands of one shape that together are all of it: dimensions ordered and merged, every part small enough for a
/// Layout. One part unless there are 2^31 elements or more.
template <std::size_t N, class F>
void for_each_part(std::array<Strided, N> operands, F&& body) {
  if (operands[0].count() == 0) return;
  Strided* list[N];
  for (std::size_t k = 0; k < N; ++k) list[k] = &operands[k];
  order_dimensions(list, static_cast<int>(N));
  collapse(list, static_cast<int>(N));
  constexpr std::int64_t kLimit = std::int64_t{1} << 31;
  std::int64_t span = operands[0].count();
  for (const Strided& s : operands) {
    std::int64_t reach = 1;
    for (int i = 0; i < s.rank; ++i) reach += (s.shape[i] - 1) * std::abs(s.strides[i]);
    span = reach > span ? reach : span;
  }
  if (span < kLimit) return body(operands);
  int widest = 0;
  const auto weight = [&](int i) {
    std::int64_t most = operands[0].shape[i] > 1 ? operands[0].shape[i] : 0;
    for (const Strided& s : operands) {
      const std::int64_t reach = (s.shape[i] - 1) * std::abs(s.strides[i]);
      most = reach > most ? reach : most;
    }
    return most;
  };
  for (int i = 1; i < operands[0].rank; ++i) widest = weight(i) > weight(widest) ? i : widest;
  std::array<Strided, N> rest = operands;
  const std::int64_t half = operands[0].shape[widest] / 2 / 64 * 64 > 0 ? operands[0].shape[widest] / 2 / 64 * 64 : operands[0].shape[widest] / 2;
  for (std::size_t k = 0; k < N; ++k) {
    rest[k].data = rest[k].template as<std::byte>() + half * rest[k].strides[widest] * item_size(rest[k].dtype);
    rest[k].shape[widest] -= half;
    operands[k].shape[widest] = half;
  }
  for_each_part(operands, body);
  for_each_part(rest, body);
}

/// Calls `f(TypeTag<T>{})` on the device for an element type known at run time only.
template <class F>
__device__ __forceinline__ auto visit_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bfloat16>{});
    case DType::f16: return f(TypeTag<float16>{});
    case DType::i64: return f(TypeTag<std::int64_t>{});
    case DType::i32: return f(TypeTag<std::int32_t>{});
    case DType::i8: return f(TypeTag<std::int8_t>{});
    case DType::u8: return f(TypeTag<std::uint8_t>{});
    default: return f(TypeTag<bool>{});
  }
}

/// An operand whose element type is known at run time only.
struct Elements {
  void* data;
  DType dtype;
  Elements(const Strided& s) : data(s.data), dtype(s.dtype) {}

  template <class A>
  __device__ __forceinline__ A load(std::int64_t offset) const {
    return visit_element(dtype, [&](auto tag) { return convert_to<A>(static_cast<const typename decltype(tag)::type*>(data)[offset]); });
  }
  template <class A>
  __device__ __forceinline__ void store(std::int64_t offset, A value) const {
    visit_element(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      static_cast<T*>(data)[offset] = convert_to<T>(value);
    });
  }
};

/// Calls `f(TypeTag<U>{})` for the unsigned type of an element's size: what only moves elements need not know more.
template <class F>
decltype(auto) visit_size(DType dtype, F&& f) {
  switch (item_size(dtype)) {
    case 8: return f(TypeTag<std::uint64_t>{});
    case 4: return f(TypeTag<std::uint32_t>{});
    case 2: return f(TypeTag<std::uint16_t>{});
    default: return f(TypeTag<std::uint8_t>{});
  }
}

/// Calls `f(TypeTag<A>{})` for the type that elements of `dtype` are computed in: double, float or int64.
template <class F>
decltype(auto) visit_computed(DType dtype, F&& f) {
  if (dtype == DType::f64) return f(TypeTag<double>{});
  return is_float(dtype) ? f(TypeTag<float>{}) : f(TypeTag<std::int64_t>{});
}

}  // namespace cambium::kernels::cuda
