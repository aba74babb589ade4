// Marks functions that the CPU's code and CUDA's device code share.
#pragma once

#if defined(__CUDACC__)
#define CAMBIUM_HOST_DEVICE __host__ __device__
#else
#define CAMBIUM_HOST_DEVICE
#endif

namespace cambium::kernels {

/// a b, rounded for itself: never contracted with a sum behind it into one fused operation, whatever the compiler's options are.
#if defined(__CUDA_ARCH__)
CAMBIUM_HOST_DEVICE inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
CAMBIUM_HOST_DEVICE inline double rounded_product(double a, double b) { return __dmul_rn(a, b); }
#else
[[gnu::always_inline]] CAMBIUM_HOST_DEVICE inline float rounded_product(float a, float b) { return a * b; }
[[gnu::always_inline]] CAMBIUM_HOST_DEVICE inline double rounded_product(double a, double b) { return a * b; }
#endif

}  // namespace cambium::kernels
