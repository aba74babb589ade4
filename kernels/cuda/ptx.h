// The only inline PTX: asynchronous copies to shared memory, ldmatrix, tensor-core products. Every function has a body for nvcc and one for the emulator,
// and does without the instruction on chips that lack it (compute capability 7.5: no cp.async, no mma of bf16 and tf32).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/device.h"

namespace cambium::kernels::cuda::ptx {

#if defined(__CUDACC__)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define CAMBIUM_HAS_AMPERE 1
#else
#define CAMBIUM_HAS_AMPERE 0
#endif
#endif

namespace detail {

/// With fewer than all bytes no vector access reaches past what may be read.
template <int Bytes>
__device__ __forceinline__ void copy_at_once(void* shared, const void* global, int source_bytes) {
  if (source_bytes == Bytes) {
    using Whole = std::conditional_t<Bytes == 16, uint4, std::conditional_t<Bytes == 8, uint2, unsigned>>;
    *static_cast<Whole*>(shared) = *static_cast<const Whole*>(global);
    return;
  }
  for (int i = 0; i < Bytes; ++i) static_cast<unsigned char*>(shared)[i] = i < source_bytes ? static_cast<const unsigned char*>(global)[i] : static_cast<unsigned char>(0);
}

/// The product of fragments by shuffles. `number(word, i)` is the i-th of the `PerWord` numbers in a register.
template <int PerWord, class Number>
__device__ __forceinline__ void mma_by_shuffles(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Number number) {
  const int lane = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32, group = lane / 4, t = lane % 4;
  for (int half = 0; half < 2; ++half)  // of the depth
    for (int owner = 0; owner < 4; ++owner) {  // t of the lanes that hold these numbers
      const std::uint32_t upper = __shfl_sync(~0U, a[2 * half], group * 4 + owner), lower = __shfl_sync(~0U, a[2 * half + 1], group * 4 + owner);
      const std::uint32_t left = __shfl_sync(~0U, b[half], (2 * t) * 4 + owner), right = __shfl_sync(~0U, b[half], (2 * t + 1) * 4 + owner);
      for (int i = 0; i < PerWord; ++i) {
        c[0] += number(upper, i) * number(left, i);
        c[1] += number(upper, i) * number(right, i);
        c[2] += number(lower, i) * number(left, i);
        c[3] += number(lower, i) * number(right, i);
      }
    }
}

__device__ __forceinline__ float bf16_of(std::uint32_t word, int i) { return __uint_as_float(i != 0 ? word & 0xFFFF0000U : word << 16); }
__device__ __forceinline__ float f16_of(std::uint32_t word, int i) { return __half2float(__ushort_as_half(static_cast<unsigned short>(i != 0 ? word >> 16 : word & 0xFFFFU))); }
__device__ __forceinline__ float tf32_of(std::uint32_t word, int) { return __uint_as_float(word & 0xFFFFE000U); }

#if !defined(__CUDACC__)
inline void emulated_mma(::kemu::Op op, float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* file, int line) {
  std::uint32_t in[10], out[4];
  std::memcpy(in, a, sizeof a);
  std::memcpy(in + 4, b, sizeof b);
  std::memcpy(in + 6, c, sizeof c);
  ::kemu::warp_op(op, ~0U, in, 10, out, 4, file, line);
  std::memcpy(c, out, sizeof c);
}
inline void emulated_ldmatrix(::kemu::Op op, std::uint32_t* d, int matrices, const void* row, const char* file, int line) {
  std::uint32_t in[4] = {}, out[4];
  if (static_cast<int>(::kemu::lane_id()) < 8 * matrices) {  // the others' addresses are not looked at
    ::kemu::check_shared(row, 16, 16, "ldmatrix", file, line);
    std::memcpy(in, row, sizeof in);
  }
  ::kemu::warp_op(op, ~0U, in, 4, out, 4, file, line);
  std::memcpy(d, out, static_cast<std::size_t>(matrices) * sizeof *d);
}
#endif

}  // namespace detail

#if defined(__CUDACC__)
#define CAMBIUM_CALLER
#else  // messages and the check for divergence speak of the kernel's line
#define CAMBIUM_CALLER , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#endif

/// Starts to copy 4, 8 or 16 bytes from global to shared memory, both aligned to that; of them only the first `source_bytes` are read, the rest become zero.
template <int Bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, int source_bytes = Bytes CAMBIUM_CALLER) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
#if !defined(__CUDACC__)
  if (::kemu::capability() >= 80) return ::kemu::async_copy(shared, global, Bytes, static_cast<std::size_t>(source_bytes), file, line);
  detail::copy_at_once<Bytes>(shared, global, source_bytes);
