// One matrix product as its routes see it, and the routes: cuBLAS, few columns or a short sum, the end of a product. Internal to the CUDA backend.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/kernels.h"

namespace cambium::kernels::cuda {

/// Whether float32 products round their inputs to TF32 (10 bits of mantissa) for the tensor cores. Off unless the environment variable
/// CAMBIUM_CUDA_TF32 is 1; ConfigError for a value other than 0 and 1.
bool tf32();
void set_tf32(bool value);

struct MatrixOperand {
  const void* data;
  DType dtype;
  std::int64_t row, column, item;  ///< strides in elements; item: between products of a batch
};

/// C (batch, M, N) = activation(alpha A B + beta C + bias); passed to kernels by value.
struct MatrixProduct {
  std::int64_t batch, M, N, K;
  MatrixOperand a, b, c;
  double alpha, beta;
  const void* bias;  ///< null: absent
  DType bias_dtype;
  std::int64_t bias_stride;
  bool bias_by_row;  ///< one value for a row instead of a column
  MatrixActivation activation;

  bool plain() const { return bias == nullptr && activation == MatrixActivation::none; }
  /// The same product seen as Cᵀ = Bᵀ Aᵀ.
  void turn() {
    std::swap(M, N);
    std::swap(a, b);
    for (MatrixOperand* x : {&a, &b, &c}) std::swap(x->row, x->column);
    bias_by_row = !bias_by_row;
  }
};

/// C = activation(alpha (sums[0] + sums[1] + …) + beta C + bias). `sums` holds `planes` dense (batch, M, N) in the product's accumulation type; null: zeros.
void finish_product(Context&, const MatrixProduct&, const void* sums, int planes);

inline constexpr std::int64_t kSkinny = 32;  ///< most columns, or terms of a sum, that the skinny kernels take
/// N <= kSkinny, any types but f64. The sums are cut by shape and added in order.
void multiply_few_columns(Context&, const MatrixProduct&);
/// K <= kSkinny, any types but f64.
void multiply_short_sums(Context&, const MatrixProduct&);

}  // namespace cambium::kernels::cuda
