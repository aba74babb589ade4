// Matrix products through OpenBLAS, one thread per call: the alternative to the own kernels, for comparison.
#include <cblas.h>

#include <limits>

#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/one_openblas_thread.h"

namespace cambium::kernels::cpu {
namespace {

struct Operand {
  CBLAS_TRANSPOSE order;
  blasint stride;
};

/// rows x columns with the given strides as a row-major operand.
bool operand(std::int64_t rows, std::int64_t columns, std::int64_t row, std::int64_t column, Operand& to) {
  if (column == 1 && row >= columns && row <= std::numeric_limits<blasint>::max()) to = {CblasNoTrans, static_cast<blasint>(row)};
  else if (row == 1 && column >= rows && column <= std::numeric_limits<blasint>::max()) to = {CblasTrans, static_cast<blasint>(column)};
  else return false;
  return true;
}

}  // namespace

template <class T>
bool gemm_openblas(const GemmFunctions<T>& f, const GemmProblem<T>& s) {
  constexpr Storage own = sizeof(T) == 8 ? Storage::f64 : Storage::f32;
  constexpr std::int64_t most = std::numeric_limits<blasint>::max();
  Operand a, b, c;
  if (s.a.type != own || s.b.type != own || s.c.type != own || s.M > most || s.N > most || s.K > most) return false;
  if (!operand(s.M, s.K, s.a.line, s.a.k, a) || !operand(s.K, s.N, s.b.k, s.b.line, b)) return false;
  if (!operand(s.M, s.N, s.c.row, s.c.column, c) || c.order != CblasNoTrans) return false;
  const blasint M = static_cast<blasint>(s.M), N = static_cast<blasint>(s.N), K = static_cast<blasint>(s.K);
  const OneOpenblasThread one;
  for (std::int64_t item = 0; item < s.batch; ++item) {
    const T* x = static_cast<const T*>(s.a_of(item).data);
    const T* y = static_cast<const T*>(s.b_of(item).data);
    GemmTarget<T> t = s.c_of(item);
    T* z = static_cast<T*>(t.data);
    if constexpr (sizeof(T) == 8) cblas_dgemm(CblasRowMajor, a.order, b.order, M, N, K, t.alpha, x, a.stride, y, b.stride, t.beta, z, c.stride);
    else cblas_sgemm(CblasRowMajor, a.order, b.order, M, N, K, t.alpha, x, a.stride, y, b.stride, t.beta, z, c.stride);
    if (!t.bias && t.activation == GemmActivation::none) continue;
    t.alpha = T(1);
    t.beta = T(0);
    f.finish(z, s.c.row, s.M, s.N, 0, 0, t);
  }
  return true;
}

template bool gemm_openblas(const GemmFunctions<float>&, const GemmProblem<float>&);
template bool gemm_openblas(const GemmFunctions<double>&, const GemmProblem<double>&);

}  // namespace cambium::kernels::cpu
