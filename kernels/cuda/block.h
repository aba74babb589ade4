// What kernels share inside of a block: conversion of elements, 16-byte packs, sums and extrema over warps and blocks by fixed trees, sizes of grids.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <limits>

#include "kernels/cuda/device.h"
#include "kernels/dtype.h"

namespace cambium::kernels::cuda {

inline constexpr unsigned kWarp = 32, kFullWarp = 0xffffffffU;

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }

/// convert() of kernels/dtype.h, with the instructions that the hardware has for 16-bit floats.
template <class To, class From>
__device__ __forceinline__ To convert_to(From value) {
  if constexpr (std::is_same_v<To, From>) return value;
  else if constexpr (std::is_same_v<From, bfloat16>) return convert_to<To>(__bfloat162float(__ushort_as_bfloat16(value.bits)));
  else if constexpr (std::is_same_v<From, float16>) return convert_to<To>(__half2float(__ushort_as_half(value.bits)));
  else if constexpr (std::is_same_v<To, bfloat16>) {
    To result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value)));
    return result;
  } else if constexpr (std::is_same_v<To, float16>) {
    To result;
    result.bits = __half_as_ushort(__float2half_rn(static_cast<float>(value)));
    return result;
  } else return convert<To>(value);
}

/// An element in the type that it is computed in, and back.
template <class T>
__device__ __forceinline__ acc_t<T> load(const T* p) { return convert_to<acc_t<T>>(*p); }
template <class T, class A>
__device__ __forceinline__ void store(T* p, A value) { *p = convert_to<T>(value); }

/// N elements that are loaded and stored as one; the pointer must be aligned to all of it.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T element[N];
};
/// Elements of T in 16 bytes.
template <class T> inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* p) { return *as_vector<const Pack<T, N>>(p); }
template <int N, class T>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, N>& pack) { *as_vector<Pack<T, N>>(p) = pack; }

/// True if every row of a dense (R, n) matrix of T can be read in packs of N.
template <class T>
bool packable(const void* data, std::int64_t n, int pack = kPack<T>) {
  return n % pack == 0 && reinterpret_cast<std::uintptr_t>(data) % (static_cast<std::uintptr_t>(pack) * sizeof(T)) == 0;
}

// Joins for the reductions below. Of extrema, a NaN in either operand stays.
struct SumOf {
  template <class A> __host__ __device__ static constexpr A identity() { return A(0); }
  template <class A> __device__ static A join(A a, A b) {
    if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    else return a + b;
  }
};
struct MaximumOf {
  template <class A> __host__ __device__ static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::min() : -std::numeric_limits<A>::infinity();
  }
  template <class A> __device__ static A join(A a, A b) { return a > b || a != a ? a : b; }
};

/// All lanes of the warp get the join of their values: a butterfly, so the bits do not depend on which lane came first.
template <class Op, class A>
__device__ __forceinline__ A warp_reduce(A value) {
  for (int step = 16; step > 0; step /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, value, step);
    // The lower lane's value always stands first.
    value = (threadIdx.x & static_cast<unsigned>(step)) == 0 ? Op::join(value, other) : Op::join(other, value);
  }
  return value;
}
template <class A> __device__ __forceinline__ A warp_sum(A value) { return warp_reduce<SumOf>(value); }
template <class A> __device__ __forceinline__ A warp_max(A value) { return warp_reduce<MaximumOf>(value); }

/// All threads of a block of kThreads (one-dimensional, a multiple of 32) get the join of their values. Two barriers; may be called again at once.
template <class Op, int kThreads, class A>
__device__ __forceinline__ A block_reduce(A value) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  value = warp_reduce<Op>(value);
  if constexpr (kThreads > 32) {
    KSHARED(block_parts, A[kThreads / 32]);
    if (threadIdx.x % kWarp == 0) block_parts[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = threadIdx.x % kWarp < kThreads / 32 ? block_parts[threadIdx.x % kWarp] : Op::template identity<A>();
    value = warp_reduce<Op>(value);
    __syncthreads();
  }
  return value;
}
template <int kThreads, class A> __device__ __forceinline__ A block_sum(A value) { return block_reduce<SumOf, kThreads>(value); }
template <int kThreads, class A> __device__ __forceinline__ A block_max(A value) { return block_reduce<MaximumOf, kThreads>(value); }

/// The thread's number among all of a one-dimensional grid, and how many there are: for (i = grid_thread(); i < n; i += grid_threads()).
__device__ __forceinline__ std::int64_t grid_thread() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t grid_threads() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

/// Blocks of `threads` for `count` > 0 items in a grid-stride loop: enough to fill any GPU, not so many that starting them costs.
inline dim3 grid_for(std::int64_t count, int threads) {
  constexpr std::int64_t kMostBlocks = 16384;
  const std::int64_t blocks = ceil_div<std::int64_t>(count, threads);
  return dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
}

}  // namespace cambium::kernels::cuda
