// The run-time, cuBLAS and cuSOLVER as the emulator has them: right results for right calls, errors for calls that the real ones refuse or that would go wrong there.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cusolverDn.h>
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "internal.h"

namespace {

template <class T>
struct Array {
  T* data = nullptr;
  std::size_t size;
  explicit Array(std::size_t n) : size(n) { REQUIRE(cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(T)) == cudaSuccess); }
  explicit Array(const std::vector<T>& values) : Array(values.size()) { REQUIRE(cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(size);
    CHECK(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return values;
  }
};

std::vector<float> numbers(std::size_t n, float step) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = std::sin(static_cast<float>(i) * step);
  return values;
}

struct Quiet {
  bool before = kemu::settings().quiet;
  Quiet() { kemu::settings().quiet = true; }
  ~Quiet() { kemu::settings().quiet = before; }
};

bool error_says(const std::string& words) {
  const std::string text = kemu::take_error();
  INFO(text);
  CHECK(text.find(words) != std::string::npos);
  return text.find(words) != std::string::npos;
}

struct Product {  // column-major
  int m = 33, n = 17, k = 29;
  std::vector<float> a = numbers(static_cast<std::size_t>(m * k), 0.37F), b = numbers(static_cast<std::size_t>(k * n), 0.53F);
  template <class F>
  double error(const std::vector<float>& c, F rounded) const {
    double worst = 0;
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int l = 0; l < k; ++l) sum += static_cast<double>(rounded(a[static_cast<std::size_t>(l * m + i)])) * static_cast<double>(rounded(b[static_cast<std::size_t>(j * k + l)]));
        worst = std::max(worst, std::abs(sum - static_cast<double>(c[static_cast<std::size_t>(j * m + i)])));
      }
    return worst;
  }
};

}  // namespace

