// Entries of the matrix product: packing, the packed block, the two skinny products, and the end of each (scale, bias, activation, store).
#pragma once

#include <stdint.h>

namespace cambium::kernels::cpu {

enum class Storage : uint8_t { f32, bf16, f16, f64 };
enum class GemmActivation : uint8_t { none, relu, gelu_tanh, gelu_erf, silu };

/// A matrix seen from the side of its long vectors: `line` walks over rows of A or columns of B, `k` along the inner dimension.
struct GemmSource {
  const void* data;
  Storage type;
  int64_t line, k;  ///< strides in elements
};

/// Where sums go: C = activation(alpha sums + beta C + bias). T is the type of the sums, float or double.
template <class T>
struct GemmTarget {
  void* data;
  Storage type;
  int64_t row, column;  ///< strides in elements
  T alpha, beta;
  const T* bias;        ///< one per column, or per row if bias_by_row; or null
  bool bias_by_row;
  GemmActivation activation;
};

/// One range of K of a block of C. Rows come in panels of base or base + 1 rows, the first `extra` panels having one more.
template <class T>
struct GemmBlock {
  const T* a;                  ///< panel i of the range at a + (i - first_panel) * panel_rows * k, element (row, k) at k * panel_rows + row
  const T* b;                  ///< panel j at j * panel_columns * k, element (k, column) at k * width + column
  int64_t k;
  int64_t first_panel, last_panel, base, extra;
  int64_t first_column, columns;
  T* partial;                  ///< sums between ranges of K: element (row - first row of the range, column) ; or null: C itself
  int64_t partial_stride;
  bool first, last;            ///< range of K
};

template <class T>
struct GemmFunctions {
  int panel_rows, panel_columns;
  /// Packs `lines` lines of k elements in panels: `base + 1` lines in the first `extra` ones, `base` in the others, each panel taking
  /// width * k elements. With base == width and extra == 0 these are panels of B: the last one is narrower and filled up with zeros.
  void (*pack_rows)(T* to, const GemmSource&, int64_t panels, int64_t base, int64_t extra, int64_t k);
  void (*pack_columns)(T* to, const GemmSource&, int64_t lines, int64_t k);
  void (*block)(const GemmBlock<T>&, const GemmTarget<T>&);
  /// Ends `rows` x `columns` sums at (row, column) of C. Sums are scaled by alpha here.
  void (*finish)(const T* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<T>&);
  /// Converts lines into dense float lines of k elements, `stride` apart.
  void (*gather)(T* to, int64_t stride, const GemmSource&, int64_t lines, int64_t k);
};

struct GemmTable {
  GemmFunctions<float> single;
  GemmFunctions<double> twice;
  /// sums[i * row + j * column] = sum over k of p[i, k] q[j, k] for few i; p is dense along k with `p_stride`, q has k stride 1.
  void (*dot)(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k);
  /// sums[i * row + j] = sum over k of p[i, k] q[j, k] for at most 4 i; q has line stride 1.
  void (*accumulate)(float* sums, int64_t row, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k);
  /// Arithmetic peak: `rounds` rounds of 12 or more independent multiply-adds in registers; returns their number of operations.
  double (*probe)(int64_t rounds, float* sink);
};

}  // namespace cambium::kernels::cpu
