// The end of a matrix product: scale, old C, bias, activation, conversion, store; and the table of the family.
#include "kernels/cpu/isa/gemm_set.h"
#include "kernels/cpu/isa/lanes.h"
#include "kernels/cpu/isa/math.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

inline vf activate(vf x, GemmActivation f) {
  switch (f) {
    case GemmActivation::relu: return vrelu(x);
    case GemmActivation::gelu_tanh: return vgelu_tanh(x);
    case GemmActivation::gelu_erf: return vgelu_erf(x);
    case GemmActivation::silu: return vsilu(x);
    default: return x;
  }
}

double activate(double x, GemmActivation f) {
  switch (f) {
    case GemmActivation::relu: return x <= 0 ? 0 : x;
    case GemmActivation::gelu_tanh: return 0.5 * x * (1 + __builtin_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case GemmActivation::gelu_erf: return 0.5 * x * (1 + __builtin_erf(x * 0.7071067811865476));
    case GemmActivation::silu: return x / (1 + __builtin_exp(-x));
    default: return x;
  }
}
inline vd activate(vd x, GemmActivation f) {
  if (f == GemmActivation::none) return x;
  for (int i = 0; i < kDoubleLanes; ++i) x[i] = activate(x[i], f);
  return x;
}

template <class S, class V>
inline V load_strided(const S* p, int64_t stride, int n) {
  if (stride == 1) return load_partial(p, n);
  V x{};
  for (int i = 0; i < n; ++i) x[i] = value_of(p[i * stride]);
  return x;
}

template <class T, class S>
void finish_rows(const T* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<T>& t) {
  using V = typename Compute<T>::Vector;
  constexpr int L = Compute<T>::kLanes;
  const V alpha = set(t.alpha), beta = set(t.beta);
  for (int64_t i = 0; i < rows; ++i) {
    S* out = static_cast<S*>(t.data) + (row + i) * t.row + column * t.column;
    for (int64_t j = 0; j < columns; j += L) {
      const int n = columns - j < L ? static_cast<int>(columns - j) : L;
      S* at = out + j * t.column;
      V x = alpha * load_partial(sums + i * stride + j, n);
      if (t.beta != T(0)) x = fma(beta, load_strided<S, V>(at, t.column, n), x);
      if (t.bias) x = x + (t.bias_by_row ? set(t.bias[row + i]) : load_partial(t.bias + column + j, n));
      x = activate(x, t.activation);
      if (t.column == 1) {
        store_partial(at, x, n);
      } else {
        for (int l = 0; l < n; ++l) put(at + l * t.column, x[l]);
      }
    }
  }
}

/// Rows of C contiguous: as they are. Columns contiguous: squares are transposed, so that the stores are vectors all the same.
template <class T, class S>
void finish_as(const T* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<T>& t) {
  using V = typename Compute<T>::Vector;
  constexpr int L = Compute<T>::kLanes;
  if (t.row != 1 || t.column == 1) return finish_rows<T, S>(sums, stride, rows, columns, row, column, t);
  GemmTarget<T> turned = t;
  turned.row = t.column;
  turned.column = 1;
  turned.bias_by_row = !t.bias_by_row;
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < columns; j += L) {
      const int high = rows - i < L ? static_cast<int>(rows - i) : L, wide = columns - j < L ? static_cast<int>(columns - j) : L;
      V v[L];
      for (int l = 0; l < L; ++l) v[l] = l < high ? load_partial(sums + (i + l) * stride + j, wide) : V{};
      transpose<L>(v);
      alignas(64) T square[L * L];
      for (int l = 0; l < L; ++l) store(square + l * L, v[l]);
      finish_rows<T, S>(square, L, wide, high, column + j, row + i, turned);
    }
}

}  // namespace

void finish(const float* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<float>& t) {
  if (t.type == Storage::f32) finish_as<float, float>(sums, stride, rows, columns, row, column, t);
  else if (t.type == Storage::bf16) finish_as<float, bf16>(sums, stride, rows, columns, row, column, t);
  else finish_as<float, f16>(sums, stride, rows, columns, row, column, t);
}
void finish(const double* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<double>& t) {
  finish_as<double, double>(sums, stride, rows, columns, row, column, t);
}

namespace {
#if defined(__AVX512F__)
constexpr int kChains = 24;
#else
constexpr int kChains = 12;  // there are 16 registers
#endif
double probe(int64_t rounds, float* sink) {
  vf sums[kChains];
  CAMBIUM_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = set(static_cast<float>(i) * *sink);
  const vf x = set(0.999F + *sink), y = set(*sink);
  for (int64_t r = 0; r < rounds; ++r) {
    CAMBIUM_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = fma(sums[i], x, y);
  }
  CAMBIUM_UNROLL
  for (int i = 0; i < kChains; ++i) *sink += sum(sums[i]);
  return 2.0 * kLanes * kChains * static_cast<double>(rounds);
}
}  // namespace

extern const GemmTable gemm_table;
constinit const GemmTable gemm_table = {
    .single = {Tile<float>::kRows, Tile<float>::kColumns, pack_rows, pack_columns, block, finish, gather},
    .twice = {Tile<double>::kRows, Tile<double>::kColumns, pack_rows, pack_columns, block, finish, gather},
    .dot = dot,
    .accumulate = accumulate,
    .probe = probe,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