TEST_CASE("cuBLAS") {
  const Quiet quiet;
  cublasHandle_t h = nullptr;
  REQUIRE(cublasCreate(&h) == CUBLAS_STATUS_SUCCESS);
  const Product p;
  const Array<float> a(p.a), b(p.b), c(static_cast<std::size_t>(p.m * p.n));
  const float one = 1, zero = 0;
  const auto same = [](float v) { return v; };
  SUBCASE("products, C unread when beta is 0") {
    CHECK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, &one, a.data, p.m, b.data, p.k, &zero, c.data, p.m) == CUBLAS_STATUS_SUCCESS);
    CHECK(p.error(c.host(), same) < 1e-5);
    // beta C + alpha A' B with both kept where they are: A' as the transpose of its transpose.
    std::vector<float> turned(p.a.size());
    for (std::size_t i = 0; i < turned.size(); ++i) turned[i] = p.a[i % static_cast<std::size_t>(p.k) * static_cast<std::size_t>(p.m) + i / static_cast<std::size_t>(p.k)];
    const Array<float> at(turned);
    const float one_half = 0.5F;
    CHECK(cublasSgemm(h, CUBLAS_OP_T, CUBLAS_OP_N, p.m, p.n, p.k, &one_half, at.data, p.k, b.data, p.k, &one_half, c.data, p.m) == CUBLAS_STATUS_SUCCESS);
    CHECK(p.error(c.host(), same) < 1e-5);
  }
  SUBCASE("TF32 only when asked") {
    REQUIRE(cublasSetMathMode(h, CUBLAS_TF32_TENSOR_OP_MATH) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, &one, a.data, p.m, b.data, p.k, &zero, c.data, p.m) == CUBLAS_STATUS_SUCCESS);
    const double error = p.error(c.host(), same);
    CHECK(error > 1e-5);
    CHECK(error < 2e-2);
  }
  SUBCASE("bf16 into float32, scalars on the device") {
    const auto rounded = [](float v) { return __bfloat162float(__float2bfloat16(v)); };
    std::vector<__nv_bfloat16> ha(p.a.size()), hb(p.b.size());
    for (std::size_t i = 0; i < ha.size(); ++i) ha[i] = __float2bfloat16(p.a[i]);
    for (std::size_t i = 0; i < hb.size(); ++i) hb[i] = __float2bfloat16(p.b[i]);
    const Array<__nv_bfloat16> da(ha), db(hb);
    const Array<float> scalars(std::vector<float>{1, 0});
    REQUIRE(cublasSetPointerMode(h, CUBLAS_POINTER_MODE_DEVICE) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, scalars.data, da.data, CUDA_R_16BF, p.m, db.data, CUDA_R_16BF, p.k, scalars.data + 1, c.data, CUDA_R_32F, p.m,
                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
    CHECK(p.error(c.host(), rounded) < 1e-5);
    CHECK(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, &one, da.data, CUDA_R_16BF, p.m, db.data, CUDA_R_16BF, p.k, &zero, c.data, CUDA_R_32F, p.m, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_INVALID_VALUE);
    error_says("alpha and beta are not where the pointer mode says");
    CHECK(cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, scalars.data, da.data, CUDA_R_16BF, p.m, b.data, CUDA_R_32F, p.k, scalars.data + 1, c.data, CUDA_R_32F, p.m,
                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_NOT_SUPPORTED);
    error_says("no such combination of types");
  }
  SUBCASE("operands outside their memory") {
    CHECK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n + 1, p.k, &one, a.data, p.m, b.data, p.k, &zero, c.data, p.m) == CUBLAS_STATUS_EXECUTION_FAILED);
    error_says("operand B of 2088 bytes from its first to its last element reaches past its device allocation");
    CHECK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, &one, p.a.data(), p.m, b.data, p.k, &zero, c.data, p.m) == CUBLAS_STATUS_EXECUTION_FAILED);
    error_says("operand A of 3828 bytes from its first to its last element is not in device memory");
    CHECK(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, p.m, p.n, p.k, &one, a.data, p.m - 1, b.data, p.k, &zero, c.data, p.m) == CUBLAS_STATUS_INVALID_VALUE);
    error_says("a leading dimension below the rows of its matrix");
    CHECK(cublasSgemmStridedBatched(h, CUBLAS_OP_N, CUBLAS_OP_N, 3, 3, 3, &one, a.data, 3, 9, b.data, 3, 9, &zero, c.data, 3, 4, 2) == CUBLAS_STATUS_INVALID_VALUE);
    error_says("matrices of the batch overlap in C");
  }
  SUBCASE("a batch") {
    CHECK(cublasSgemmStridedBatched(h, CUBLAS_OP_N, CUBLAS_OP_T, 2, 3, 4, &one, a.data, 2, 8, b.data, 3, 0, &zero, c.data, 2, 6, 5) == CUBLAS_STATUS_SUCCESS);
    const std::vector<float> got = c.host();
    for (std::size_t z = 0; z < 5; ++z)
      for (std::size_t i = 0; i < 2; ++i)
        for (std::size_t j = 0; j < 3; ++j) {
          double sum = 0;
          for (std::size_t l = 0; l < 4; ++l) sum += static_cast<double>(p.a[z * 8 + l * 2 + i]) * static_cast<double>(p.b[l * 3 + j]);
          CHECK(static_cast<double>(got[z * 6 + j * 2 + i]) == doctest::Approx(sum).epsilon(1e-5));
        }
  }
  CHECK(kemu::take_error().empty());
  cublasDestroy(h);
}

