// CUDA's device language for a C++ compiler; included by device.h. Types come from the toolkit's own headers, so that signatures stay honest.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
// The emulator has to know address, size and name of every shared array.
#define __shared__ _Pragma("GCC error \"use KSHARED() or KSHARED_DYN() instead of __shared__\"")

#define KEMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace kemu {

struct Thread {  // what a kernel sees of the thread that runs it
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
};
extern Thread* current;

enum class Op : unsigned {
  sync, shuffle, shuffle_up, shuffle_down, shuffle_xor, ballot, match_any, reduce_add, reduce_min, reduce_max, reduce_min_signed, reduce_max_signed,
  reduce_and, reduce_or, reduce_xor, mma_bf16, mma_f16, mma_tf32, load_matrix, load_matrix_transposed
};
enum class Vote { count, all, any };

void block_barrier(const char* file, int line);
int block_vote(Vote vote, bool predicate, const char* file, int line);
/// All lanes of `mask` hand in words and get words back.
void warp_op(Op op, unsigned mask, const std::uint32_t* in, int in_words, std::uint32_t* out, int out_words, const char* file, int line);
unsigned active_lanes();
unsigned lane_id();
void thread_fence();
void* shared_array(const void* key, std::size_t size, std::size_t alignment, const char* name);
void* shared_dynamic();
void async_copy(void* to, const void* from, std::size_t bytes, std::size_t source_bytes, const char* file, int line);
void async_commit();
void async_wait(int pending_groups);
void check_shared(const void* p, std::size_t bytes, std::size_t alignment, const char* what, const char* file, int line);
void check_vector(const void* p, std::size_t alignment, const char* file, int line);
int capability();
[[noreturn]] void fail_thread(const char* file, int line, const char* format, ...) __attribute__((format(printf, 3, 4)));

cudaError_t launch_raw(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, const void* function,
                       std::function<void()> body, const void* const* pointers, int n_pointers);

template <class T>
const void* as_pointer(const T& value) {
  if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>) return reinterpret_cast<const void*>(value);
  else return nullptr;
}

/// Queues the grid on the stream with copies of the arguments; pointers among them have to be the device's.
template <class... P>
cudaError_t launch(void (*kernel)(P...), const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, std::type_identity_t<P>... arguments) {
  const void* pointers[sizeof...(P) + 1] = {as_pointer(arguments)...};
  return launch_raw(name, grid, block, shared_bytes, stream, reinterpret_cast<const void*>(kernel),
                    [kernel, copies = std::tuple<std::decay_t<P>...>(arguments...)] { std::apply([&](const auto&... a) { kernel(a...); }, copies); }, pointers,
                    static_cast<int>(sizeof...(P)));
}

template <class T>
constexpr bool kShuffles = (std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)) || std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16> ||
                           std::is_same_v<T, __half2> || std::is_same_v<T, __nv_bfloat162>;

template <class T>
T shuffle(Op op, unsigned mask, T value, unsigned argument, int width, const char* file, int line) {
  static_assert(kShuffles<T>, "CUDA shuffles 32- and 64-bit numbers, half, bfloat16 and pairs of them");
  std::uint32_t in[4] = {argument, static_cast<std::uint32_t>(width), 0, 0}, out[2] = {};
  constexpr int words = sizeof(T) == 8 ? 2 : 1;
  std::memcpy(in + 2, &value, sizeof(T));
  warp_op(op, mask, in, 2 + words, out, words, file, line);
  std::memcpy(static_cast<void*>(&value), out, sizeof(T));
  return value;
}

inline std::uint32_t one_word(Op op, unsigned mask, std::uint32_t in, const char* file, int line) {
  std::uint32_t out = 0;
  warp_op(op, mask, &in, 1, &out, 1, file, line);
  return out;
}

}  // namespace kemu

#define threadIdx (::kemu::current->thread_index)
#define blockIdx (::kemu::current->block_index)
#define blockDim (::kemu::current->block_size)
#define gridDim (::kemu::current->grid_size)
constexpr int warpSize = 32;

