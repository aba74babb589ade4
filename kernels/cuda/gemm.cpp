// Matrix products: layouts and types that cuBLAS takes as they are, copies of what it does not, and the choice of the skinny kernels.
#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

std::atomic<int> tf32_choice{-1};  // not asked for yet

bool tf32_from_environment() {
  const char* text = std::getenv("CAMBIUM_CUDA_TF32");
  const std::string_view value = text != nullptr ? text : "0";
  check<ConfigError>(value == "0" || value == "1", "CAMBIUM_CUDA_TF32: expected 0 or 1, found ", value);
  return value == "1";
}

MatrixOperand operand_of(const Strided& s) { return {s.data, s.dtype, s.stride(-2), s.stride(-1), s.rank > 2 ? s.strides[0] : 0}; }

/// Strides of a side of size 1 mean nothing: those of a dense matrix then.
void tidy(std::int64_t rows, std::int64_t columns, MatrixOperand& x) {
  if (rows <= 1 && columns <= 1) x.row = x.column = 1;
  else if (rows <= 1) x.row = x.column == 1 ? columns : 1;
  else if (columns <= 1) x.column = x.row == 1 ? rows : 1;
}

MatrixProduct product_of(const Strided& c, const Strided& a, const Strided& b, const GemmOptions& o) {
  MatrixProduct p{};
  p.batch = c.rank > 2 ? c.shape[0] : 1;
  p.M = c.size(-2);
  p.N = c.size(-1);
  p.K = a.size(-1);
  p.a = operand_of(a);
  p.b = operand_of(b);
  p.c = operand_of(c);
  p.alpha = o.alpha;
  p.beta = o.beta;
  if (o.bias) p.bias = o.bias.data, p.bias_dtype = o.bias.dtype, p.bias_stride = o.bias.strides[0];
  p.activation = o.activation;
  // A batch that shares B is one taller product.
  if (p.batch > 1 && p.b.item == 0 && (p.M == 1 || (p.a.item == p.M * p.a.row && p.c.item == p.M * p.c.row))) {
    if (p.M == 1) p.a.row = p.a.item, p.c.row = p.c.item;
    p.M *= p.batch;
    p.batch = 1;
  }
  tidy(p.M, p.K, p.a);
  tidy(p.K, p.N, p.b);
  tidy(p.M, p.N, p.c);
  if (p.batch == 1) p.a.item = p.b.item = p.c.item = 0;
  return p;
}

/// A dense copy of an operand in another type; one item if the batch shares it.
class DenseCopy {
 public:
  DenseCopy(Context& context, MatrixOperand& x, std::int64_t batch, std::int64_t rows, std::int64_t columns, DType dtype)
      : bytes_(context, (x.item == 0 ? 1 : batch) * rows * columns * item_size(dtype)) {
    const std::int64_t items = x.item == 0 ? 1 : batch;
    Strided from{const_cast<void*>(x.data), x.dtype, 3, {items, rows, columns}, {x.item, x.row, x.column}};
    Strided to{bytes_.data(), dtype, 3, {items, rows, columns}, {rows * columns, columns, 1}};
    copy(context, to, from);
    x = {bytes_.data(), dtype, columns, 1, x.item == 0 ? 0 : rows * columns};
    tidy(rows, columns, x);
  }

 private:
  Scratch<std::byte> bytes_;
};

constexpr std::int64_t kMost = std::numeric_limits<int>::max();

/// Whether cuBLAS can read a matrix as it lies: dense along one side, the other stride no less than that side.
bool lies_well(const MatrixOperand& x, std::int64_t rows, std::int64_t columns) {
  return (x.column == 1 && x.row >= columns && x.row <= kMost) || (x.row == 1 && x.column >= rows && x.column <= kMost);
}

struct BlasOperand {
  cublasOperation_t operation;
  int leading;
};
/// What a matrix is to cuBLAS, which counts down columns: one that is dense along its rows is its transpose.
BlasOperand column_major(const MatrixOperand& x, std::int64_t rows) {
  if (x.row == 1 && x.column >= rows) return {CUBLAS_OP_N, static_cast<int>(x.column)};
  return {CUBLAS_OP_T, static_cast<int>(x.row)};
}

cudaDataType_t blas_type(DType dtype) {
  return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::bf16 ? CUDA_R_16BF : dtype == DType::f16 ? CUDA_R_16F : CUDA_R_32F;
}