TEST_CASE("cuSOLVER") {
  const Quiet quiet;
  cusolverDnHandle_t h = nullptr;
  REQUIRE(cusolverDnCreate(&h) == CUSOLVER_STATUS_SUCCESS);
  constexpr int m = 20, n = 8;
  const std::vector<float> values = numbers(m * n, 0.71F);
  const Array<float> a(values), s(n), u(m * n), vt(n * n), tau(n);
  const Array<int> info(1);
  int words = 0;
  const auto product_error = [&](auto term) {
    double worst = 0;
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; ++j) worst = std::max(worst, std::abs(term(i, j) - static_cast<double>(values[j * m + i])));
    return worst;
  };
  SUBCASE("singular values") {
    CHECK(cusolverDnSgesvd_bufferSize(h, 4, 9, &words) == CUSOLVER_STATUS_INVALID_VALUE);
    error_says("m has to be at least n, they are 4 and 9");
    REQUIRE(cusolverDnSgesvd_bufferSize(h, m, n, &words) == CUSOLVER_STATUS_SUCCESS);
    const Array<float> work(static_cast<std::size_t>(words));
    CHECK(cusolverDnSgesvd(h, 'S', 'S', m, n, a.data, m, s.data, u.data, m, vt.data, n, work.data, words - 1, nullptr, info.data) == CUSOLVER_STATUS_INVALID_VALUE);
    error_says("_bufferSize says");
    CHECK(cusolverDnSgesvd(h, 'A', 'S', m, n, a.data, m, s.data, u.data, m, vt.data, n, work.data, words, nullptr, info.data) == CUSOLVER_STATUS_EXECUTION_FAILED);
    error_says("operand U");
    REQUIRE(cusolverDnSgesvd(h, 'S', 'S', m, n, a.data, m, s.data, u.data, m, vt.data, n, work.data, words, nullptr, info.data) == CUSOLVER_STATUS_SUCCESS);
    const auto hs = s.host(), hu = u.host(), hv = vt.host();
    CHECK(info.host()[0] == 0);
    CHECK(product_error([&](std::size_t i, std::size_t j) {
            double sum = 0;
            for (std::size_t t = 0; t < n; ++t) sum += static_cast<double>(hu[t * m + i]) * static_cast<double>(hs[t]) * static_cast<double>(hv[j * n + t]);
            return sum;
          }) < 1e-5);
  }
  SUBCASE("QR") {
    REQUIRE(cusolverDnSgeqrf_bufferSize(h, m, n, a.data, m, &words) == CUSOLVER_STATUS_SUCCESS);
    const Array<float> work(static_cast<std::size_t>(words));
    REQUIRE(cusolverDnSgeqrf(h, m, n, a.data, m, tau.data, work.data, words, info.data) == CUSOLVER_STATUS_SUCCESS);
    const auto r = a.host();
    REQUIRE(cusolverDnSorgqr(h, m, n, n, a.data, m, tau.data, work.data, words, info.data) == CUSOLVER_STATUS_SUCCESS);
    const auto q = a.host();
    CHECK(product_error([&](std::size_t i, std::size_t j) {
            double sum = 0;
            for (std::size_t t = 0; t <= j; ++t) sum += static_cast<double>(q[t * m + i]) * static_cast<double>(r[j * m + t]);
            return sum;
          }) < 1e-5);
    CHECK(cusolverDnSorgqr(h, n, m, n, a.data, m, tau.data, work.data, words, info.data) == CUSOLVER_STATUS_INVALID_VALUE);
    error_says("m >= n >= k");
  }
  SUBCASE("eigenvalues of (2, 1; 1, 2)") {
    const Array<double> x(std::vector<double>{2, 1, 1, 2}), w(2);
    REQUIRE(cusolverDnDsyevd_bufferSize(h, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 2, x.data, 2, w.data, &words) == CUSOLVER_STATUS_SUCCESS);
    const Array<double> work(static_cast<std::size_t>(words));
    REQUIRE(cusolverDnDsyevd(h, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 2, x.data, 2, w.data, work.data, words, info.data) == CUSOLVER_STATUS_SUCCESS);
    CHECK(w.host()[0] == doctest::Approx(1));
    CHECK(w.host()[1] == doctest::Approx(3));
  }
  CHECK(kemu::take_error().empty());
  cusolverDnDestroy(h);
}

