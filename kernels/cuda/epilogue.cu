// The end of a product that cuBLAS cannot give: scale, old C, bias, activation, conversion; also adds up the planes of a cut sum.
#include <algorithm>

#include "kernels/cuda/gemm_finish.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

constexpr int kFinishThreads = 256;

template <class A>
__global__ void __launch_bounds__(kFinishThreads) finish_kernel(MatrixProduct p, const A* sums, int planes) {
  const std::int64_t plane = p.batch * p.M * p.N, step = static_cast<std::int64_t>(gridDim.x) * kFinishThreads;
  for (std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x; n < plane; n += step) {
    A sum(0);
    for (int s = 0; s < planes; ++s) sum += sums[s * plane + n];
    finish_element<A>(p, n / (p.M * p.N), n / p.N % p.M, n % p.N, sum);
  }
}

}  // namespace

void finish_product(Context& context, const MatrixProduct& p, const void* sums, int planes) {
  const std::int64_t count = p.batch * p.M * p.N;
  if (count == 0) return;
  const auto run = [&]<class A>(TypeTag<A>) {
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((count + kFinishThreads - 1) / kFinishThreads, 1 << 16));
    launch(KERNEL(finish_kernel<A>), dim3(blocks), dim3(kFinishThreads), 0, stream_of(context), p, static_cast<const A*>(sums), sums != nullptr ? planes : 0);
  };
  if (p.c.dtype == DType::f64) run(TypeTag<double>{});
  else run(TypeTag<float>{});
}

}  // namespace cambium::kernels::cuda
