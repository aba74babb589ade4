// The cuBLAS functions the project calls, on OpenBLAS. Work is queued on the handle's stream as a kernel would be; operands, types and sizes are checked as
// the documentation of cublas<t>gemm, cublasGemmEx and cublasGemmStridedBatchedEx has it.
#include "blas.h"

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <type_traits>
#include <vector>

extern "C" {
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*, const double*, const int*, const double*, double*, const int*);
}

struct cublasContext {
  int device = 0;
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};

namespace kemu {

namespace {

std::size_t size_of(cudaDataType t) { return t == CUDA_R_64F ? 8 : t == CUDA_R_32F ? 4 : 2; }
bool is_half(cudaDataType t) { return t == CUDA_R_16F || t == CUDA_R_16BF; }

// As tensor cores see a float32: 10 bits behind the point.
float tf32(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  return (bits & 0x7F800000U) == 0x7F800000U ? v : std::bit_cast<float>((bits + 0x1000U) & 0xFFFFE000U);
}

double load(const void* p, cudaDataType t, std::size_t i) {
  switch (t) {
    case CUDA_R_64F: return static_cast<const double*>(p)[i];
    case CUDA_R_32F: return static_cast<double>(static_cast<const float*>(p)[i]);
    case CUDA_R_16F: return static_cast<double>(__half2float(static_cast<const __half*>(p)[i]));
    default: return static_cast<double>(__bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]));
  }
}
void store(void* p, cudaDataType t, std::size_t i, double v) {
  switch (t) {
    case CUDA_R_64F: static_cast<double*>(p)[i] = v; break;
    case CUDA_R_32F: static_cast<float*>(p)[i] = static_cast<float>(v); break;
    case CUDA_R_16F: static_cast<__half*>(p)[i] = __float2half(static_cast<float>(v)); break;
    default: static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16(static_cast<float>(v));
  }
}

struct Matrix {
  void* data;
  cudaDataType type;
  std::int64_t leading, stride;
};

struct Product {
  const char* call;
  cublasOperation_t transpose_a, transpose_b;
  int m, n, k, batch;
  const void* alpha;
  const void* beta;
  Matrix a, b, c;
  bool wide;  // alpha and beta are double
  bool round;  // float32 operands to TF32
};

/// C = alpha op(A) op(B) + beta C. C is not read if beta is 0, A and B are not read if alpha is. Sums of every type are made in double: what cuBLAS's own order is nobody knows, and
/// results do not depend on which machine the emulator runs on.
void multiply(const Product& p, double alpha, double beta) {
  const bool swap_a = p.transpose_a != CUBLAS_OP_N, swap_b = p.transpose_b != CUBLAS_OP_N;
  const int rows_a = swap_a ? p.k : p.m, columns_a = swap_a ? p.m : p.k, rows_b = swap_b ? p.n : p.k, columns_b = swap_b ? p.k : p.n;
  const auto count = [](int r, int c) { return static_cast<std::size_t>(r) * static_cast<std::size_t>(c); };
  std::vector<double> a(count(rows_a, columns_a)), b(count(rows_b, columns_b)), sums(count(p.m, p.n));
  const auto take = [&](std::vector<double>& to, const Matrix& x, int rows, int columns, std::int64_t item) {
    for (int j = 0; j < columns; ++j)
      for (int i = 0; i < rows; ++i) {
        const double v = load(x.data, x.type, static_cast<std::size_t>(item * x.stride + j * x.leading + i));
        to[count(j, rows) + static_cast<std::size_t>(i)] = p.round ? static_cast<double>(tf32(static_cast<float>(v))) : v;
      }
  };
  for (std::int64_t item = 0; item < p.batch; ++item) {
    std::fill(sums.begin(), sums.end(), 0.0);
    if (alpha != 0 && p.k > 0) {
      take(a, p.a, rows_a, columns_a, item);
      take(b, p.b, rows_b, columns_b, item);
      const char ta = swap_a ? 'T' : 'N', tb = swap_b ? 'T' : 'N';
      const double zero = 0;
      dgemm_(&ta, &tb, &p.m, &p.n, &p.k, &alpha, a.data(), &rows_a, b.data(), &rows_b, &zero, sums.data(), &p.m);
    }
    for (int j = 0; j < p.n; ++j)
      for (int i = 0; i < p.m; ++i) {
        const auto at = static_cast<std::size_t>(item * p.c.stride + j * p.c.leading + i);
        const double before = beta == 0 ? 0 : beta * load(p.c.data, p.c.type, at);
        store(p.c.data, p.c.type, at, sums[count(j, p.m) + static_cast<std::size_t>(i)] + before);
      }
  }
}

