// cuBLAS and cuSOLVER: one handle of each for a device, bound to its stream.
#pragma once

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <mutex>

#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

/// The handles of a device for the time of a call: a handle serves one thread at a time. With one stream to a handle cuBLAS gives the same bits on every run.
class Blas {
 public:
  explicit Blas(const Context& context);
  cublasHandle_t cublas() const { return cublas_; }
  cusolverDnHandle_t cusolver() const { return cusolver_; }

 private:
  std::unique_lock<std::mutex> lock_;
  cublasHandle_t cublas_;
  cusolverDnHandle_t cusolver_;
};

/// DeviceError naming the call and its sizes if one of the libraries refused it.
template <class... Parts>
void check_blas(cublasStatus_t status, const Parts&... parts) {
  check<DeviceError>(status == CUBLAS_STATUS_SUCCESS, parts..., ": cuBLAS: ", cublasGetStatusString(status));
}
template <class... Parts>
void check_solver(cusolverStatus_t status, const Parts&... parts) {
  check<DeviceError>(status == CUSOLVER_STATUS_SUCCESS, parts..., ": cuSOLVER failed with status ", static_cast<int>(status));
}

}  // namespace cambium::kernels::cuda
