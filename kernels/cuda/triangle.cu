// The triangle that a QR factorisation leaves above its reflections.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/linalg.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

constexpr int kTriangleThreads = 256;

template <class T>
__global__ void __launch_bounds__(kTriangleThreads) upper_triangle_kernel(T* r, const T* a, std::int64_t K, std::int64_t N, std::int64_t M) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kTriangleThreads;
  for (std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kTriangleThreads + threadIdx.x; n < K * N; n += step) {
    const std::int64_t i = n / N, j = n % N;
    r[n] = j < i ? T(0) : a[j * M + i];
  }
}

}  // namespace

void upper_triangle(Context& context, Strided r, const void* a, std::int64_t M) {
  const std::int64_t K = r.shape[0], N = r.shape[1];
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((K * N + kTriangleThreads - 1) / kTriangleThreads, 1 << 16));
  const auto run = [&]<class T>(TypeTag<T>) {
    launch(KERNEL(upper_triangle_kernel<T>), dim3(blocks), dim3(kTriangleThreads), 0, stream_of(context), r.as<T>(), static_cast<const T*>(a), K, N, M);
  };
  if (r.dtype == DType::f64) run(TypeTag<double>{});
  else run(TypeTag<float>{});
}

}  // namespace cambium::kernels::cuda
