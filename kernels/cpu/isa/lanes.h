// Moves between lanes of vectors: transposition of a square of vectors, and all their sums at once.
#pragma once

#include "kernels/cpu/isa/simd.h"

#if defined(__clang__)
#define CAMBIUM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define CAMBIUM_UNROLL _Pragma("GCC unroll 32")
#endif

namespace cambium::kernels::cpu::CAMBIUM_ISA {

template <int... I> struct Indices {};
template <int N, int... I> struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I> struct MakeIndices<0, I...> { using type = Indices<I...>; };

/// The even (High = false) or odd blocks of `D` lanes of a and b, interleaved: one step of a transposition.
template <int D, bool High, int L, class V, int... J>
inline V interleave(V a, V b, Indices<J...>) {
  return __builtin_shufflevector(a, b, (High ? ((J & D) ? L + J : J + D) : ((J & D) ? L + J - D : J))...);
}

template <class V, class S> inline constexpr int kLanesOf = static_cast<int>(sizeof(V) / sizeof(S));

template <int D, int L, class V>
inline void transpose_step(V* x) {
  using All = typename MakeIndices<L>::type;
  CAMBIUM_UNROLL
  for (int i = 0; i < L; ++i) {
    if (i & D) continue;
    const V a = x[i], b = x[i + D];
    x[i] = interleave<D, false, L>(a, b, All{});
    x[i + D] = interleave<D, true, L>(a, b, All{});
  }
  if constexpr (D > 1) transpose_step<D / 2, L>(x);
}

/// L vectors of L lanes, in place.
template <int L, class V>
inline void transpose(V* x) { transpose_step<L / 2, L>(x); }

/// Lane i of the result is the sum of the lanes of x[i]; the tree of each is the same.
template <int D, int L, class V>
inline V sums_step(V* x) {
  using All = typename MakeIndices<L>::type;
  CAMBIUM_UNROLL
  for (int i = 0; i < D; ++i) x[i] = interleave<D, false, L>(x[i], x[i + D], All{}) + interleave<D, true, L>(x[i], x[i + D], All{});
  if constexpr (D > 1) return sums_step<D / 2, L>(x);
  else return x[0];
}
template <int L, class V>
inline V sums_of(V* x) { return sums_step<L / 2, L>(x); }

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
