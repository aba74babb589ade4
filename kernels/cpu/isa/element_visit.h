// From an Element to the storage type of this instruction set.
#pragma once

#include "kernels/cpu/isa/element.h"
#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

template <class T> struct PointeeOf;
template <class T> struct PointeeOf<T*> { using type = T; };
template <class P> using Pointee = typename PointeeOf<P>::type;

/// Calls `f` with a null pointer to the storage type.
template <class F>
inline void visit_element(Element element, F f) {
  switch (element) {
    case Element::f32: return f(static_cast<float*>(nullptr));
    case Element::bf16: return f(static_cast<bf16*>(nullptr));
    case Element::f16: return f(static_cast<f16*>(nullptr));
  }
}

/// Row `i` of a matrix with a stride in elements.
template <class T> inline const T* row_at(const void* base, int64_t offset) { return static_cast<const T*>(base) + offset; }
template <class T> inline T* row_at(void* base, int64_t offset) { return static_cast<T*>(base) + offset; }

/// Copies n values to floats, times `factor`, and fills up to `padded` with zeros.
template <class T>
inline void load_row(float* to, const T* from, int64_t n, int64_t padded, float factor) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i) * factor);
  if (i < n) {
    const vf x = load_partial(from + i, static_cast<int>(n - i)) * factor;
    if (padded >= i + kLanes) store(to + i, x), i += kLanes;
    else store_partial(to + i, x, static_cast<int>(n - i)), i = n;
  }
  for (; i < padded; ++i) to[i] = 0.0F;
}

/// to[i] = from[i] * factor.
template <class T>
inline void store_row(T* to, const float* from, int64_t n, float factor) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i) * factor);
  if (i < n) store_partial(to + i, load_partial(from + i, static_cast<int>(n - i)) * factor, static_cast<int>(n - i));
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
