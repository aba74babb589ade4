// The register tile of the matrix product and the loop over the tiles of one packed block.
#include "kernels/cpu/isa/gemm_set.h"
#include "kernels/cpu/isa/lanes.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

/// c (rows, columns) = alpha a b + beta c; c is not read where beta is 0. Each sum runs over k in order.
template <class T, int Rows, int Vectors>
void tile(int64_t k, const T* a, const T* b, T* c, int64_t stride, T alpha, T beta) {
  using V = typename Compute<T>::Vector;
  constexpr int L = Compute<T>::kLanes;
  V sums[Rows][Vectors];
  CAMBIUM_UNROLL
  for (int i = 0; i < Rows; ++i) {
    CAMBIUM_UNROLL
    for (int j = 0; j < Vectors; ++j) sums[i][j] = V{};
  }
  for (; k > 0; --k) {
    V x[Vectors];
    CAMBIUM_UNROLL
    for (int j = 0; j < Vectors; ++j) x[j] = load(b + j * L);
    CAMBIUM_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const V y = set(a[i]);
      CAMBIUM_UNROLL
      for (int j = 0; j < Vectors; ++j) sums[i][j] = fma(y, x[j], sums[i][j]);
    }
    a += Tile<T>::kRows;
    b += Vectors * L;
  }
  const V scale = set(alpha);
  if (beta == T(0)) {
    CAMBIUM_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CAMBIUM_UNROLL
      for (int j = 0; j < Vectors; ++j) store(c + i * stride + j * L, scale * sums[i][j]);
    }
  } else {
    const V keep = set(beta);
    CAMBIUM_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CAMBIUM_UNROLL
      for (int j = 0; j < Vectors; ++j) {
        T* at = c + i * stride + j * L;
        store(at, fma(keep, load(at), scale * sums[i][j]));
      }
    }
  }
}

template <class T> using TileFunction = void (*)(int64_t, const T*, const T*, T*, int64_t, T, T);

/// tile<T, rows, vectors> for rows up to those of the set.
template <class T, int Vectors, int... I>
constexpr TileFunction<T> tile_of(int64_t rows, Indices<I...>) {
  constexpr TileFunction<T> all[] = {tile<T, I + 1, Vectors>...};
  return all[rows - 1];
}
template <class T>
TileFunction<T> tile_for(int64_t rows, bool wide) {
  using All = typename MakeIndices<Tile<T>::kRows>::type;
  return wide ? tile_of<T, 2>(rows, All{}) : tile_of<T, 1>(rows, All{});
}

template <class T> inline constexpr Storage kStorage = Storage::f32;
template <> inline constexpr Storage kStorage<double> = Storage::f64;

template <class T>
void block_of(const GemmBlock<T>& s, const GemmTarget<T>& target) {
  constexpr int L = Compute<T>::kLanes, full = Tile<T>::kColumns, tall = Tile<T>::kRows;
  alignas(64) T scratch[tall * full];
  const bool direct = target.type == kStorage<T> && target.column == 1 && !target.bias && target.activation == GemmActivation::none;
  GemmTarget<T> here = target;
  if (direct && !s.first) here.beta = T(1);
  const auto start = [&](int64_t panel) { return panel * s.base + (panel < s.extra ? panel : s.extra); };
  const int64_t top = start(s.first_panel);
  for (int64_t p = s.first_panel; p < s.last_panel; ++p) {
    const int64_t row = start(p), rows = s.base + (p < s.extra);
    const T* a = s.a + (p - s.first_panel) * tall * s.k;
    const TileFunction<T> wide = tile_for<T>(rows, true), narrow = tile_for<T>(rows, false);
    for (int64_t c = 0; c < s.columns; c += full) {
      const int64_t columns = s.columns - c < full ? s.columns - c : full;
      const TileFunction<T> f = columns > L ? wide : narrow;
      const T* b = s.b + c * s.k;
      const int64_t column = s.first_column + c;
      if (direct) {
        T* at = static_cast<T*>(target.data) + row * target.row + column;
        if (columns == full || columns == L) {
          f(s.k, a, b, at, target.row, here.alpha, here.beta);
        } else {
          f(s.k, a, b, scratch, full, T(1), T(0));
          finish(scratch, full, rows, columns, row, column, here);
        }
      } else if (s.first && s.last) {
        f(s.k, a, b, scratch, full, T(1), T(0));
        finish(scratch, full, rows, columns, row, column, target);
      } else {
        T* at = s.partial + (row - top) * s.partial_stride + c;  // its lines are whole vectors
        f(s.k, a, b, at, s.partial_stride, T(1), s.first ? T(0) : T(1));
        if (s.last) finish(at, s.partial_stride, rows, columns, row, column, target);
      }
    }
  }
}

}  // namespace

void block(const GemmBlock<float>& s, const GemmTarget<float>& target) { block_of(s, target); }
void block(const GemmBlock<double>& s, const GemmTarget<double>& target) { block_of(s, target); }

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