#define KSHARED(name, ...)                                                                                                             \
  static char name##_kemu_key;                                                                                                         \
  auto& name = *static_cast<::std::type_identity_t<__VA_ARGS__>*>(::kemu::shared_array(&name##_kemu_key, sizeof(::std::type_identity_t<__VA_ARGS__>), \
                                                                                       alignof(::std::type_identity_t<__VA_ARGS__>), #name))
#define KSHARED_DYN(name, ...) auto* name = static_cast<__VA_ARGS__*>(::kemu::shared_dynamic())

inline void __syncthreads(KEMU_HERE) { ::kemu::block_barrier(file, line); }
inline int __syncthreads_count(int p, KEMU_HERE) { return ::kemu::block_vote(::kemu::Vote::count, p != 0, file, line); }
inline int __syncthreads_and(int p, KEMU_HERE) { return ::kemu::block_vote(::kemu::Vote::all, p != 0, file, line); }
inline int __syncthreads_or(int p, KEMU_HERE) { return ::kemu::block_vote(::kemu::Vote::any, p != 0, file, line); }
inline void __syncwarp(unsigned mask = ~0U, KEMU_HERE) { ::kemu::warp_op(::kemu::Op::sync, mask, nullptr, 0, nullptr, 0, file, line); }
inline void __threadfence() { ::kemu::thread_fence(); }
inline void __threadfence_block() { ::kemu::thread_fence(); }
inline void __threadfence_system() { ::kemu::thread_fence(); }
#define KALIGNED(p, bytes) ::kemu::check_vector(p, bytes, __FILE__, __LINE__)
#define __trap() ::kemu::fail_thread(__FILE__, __LINE__, "__trap()")

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, KEMU_HERE) {
  return ::kemu::shuffle(::kemu::Op::shuffle, mask, value, static_cast<unsigned>(lane), width, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, KEMU_HERE) {
  return ::kemu::shuffle(::kemu::Op::shuffle_up, mask, value, delta, width, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, KEMU_HERE) {
  return ::kemu::shuffle(::kemu::Op::shuffle_down, mask, value, delta, width, file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, KEMU_HERE) {
  return ::kemu::shuffle(::kemu::Op::shuffle_xor, mask, value, static_cast<unsigned>(lanes), width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int p, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::ballot, mask, p != 0, file, line); }
inline int __any_sync(unsigned mask, int p, KEMU_HERE) { return __ballot_sync(mask, p, file, line) != 0; }
inline int __all_sync(unsigned mask, int p, KEMU_HERE) { return __ballot_sync(mask, p == 0, file, line) == 0; }
template <class T> unsigned __match_any_sync(unsigned mask, T value, KEMU_HERE) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  std::uint32_t in[2] = {}, out = 0;
  std::memcpy(in, &value, sizeof(T));
  ::kemu::warp_op(::kemu::Op::match_any, mask, in, 2, &out, 1, file, line);
  return out;
}
inline unsigned __activemask() { return ::kemu::active_lanes(); }
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_add, mask, v, file, line); }
inline unsigned __reduce_min_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_min, mask, v, file, line); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_max, mask, v, file, line); }
inline int __reduce_add_sync(unsigned mask, int v, KEMU_HERE) { return static_cast<int>(::kemu::one_word(::kemu::Op::reduce_add, mask, static_cast<unsigned>(v), file, line)); }
inline int __reduce_min_sync(unsigned mask, int v, KEMU_HERE) { return static_cast<int>(::kemu::one_word(::kemu::Op::reduce_min_signed, mask, static_cast<unsigned>(v), file, line)); }
inline int __reduce_max_sync(unsigned mask, int v, KEMU_HERE) { return static_cast<int>(::kemu::one_word(::kemu::Op::reduce_max_signed, mask, static_cast<unsigned>(v), file, line)); }
inline unsigned __reduce_and_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_and, mask, v, file, line); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_or, mask, v, file, line); }
inline unsigned __reduce_xor_sync(unsigned mask, unsigned v, KEMU_HERE) { return ::kemu::one_word(::kemu::Op::reduce_xor, mask, v, file, line); }

#include "emulated_atomics.h"
#include "emulated_math.h"
