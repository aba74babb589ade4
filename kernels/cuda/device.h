// CUDA's language for kernels, one source for two compilers: nvcc, or a C++ compiler and the emulator of tests/cuda_emulation.
#pragma once

#include <cstddef>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
/// A static array of the block's shared memory: KSHARED(tile, float[16][17]). At most 48 KiB a kernel.
#define KSHARED(name, ...) __shared__ __align__(16) ::std::type_identity_t<__VA_ARGS__> name
/// A pointer to the shared memory that launch() was asked for: KSHARED_DYN(rows, float).
#define KSHARED_DYN(name, ...)                                              \
  extern __shared__ __align__(16) unsigned char cambium_dynamic_shared[];   \
  auto* name = reinterpret_cast<__VA_ARGS__*>(cambium_dynamic_shared)
/// The emulator's check that p is a multiple of `bytes`.
#define KALIGNED(p, bytes) static_cast<void>(0)
#else
#include "emulated_device.h"  // the same macros, and everything else
#endif

#include "kernels/error.h"

namespace cambium::kernels::cuda {

/// The elements at p as one vector, which p has to be aligned to. All vectors are read and written through here, so that the emulator sees those that are not.
template <class V, class T>
__device__ __forceinline__ V* as_vector(T* p) {
  KALIGNED(p, alignof(V));
  return reinterpret_cast<V*>(p);
}

/// A kernel and its name in the source; made by KERNEL.
template <class... P>
struct Kernel {
  void (*function)(P...);
  const char* name;
};

template <class... P>
constexpr Kernel<P...> named_kernel(void (*function)(P...), const char* name) { return {function, name}; }

#define KERNEL(...) ::cambium::kernels::cuda::named_kernel(__VA_ARGS__, #__VA_ARGS__)

namespace detail {

template <class P, class A>
constexpr bool loses_digits() {
  if constexpr (std::is_arithmetic_v<P> && std::is_arithmetic_v<A>)
    return (std::is_integral_v<P> == std::is_integral_v<A> && sizeof(A) > sizeof(P)) || (std::is_integral_v<P> && !std::is_integral_v<A>);
  else
    return false;
}

// More than 48 KiB of dynamic shared memory has to be asked for by name. Each call asks for all there is: threads that launch the same kernel with
// different sizes do not take it from each other.
inline cudaError_t allow_shared(const void* function) {
  int device = 0, most = 0;
  cudaFuncAttributes attributes{};
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, function);
  const int rest = most - static_cast<int>(attributes.sharedSizeBytes);
  if (status == cudaSuccess) status = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, rest);
  return status;
}

[[noreturn]] inline void fail_launch(cudaError_t status, const char* name, dim3 grid, dim3 block, std::size_t shared_bytes) {
  (void)cudaGetLastError();  // reported here
  fail<DeviceError>("launch: kernel ", name, " of ", grid.x, " x ", grid.y, " x ", grid.z, " blocks of ", block.x, " x ", block.y, " x ", block.z,
                    " threads with ", shared_bytes, " bytes of shared memory: ", cudaGetErrorName(status), ": ", cudaGetErrorString(status));
}

}  // namespace detail

/// Launches `launch(KERNEL(add<float>), grid, block, shared_bytes, stream, arguments…)`. Numbers may be given in a narrower type than the kernel takes,
/// not in a wider one. A launch that CUDA refuses is a DeviceError with the kernel's name and sizes; errors of its execution come at a synchronisation.
template <class... P, class... A>
void launch(Kernel<P...> kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel is launched with as many arguments as it takes");
  static_assert(!(detail::loses_digits<P, std::remove_cvref_t<A>>() || ...), "an argument is wider than the kernel's parameter: convert it where that is known to be right");
  const auto* function = reinterpret_cast<const void*>(kernel.function);
  cudaError_t status = shared_bytes > 48 * 1024 ? detail::allow_shared(function) : cudaSuccess;
  if (status == cudaSuccess) {
#if defined(__CUDACC__)
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    status = cudaLaunchKernelEx(&config, kernel.function, static_cast<P>(arguments)...);
#else
    status = ::kemu::launch(kernel.function, kernel.name, grid, block, shared_bytes, stream, static_cast<P>(arguments)...);
#endif
  }
  if (status != cudaSuccess) detail::fail_launch(status, kernel.name, grid, block, shared_bytes);
}

}  // namespace cambium::kernels::cuda