TEST_CASE("copies are counted, and refused where they cannot be right") {
  const Quiet quiet;
  const Array<float> x(std::vector<float>(10, 1.0F)), y(10);
  std::vector<float> host(10);
  const kemu::Counters before = kemu::counters();
  CHECK(cudaMemcpy(host.data(), x.data, 40, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(cudaMemcpy(y.data, x.data, 40, cudaMemcpyDefault) == cudaSuccess);
  CHECK(cudaMemcpy(x.data, host.data(), 20, cudaMemcpyHostToDevice) == cudaSuccess);
  const kemu::Counters& after = kemu::counters();
  CHECK(after.device_to_host - before.device_to_host == 1);
  CHECK(after.device_to_host_bytes - before.device_to_host_bytes == 40);
  CHECK(after.device_to_device - before.device_to_device == 1);
  CHECK(after.host_to_device_bytes - before.host_to_device_bytes == 20);
  CHECK(after.live_allocations == before.live_allocations);
  CHECK(cudaMemcpy(host.data(), x.data, 40, cudaMemcpyHostToDevice) != cudaSuccess);
  error_says("a pointer is not on the side that the direction says");
  CHECK(cudaMemcpy(y.data, x.data, 44, cudaMemcpyDeviceToDevice) != cudaSuccess);
  error_says("44 bytes reach past the end of the device allocation");
  CHECK(cudaMemset(y.data + 5, 0, 24) != cudaSuccess);
  error_says("not inside one device allocation");
}

TEST_CASE("several devices") {
  const Quiet quiet;
  int n = 0;
  REQUIRE(cudaGetDeviceCount(&n) == cudaSuccess);
  REQUIRE(n == 2);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  const Array<float> x(std::vector<float>(10, 3.0F));
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  {
    const Array<float> y(10);
    CHECK(cudaMemcpyPeer(y.data, 1, x.data, 0, 40) == cudaSuccess);
    CHECK(y.host()[9] == 3);
    CHECK(cudaMemcpyPeer(y.data, 0, x.data, 1, 40) != cudaSuccess);
    error_says("not inside an allocation of the device that is named for it");
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, x.data) == cudaSuccess);
    CHECK(attributes.device == 0);
  }
  void* large = nullptr;
  CHECK(cudaMalloc(&large, std::size_t{1} << 50) == cudaErrorMemoryAllocation);
  CHECK(kemu::last_error().empty());  // callers try again
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
}

TEST_CASE("events and the default stream") {
  cudaEvent_t from, to;
  REQUIRE(cudaEventCreate(&from) == cudaSuccess);
  REQUIRE(cudaEventCreate(&to) == cudaSuccess);
  cudaStream_t blocking, other;
  REQUIRE(cudaStreamCreate(&blocking) == cudaSuccess);
  REQUIRE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
  const Array<int> x(std::vector<int>{1});
  int value = 0;
  REQUIRE(cudaEventRecord(from, blocking) == cudaSuccess);
  CHECK(cudaMemsetAsync(x.data, 0, 4, blocking) == cudaSuccess);
  CHECK(cudaMemcpy(&value, x.data, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(value == 0);  // the default stream waited for the other
  CHECK(cudaMemsetAsync(x.data, 0xFF, 4, other) == cudaSuccess);
  CHECK(cudaMemcpy(&value, x.data, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(value == 0);  // but not for this one
  REQUIRE(cudaEventRecord(to, other) == cudaSuccess);
  CHECK(cudaEventQuery(to) == cudaErrorNotReady);
  CHECK(cudaEventSynchronize(to) == cudaSuccess);
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, from, to) == cudaSuccess);
  CHECK(milliseconds >= 0);
  CHECK(cudaMemcpy(&value, x.data, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(value == -1);
  cudaStreamDestroy(other);
  cudaStreamDestroy(blocking);
  cudaEventDestroy(from);
  cudaEventDestroy(to);
}
