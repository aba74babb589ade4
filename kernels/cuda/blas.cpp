// Handles of cuBLAS and cuSOLVER, made at a device's first product.
#include "kernels/cuda/blas.h"

#include <memory>
#include <vector>

namespace cambium::kernels::cuda {

namespace {

struct Handles {
  std::mutex mutex;
  cublasHandle_t cublas = nullptr;
  cusolverDnHandle_t cusolver = nullptr;
};

Handles& handles_of(Device device) {
  static auto* all = [] {  // never destroyed, as the allocators
    auto* made = new std::vector<std::unique_ptr<Handles>>;
    for (int i = 0; i < device_count(); ++i) made->push_back(std::make_unique<Handles>());
    return made;
  }();
  return *all->at(static_cast<std::size_t>(device.index));
}

}  // namespace

Blas::Blas(const Context& context) {
  Handles& handles = handles_of(context.device);
  lock_ = std::unique_lock(handles.mutex);
  if (handles.cublas == nullptr) {
    check_blas(cublasCreate(&handles.cublas), "cublasCreate on ", context.device);
    // Sums of bf16 and f16 stay float32 to their end.
    const auto mode = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    check_blas(cublasSetMathMode(handles.cublas, mode), "cublasSetMathMode on ", context.device);
  }
  if (handles.cusolver == nullptr) check_solver(cusolverDnCreate(&handles.cusolver), "cusolverDnCreate on ", context.device);
  cublas_ = handles.cublas;
  cusolver_ = handles.cusolver;
  check_blas(cublasSetStream(cublas_, stream_of(context)), "cublasSetStream on ", context.device);
  check_solver(cusolverDnSetStream(cusolver_, stream_of(context)), "cusolverDnSetStream on ", context.device);
}

}  // namespace cambium::kernels::cuda