cublasStatus_t run(cublasContext* handle, Product p) {
  const Lock lock;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const auto wrong = [&](const std::string& why) { return set_error(cudaErrorInvalidValue, std::string(p.call) + ": " + why), CUBLAS_STATUS_INVALID_VALUE; };
  const int rows_a = p.transpose_a == CUBLAS_OP_N ? p.m : p.k, rows_b = p.transpose_b == CUBLAS_OP_N ? p.k : p.n;
  const int columns_a = p.m + p.k - rows_a, columns_b = p.n + p.k - rows_b;
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0) return wrong("a negative size");
  if (p.a.leading < std::max(1, rows_a) || p.b.leading < std::max(1, rows_b) || p.c.leading < std::max(1, p.m)) return wrong("a leading dimension below the rows of its matrix");
  if (handle->device != current_device()) return wrong("the handle belongs to device " + std::to_string(handle->device) + ", " + std::to_string(current_device()) + " is selected");
  if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
  if (p.a.stride < 0 || p.b.stride < 0 || (p.batch > 1 && p.c.stride < static_cast<std::int64_t>(extent(p.m, p.n, p.c.leading))))
    return wrong("matrices of the batch overlap in C, or a stride is negative");
  const auto span = [&](const Matrix& x, int rows, int columns) { return rows == 0 || columns == 0 ? 0 : static_cast<std::size_t>((p.batch - 1) * x.stride) + extent(rows, columns, x.leading); };
  if (!operand_fits(p.call, "A", handle->device, p.a.data, span(p.a, rows_a, columns_a), size_of(p.a.type)) ||
      !operand_fits(p.call, "B", handle->device, p.b.data, span(p.b, rows_b, columns_b), size_of(p.b.type)) ||
      !operand_fits(p.call, "C", handle->device, p.c.data, span(p.c, p.m, p.n), size_of(p.c.type)))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  const bool on_device = handle->pointers == CUBLAS_POINTER_MODE_DEVICE;
  for (const void* scalar : {p.alpha, p.beta}) {
    if (scalar == nullptr || (device_of(scalar, p.wide ? 8 : 4) >= 0) != on_device) return wrong("alpha and beta are not where the pointer mode says");
  }
  ++mutable_counters().library_calls;
  const auto scalar = [wide = p.wide](const void* x) { return wide ? *static_cast<const double*>(x) : static_cast<double>(*static_cast<const float*>(x)); };
  const double alpha = on_device ? 0 : scalar(p.alpha), beta = on_device ? 0 : scalar(p.beta);
  enqueue(handle->stream, [=] {
    const DeviceVisible visible;
    const double a = on_device ? scalar(p.alpha) : alpha, b = on_device ? scalar(p.beta) : beta;
    multiply(p, a, b);
  });
  return CUBLAS_STATUS_SUCCESS;
}

/// The rows of the table of cublasGemmEx that are here: sums in float32 of bf16, f16 (C the same or float32) or float32, sums in float64 of float64.
bool in_table(cudaDataType a, cudaDataType b, cudaDataType c, cublasComputeType_t compute) {
  switch (compute) {
    case CUBLAS_COMPUTE_32F: case CUBLAS_COMPUTE_32F_PEDANTIC: return a == b && ((is_half(a) && (c == a || c == CUDA_R_32F)) || (a == CUDA_R_32F && c == CUDA_R_32F));
    case CUBLAS_COMPUTE_32F_FAST_TF32: return a == CUDA_R_32F && b == CUDA_R_32F && c == CUDA_R_32F;
    case CUBLAS_COMPUTE_64F: case CUBLAS_COMPUTE_64F_PEDANTIC: return a == CUDA_R_64F && b == CUDA_R_64F && c == CUDA_R_64F;
    default: return false;
  }
}

bool rounds(const cublasContext* h, cudaDataType a, cublasComputeType_t compute) {
  // The mode is a number below 16 and flags above it.
  const bool mode = h != nullptr && (h->math & 15) == CUBLAS_TF32_TENSOR_OP_MATH;
  return a == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F_FAST_TF32 || (compute == CUBLAS_COMPUTE_32F && mode));
}