/// C = alpha A B + beta C for operands of one type that lie well; C is that type or float32, dense along its rows or its columns.
void run_cublas(Context& context, MatrixProduct p) {
  check<ShapeError>(p.M <= kMost && p.N <= kMost && p.K <= kMost && p.batch <= kMost, "gemm: cuda: expected sizes below 2^31, found ", p.batch, " x ", p.M, " x ", p.N, " x ", p.K);
  if (p.c.row != 1 || p.c.column < p.M) p.turn();  // C dense along its rows: cuBLAS makes its transpose
  const BlasOperand a = column_major(p.a, p.M), b = column_major(p.b, p.K);
  const bool twice = p.c.dtype == DType::f64;
  const float alpha = static_cast<float>(p.alpha), beta = static_cast<float>(p.beta);
  const void *alpha_at = twice ? static_cast<const void*>(&p.alpha) : &alpha, *beta_at = twice ? static_cast<const void*>(&p.beta) : &beta;
  const cublasComputeType_t compute = twice ? CUBLAS_COMPUTE_64F : p.a.dtype == DType::f32 && tf32() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  const int M = static_cast<int>(p.M), N = static_cast<int>(p.N), K = static_cast<int>(p.K), batch = static_cast<int>(p.batch), ldc = static_cast<int>(p.c.column);
  void* c = const_cast<void*>(p.c.data);
  const Blas blas(context);
  const cublasStatus_t status =
      batch == 1 ? cublasGemmEx(blas.cublas(), a.operation, b.operation, M, N, K, alpha_at, p.a.data, blas_type(p.a.dtype), a.leading, p.b.data, blas_type(p.b.dtype), b.leading, beta_at, c,
                                blas_type(p.c.dtype), ldc, compute, CUBLAS_GEMM_DEFAULT)
                 : cublasGemmStridedBatchedEx(blas.cublas(), a.operation, b.operation, M, N, K, alpha_at, p.a.data, blas_type(p.a.dtype), a.leading, p.a.item, p.b.data, blas_type(p.b.dtype), b.leading,
                                              p.b.item, beta_at, c, blas_type(p.c.dtype), ldc, p.c.item, batch, compute, CUBLAS_GEMM_DEFAULT);
  check_blas(status, "gemm: ", p.a.dtype, " x ", p.b.dtype, " -> ", p.c.dtype, " of ", batch, " x ", M, " x ", N, " x ", K, " on ", context.device);
}

void run_general(Context& context, MatrixProduct p) {
  // cuBLAS multiplies operands of one type only.
  const DType common = p.c.dtype == DType::f64 ? DType::f64 : p.a.dtype == p.b.dtype ? p.a.dtype : DType::f32;
  std::optional<DenseCopy> a, b;
  if (p.a.dtype != common || !lies_well(p.a, p.M, p.K)) a.emplace(context, p.a, p.batch, p.M, p.K, common);
  if (p.b.dtype != common || !lies_well(p.b, p.K, p.N)) b.emplace(context, p.b, p.batch, p.K, p.N, common);
  const bool accumulates = p.c.dtype == DType::f32 || p.c.dtype == DType::f64, laid = lies_well(p.c, p.M, p.N);
  if (laid && (accumulates || (p.c.dtype == common && p.plain()))) {
    run_cublas(context, p);
    if (p.plain()) return;
    p.alpha = 0, p.beta = 1;
    return finish_product(context, p, nullptr, 0);
  }
  // Rounded once: the sums stay in float32 until bias and activation are done.
  const std::int64_t count = p.batch * p.M * p.N;
  const DType sum_type = p.c.dtype == DType::f64 ? DType::f64 : DType::f32;
  const Scratch<std::byte> sums(context, count * item_size(sum_type));
  MatrixProduct inner = p;
  inner.c = {sums.data(), sum_type, p.N, 1, p.batch > 1 ? p.M * p.N : 0};
  tidy(p.M, p.N, inner.c);
  inner.alpha = 1, inner.beta = 0, inner.bias = nullptr, inner.activation = MatrixActivation::none;
  run_cublas(context, inner);
  finish_product(context, p, sums.data(), 1);
}

}  // namespace

bool tf32() {
  int choice = tf32_choice.load(std::memory_order_relaxed);
  if (choice < 0) tf32_choice.store(choice = tf32_from_environment() ? 1 : 0, std::memory_order_relaxed);
  return choice == 1;
}
void set_tf32(bool value) { tf32_choice.store(value ? 1 : 0, std::memory_order_relaxed); }

void gemm(Context& context, Strided c, Strided a, const Weight& weight, const GemmOptions& o) {
  check<DeviceError>(weight.format == Weight::Format::dense, "gemm: a weight packed for the CPU cannot be used on ", context.device, ": move its module there with to(device)");
  assert(c.size(-2) == a.size(-2));
  MatrixProduct p = product_of(c, a, weight.dense, o);
  if (p.batch == 0 || p.M == 0 || p.N == 0) return;
  if (p.K == 0) return finish_product(context, p, nullptr, 0);
  if (p.c.dtype != DType::f64) {
    // Short sums: cuBLAS would fill up tiles of 16 terms and more with zeros, and has no mixed types. Few columns of mixed types: it would need a converted copy of
    // the large operand; of equal types it cuts the sums well itself.
    if (p.K <= kSkinny) {
      if (p.c.row == 1 && p.c.column != 1) p.turn();
      return multiply_short_sums(context, p);
    }
    if (std::min(p.M, p.N) <= kSkinny && p.a.dtype != p.b.dtype) {
      if (p.N > kSkinny || p.M < p.N) p.turn();
      return multiply_few_columns(context, p);
    }
  }
  run_general(context, p);
}

}  // namespace cambium::kernels::cuda
