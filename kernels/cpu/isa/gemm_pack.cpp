// Packing of the operands of a matrix product into panels, from any strides and any float type.
#include "kernels/cpu/isa/gemm_set.h"
#include "kernels/cpu/isa/lanes.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

/// One panel: element (line, k) goes to to[k * width + line]. With `zeros` the lines up to the width are written as 0.
template <class T, class S>
void pack_panel(T* to, int width, bool zeros, const S* x, int64_t line_stride, int64_t k_stride, int lines, int64_t k_count) {
  using V = typename Compute<T>::Vector;
  constexpr int L = Compute<T>::kLanes;
  const int written = zeros ? width : lines;
  if (line_stride == 1) {
    for (int64_t k = 0; k < k_count; ++k)
      for (int i = 0; i < written; i += L) {
        const int have = lines - i < L ? (lines - i < 0 ? 0 : lines - i) : L, put_lanes = written - i < L ? written - i : L;
        const V v = have == L ? load(x + k * k_stride + i) : load_partial(x + k * k_stride + i, have);
        __builtin_prefetch(x + (k + 16) * k_stride + i);  // far strides are beyond what the machine foresees
        if (put_lanes == L) store(to + k * width + i, v);
        else store_partial(to + k * width + i, v, put_lanes);
      }
    return;
  }
  if (k_stride == 1) {
    for (int i = 0; i < written; i += L) {
      const int have = lines - i < L ? (lines - i < 0 ? 0 : lines - i) : L, put_lanes = written - i < L ? written - i : L;
      for (int64_t k = 0; k < k_count; k += L) {
        const int length = k_count - k < L ? static_cast<int>(k_count - k) : L;
        V v[L];
        if (have == L && length == L) {
          CAMBIUM_UNROLL
          for (int j = 0; j < L; ++j) {
            const S* at = x + (i + j) * line_stride + k;
            v[j] = load(at);
            __builtin_prefetch(at + 256 / sizeof(S));
          }
        } else {
          for (int j = 0; j < L; ++j) v[j] = j < have ? load_partial(x + (i + j) * line_stride + k, length) : V{};
        }
        transpose<L>(v);
        T* out = to + k * width + i;
        if (put_lanes == L && length == L) {
          CAMBIUM_UNROLL
          for (int j = 0; j < L; ++j) store(out + j * width, v[j]);
        } else {
          for (int j = 0; j < length; ++j) store_partial(out + j * width, v[j], put_lanes);
        }
      }
    }
    return;
  }
  for (int64_t k = 0; k < k_count; ++k)
    for (int i = 0; i < written; ++i) to[k * width + i] = i < lines ? value_of(x[i * line_stride + k * k_stride]) : T(0);
}

template <class T, class S>
void pack_rows_from(T* to, const GemmSource& s, int64_t panels, int64_t base, int64_t extra, int64_t k) {
  const S* x = static_cast<const S*>(s.data);
  constexpr int width = Tile<T>::kRows;
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t rows = base + (p < extra);
    pack_panel(to + p * width * k, width, false, x, s.line, s.k, static_cast<int>(rows), k);
    x += rows * s.line;
  }
}

template <class T, class S>
void pack_columns_from(T* to, const GemmSource& s, int64_t lines, int64_t k) {
  const S* x = static_cast<const S*>(s.data);
  constexpr int full = Tile<T>::kColumns, L = Compute<T>::kLanes;
  for (int64_t at = 0; at < lines; at += full) {
    const int have = lines - at < full ? static_cast<int>(lines - at) : full;
    const int width = (have + L - 1) / L * L;
    pack_panel(to + at * k, width, true, x + at * s.line, s.line, s.k, have, k);
  }
}

template <class T, class S>
void gather_from(T* to, int64_t stride, const GemmSource& s, int64_t lines, int64_t k) {
  using V = typename Compute<T>::Vector;
  constexpr int L = Compute<T>::kLanes;
  const S* x = static_cast<const S*>(s.data);
  if (s.k == 1) {
    for (int64_t i = 0; i < lines; ++i)
      for (int64_t j = 0; j < k; j += L) {
        const int n = k - j < L ? static_cast<int>(k - j) : L;
        store_partial(to + i * stride + j, load_partial(x + i * s.line + j, n), n);
      }
    return;
  }
  if (s.line == 1) {
    for (int64_t i = 0; i < lines; i += L)
      for (int64_t j = 0; j < k; j += L) {
        const int have = lines - i < L ? static_cast<int>(lines - i) : L, n = k - j < L ? static_cast<int>(k - j) : L;
        V v[L];
        for (int m = 0; m < L; ++m) v[m] = m < n ? load_partial(x + i + (j + m) * s.k, have) : V{};
        transpose<L>(v);
        for (int m = 0; m < have; ++m) store_partial(to + (i + m) * stride + j, v[m], n);
      }
    return;
  }
  for (int64_t i = 0; i < lines; ++i)
    for (int64_t j = 0; j < k; ++j) to[i * stride + j] = value_of(x[i * s.line + j * s.k]);
}

}  // namespace

void pack_rows(float* to, const GemmSource& s, int64_t panels, int64_t base, int64_t extra, int64_t k) {
  if (s.type == Storage::f32) pack_rows_from<float, float>(to, s, panels, base, extra, k);
  else if (s.type == Storage::bf16) pack_rows_from<float, bf16>(to, s, panels, base, extra, k);
  else pack_rows_from<float, f16>(to, s, panels, base, extra, k);
}
void pack_rows(double* to, const GemmSource& s, int64_t panels, int64_t base, int64_t extra, int64_t k) {
  pack_rows_from<double, double>(to, s, panels, base, extra, k);
}
void pack_columns(float* to, const GemmSource& s, int64_t lines, int64_t k) {
  if (s.type == Storage::f32) pack_columns_from<float, float>(to, s, lines, k);
  else if (s.type == Storage::bf16) pack_columns_from<float, bf16>(to, s, lines, k);
  else pack_columns_from<float, f16>(to, s, lines, k);
}
void pack_columns(double* to, const GemmSource& s, int64_t lines, int64_t k) { pack_columns_from<double, double>(to, s, lines, k); }
void gather(float* to, int64_t stride, const GemmSource& s, int64_t lines, int64_t k) {
  if (s.type == Storage::f32) gather_from<float, float>(to, stride, s, lines, k);
  else if (s.type == Storage::bf16) gather_from<float, bf16>(to, stride, s, lines, k);
  else gather_from<float, f16>(to, stride, s, lines, k);
}
void gather(double* to, int64_t stride, const GemmSource& s, int64_t lines, int64_t k) { gather_from<double, double>(to, stride, s, lines, k); }

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