#elif CAMBIUM_HAS_AMPERE
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(source_bytes) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(to), "l"(global), "n"(Bytes), "r"(source_bytes) : "memory");
#else
  detail::copy_at_once<Bytes>(shared, global, source_bytes);
#endif
}

/// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() {
#if !defined(__CUDACC__)
  ::kemu::async_commit();
#elif CAMBIUM_HAS_AMPERE
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/// Waits until at most the last `Pending` groups of this thread are under way. Other threads see the copies after a barrier.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
#if !defined(__CUDACC__)
  ::kemu::async_wait(Pending);
#elif CAMBIUM_HAS_AMPERE
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
#endif
}

/// Loads two 8 x 8 matrices of 16-bit numbers. Lanes 0 to 15 give the addresses of their rows, 16 bytes each, aligned to that; lane l gets row l / 4,
/// numbers 2 (l % 4) and the next one of each matrix. For every lane of the warp.
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&d)[2], const void* row CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  detail::emulated_ldmatrix(::kemu::Op::load_matrix, d, 2, row, file, line);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n" : "=r"(d[0]), "=r"(d[1]) : "r"(from) : "memory");
#endif
}

/// The same of the transposed matrices.
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&d)[2], const void* row CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  detail::emulated_ldmatrix(::kemu::Op::load_matrix_transposed, d, 2, row, file, line);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n" : "=r"(d[0]), "=r"(d[1]) : "r"(from) : "memory");
#endif
}

/// Four matrices, rows from all lanes.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&d)[4], const void* row CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  detail::emulated_ldmatrix(::kemu::Op::load_matrix, d, 4, row, file, line);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(from) : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&d)[4], const void* row CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  detail::emulated_ldmatrix(::kemu::Op::load_matrix_transposed, d, 4, row, file, line);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(from) : "memory");
#endif
}

/// C (16, 8) += A (16, 16) B (16, 8), A by rows and B by columns, as PTX lays fragments over a warp ("Matrix Fragments for mma.m16n8k16"). With group = lane / 4
/// and t = lane % 4: a[0] holds A(group, 2t and 2t+1), a[1] the same of row group + 8, a[2] and a[3] of columns + 8; b[0] holds B(2t and 2t+1, group), b[1] of rows + 8;
/// c[0], c[1] are C(group, 2t and 2t+1), c[2], c[3] of row group + 8. For every lane of the warp.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2] CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  if (::kemu::capability() >= 80) return detail::emulated_mma(::kemu::Op::mma_bf16, c, a, b, file, line);
  detail::mma_by_shuffles<2>(c, a, b, detail::bf16_of);
#elif CAMBIUM_HAS_AMPERE
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  detail::mma_by_shuffles<2>(c, a, b, detail::bf16_of);
#endif
}

/// The same of f16; capability 7.5 does it in two products of half the depth.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2] CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  detail::emulated_mma(::kemu::Op::mma_f16, c, a, b, file, line);
#elif CAMBIUM_HAS_AMPERE
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

/// C (16, 8) += A (16, 8) B (8, 8) of numbers that to_tf32 has rounded: a[0] holds A(group, t), a[1] of row + 8, a[2] and a[3] of column + 4; b[0] B(t, group), b[1] of row + 4.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2] CAMBIUM_CALLER) {
#if !defined(__CUDACC__)
  if (::kemu::capability() >= 80) return detail::emulated_mma(::kemu::Op::mma_tf32, c, a, b, file, line);
  detail::mma_by_shuffles<1>(c, a, b, detail::tf32_of);
#elif CAMBIUM_HAS_AMPERE
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  detail::mma_by_shuffles<1>(c, a, b, detail::tf32_of);
#endif
}

/// To 10 bits behind the point, ties away from zero, as cvt.rna.tf32.f32 does; infinities and NaN stay what they are.
__device__ __forceinline__ std::uint32_t to_tf32(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return (bits & 0x7F800000U) == 0x7F800000U ? bits : (bits + 0x1000U) & 0xFFFFE000U;
}

#undef CAMBIUM_CALLER

}  // namespace cambium::kernels::cuda::ptx