cublasStatus_t run_ex(const char* call, cublasContext* h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void* alpha, Matrix a, Matrix b, const void* beta,
                      Matrix c, int batch, cublasComputeType_t compute) {
  if (!in_table(a.type, b.type, c.type, compute)) {
    set_error(cudaErrorInvalidValue, std::string(call) + ": cuBLAS has no such combination of types (or the emulator does not know it)");
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return run(h, {call, ta, tb, m, n, k, batch, alpha, beta, a, b, c, a.type == CUDA_R_64F, rounds(h, a.type, compute)});
}

Matrix matrix(const void* p, cudaDataType type, int leading, long long stride) { return {const_cast<void*>(p), type, leading, stride}; }

template <class T>
cublasStatus_t run_plain(const char* call, cublasContext* h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const T* alpha, const T* a, int lda, long long stride_a,
                         const T* b, int ldb, long long stride_b, const T* beta, T* c, int ldc, long long stride_c, int batch) {
  constexpr cudaDataType type = std::is_same_v<T, double> ? CUDA_R_64F : CUDA_R_32F;
  return run_ex(call, h, ta, tb, m, n, k, alpha, matrix(a, type, lda, stride_a), matrix(b, type, ldb, stride_b), beta, matrix(c, type, ldc, stride_c), batch,
                std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F);
}

}  // namespace

}  // namespace kemu

using namespace kemu;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  *h = new cublasContext;
  (*h)->device = current_device();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) { return delete h, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  const Lock lock;
  if (device_of_stream(s) != h->device) return set_error(cudaErrorInvalidResourceHandle, "cublasSetStream: not a stream of the handle's device"), CUBLAS_STATUS_INVALID_VALUE;
  return h->stream = s, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t* s) { return *s = h->stream, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode) { return h->math = mode, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* mode) { return *mode = h->math, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t mode) { return h->pointers = mode, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t* mode) { return *mode = h->pointers, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void* p, std::size_t bytes) {
  const Lock lock;
  return operand_fits("cublasSetWorkspace", "workspace", h->device, p, bytes, 1) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) { return *version = CUBLAS_VERSION, CUBLAS_STATUS_SUCCESS; }
const char* cublasGetStatusName(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    default: return "another status of cuBLAS";
  }
}
const char* cublasGetStatusString(cublasStatus_t s) {
  static thread_local std::string text;
  text = s == CUBLAS_STATUS_SUCCESS ? "success" : last_error();
  return text.c_str();
}

#define KEMU_GEMM(letter, type)                                                                                                                                             \
  cublasStatus_t cublas##letter##gemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const type* alpha, const type* a, int lda,      \
                                         const type* b, int ldb, const type* beta, type* c, int ldc) {                                                                      \
    return run_plain<type>("cublas" #letter "gemm", h, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);                                                   \
  }                                                                                                                                                                         \
  cublasStatus_t cublas##letter##gemmStridedBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const type* alpha, const type* a,    \
                                                    int lda, long long stride_a, const type* b, int ldb, long long stride_b, const type* beta, type* c, int ldc,            \
                                                    long long stride_c, int batch) {                                                                                        \
    return run_plain<type>("cublas" #letter "gemmStridedBatched", h, ta, tb, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batch);            \
  }
KEMU_GEMM(S, float)
KEMU_GEMM(D, double)
#undef KEMU_GEMM

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a, int lda,
                            const void* b, cudaDataType type_b, int ldb, const void* beta, void* c, cudaDataType type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
  return run_ex("cublasGemmEx", h, ta, tb, m, n, k, alpha, matrix(a, type_a, lda, 0), matrix(b, type_b, ldb, 0), beta, matrix(c, type_c, ldc, 0), 1, compute);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a,
                                          int lda, long long stride_a, const void* b, cudaDataType type_b, int ldb, long long stride_b, const void* beta, void* c,
                                          cudaDataType type_c, int ldc, long long stride_c, int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
  return run_ex("cublasGemmStridedBatchedEx", h, ta, tb, m, n, k, alpha, matrix(a, type_a, lda, stride_a), matrix(b, type_b, ldb, stride_b), beta,
                matrix(c, type_c, ldc, stride_c), batch, compute);
}
}
