// What a kernel sees of a tensor: pointer, element type, sizes and strides; trivially copyable, so that CUDA takes it by value.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "kernels/dtype.h"

namespace cambium::kernels {

inline constexpr int kMaxRank = 8;

struct Strided {
  void* data = nullptr;  ///< first element; nullptr: operand absent
  DType dtype = DType::f32;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};  ///< in elements; 0 where broadcast

  explicit operator bool() const { return data != nullptr; }
  template <class T> T* as() const { return static_cast<T*>(data); }
  std::int64_t count() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  std::int64_t size(int i) const { return shape[i < 0 ? i + rank : i]; }
  std::int64_t stride(int i) const { return strides[i < 0 ? i + rank : i]; }
  bool contiguous() const {
    std::int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && strides[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
};

/// Merges neighbouring dimensions that are laid out alike in all of `n` operands of equal shape, and drops those of size 1.
/// At most kMaxRank dimensions stay, usually one or two; a scalar becomes one dimension of size 1.
inline void collapse(Strided* const* operands, int n) {
  Strided& first = *operands[0];
  int kept = 0;
  for (int i = 0; i < first.rank; ++i) {
    if (first.shape[i] == 1) continue;
    bool joins = kept > 0;
    for (int k = 0; joins && k < n; ++k) {
      const Strided& s = *operands[k];
      joins = s.strides[kept - 1] == s.strides[i] * s.shape[i];
    }
    for (int k = 0; k < n; ++k) {
      Strided& s = *operands[k];
      int to = joins ? kept - 1 : kept;
      s.shape[to] = joins ? s.shape[to] * s.shape[i] : s.shape[i];
      s.strides[to] = s.strides[i];
    }
    if (!joins) ++kept;
  }
  for (int k = 0; k < n; ++k) {
    Strided& s = *operands[k];
    if (kept == 0) { s.shape[0] = 1; s.strides[0] = 1; }
    s.rank = kept == 0 ? 1 : kept;
  }
}

/// Sorts dimensions so that the first operand's strides descend (then the others'): a transposed output is written in memory order.
inline void order_dimensions(Strided* const* operands, int n) {
  const int rank = operands[0]->rank;
  auto before = [&](int i, int j) {  // does i belong outside of j?
    for (int k = 0; k < n; ++k) {
      const std::int64_t a = std::abs(operands[k]->strides[i]), b = std::abs(operands[k]->strides[j]);
      if (a != b) return a > b;
    }
    return false;
  };
  for (int i = 1; i < rank; ++i) {
    for (int j = i; j > 0 && before(j, j - 1); --j) {
      for (int k = 0; k < n; ++k) {
        std::swap(operands[k]->shape[j], operands[k]->shape[j - 1]);
        std::swap(operands[k]->strides[j], operands[k]->strides[j - 1]);
      }
    }
  }
}

/// Offset in elements of the element with the given row-major number.
inline std::int64_t offset_of(const Strided& s, std::int64_t linear) {
  std::int64_t offset = 0;
  for (int i = s.rank - 1; i >= 0; --i) {
    offset += linear % s.shape[i] * s.strides[i];
    linear /= s.shape[i];
  }
  return offset;
}

}  // namespace cambium::kernels
