// A function applied to the elements of operands whose rows are dense or repeat one element, 16 bytes at a time.
#pragma once

#include <algorithm>

#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

inline constexpr int kMapThreads = 256;

/// How rows are cut into packs. Operand k repeats its element along rows if bit k of `repeated` is set. `elements` is the length of a single row, whose last
/// pack may be short; 0 where there are several, which hold whole packs.
struct RowCut {
  std::uint32_t elements = 0;
  unsigned repeated = 0;

  template <int V>
  __device__ __forceinline__ int pack_size(std::uint32_t pack) const {
    const std::uint32_t left = elements - pack * V;
    return elements != 0 && left < V ? static_cast<int>(left) : V;
  }
};

/// Turns merged operands into operands of packs of `pack` elements, if that is possible; the first one is written.
template <std::size_t N>
bool cut_rows(std::array<Strided, N>& operands, std::int64_t pack, RowCut& cut) {
  const int rank = operands[0].rank, last = rank - 1;
  const std::int64_t length = operands[0].shape[last];
  if (rank > 1 && length % pack != 0) return false;
  for (std::size_t k = 0; k < N; ++k) {
    const Strided& s = operands[k];
    if (s.strides[last] == 0 && k > 0 && length > 1) {
      cut.repeated |= 1U << k;
      continue;
    }
    if ((s.strides[last] != 1 && length > 1) || reinterpret_cast<std::uintptr_t>(s.data) % static_cast<std::uintptr_t>(pack * item_size(s.dtype)) != 0) return false;
    for (int i = 0; i < last; ++i)
      if (s.strides[i] % pack != 0) return false;
  }
  for (std::size_t k = 0; k < N; ++k) {
    operands[k].shape[last] = ceil_div(length, pack);
    if (((cut.repeated >> k) & 1U) == 0) operands[k].strides[last] = pack;
  }
  cut.elements = rank == 1 ? static_cast<std::uint32_t>(length) : 0;
  return true;
}

/// `count` of V elements; `repeated`: all of them are the one at p.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> fetch(const T* p, bool repeated, int count) {
  Pack<T, V> pack;
  if (repeated) {
    const T one = *p;
    for (int j = 0; j < V; ++j) pack.element[j] = one;
  } else if (count == V) {
    pack = load_pack<V>(p);
  } else {
    for (int j = 0; j < V; ++j) pack.element[j] = p[j < count ? j : 0];
  }
  return pack;
}
template <int V, class T>
__device__ __forceinline__ void put(T* p, const Pack<T, V>& pack, int count) {
  if (count == V) store_pack<V>(p, pack);
  else for (int j = 0; j < count; ++j) p[j] = pack.element[j];
}

template <int V, class F, class Out, class A>
__global__ void __launch_bounds__(kMapThreads) map1_kernel(Layout<2> layout, RowCut cut, F f, Out* out, const A* a) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[2];
    layout.locate(i, at);
    const int count = cut.pack_size<V>(i);
    const Pack<A, V> x = fetch<V>(a + at[1], (cut.repeated & 2U) != 0, count);
    Pack<Out, V> result;
    for (int j = 0; j < V; ++j) result.element[j] = f(x.element[j]);
    put<V>(out + at[0], result, count);
  }
}

template <int V, class F, class Out, class A, class B>
__global__ void __launch_bounds__(kMapThreads) map2_kernel(Layout<3> layout, RowCut cut, F f, Out* out, const A* a, const B* b) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    const int count = cut.pack_size<V>(i);
    const Pack<A, V> x = fetch<V>(a + at[1], (cut.repeated & 2U) != 0, count);
    const Pack<B, V> y = fetch<V>(b + at[2], (cut.repeated & 4U) != 0, count);
    Pack<Out, V> result;
    for (int j = 0; j < V; ++j) result.element[j] = f(x.element[j], y.element[j]);
    put<V>(out + at[0], result, count);
  }
}

template <int V, class F, class Out, class A, class B, class C>
__global__ void __launch_bounds__(kMapThreads) map3_kernel(Layout<4> layout, RowCut cut, F f, Out* out, const A* a, const B* b, const C* c) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[4];
    layout.locate(i, at);
    const int count = cut.pack_size<V>(i);
    const Pack<A, V> x = fetch<V>(a + at[1], (cut.repeated & 2U) != 0, count);
    const Pack<B, V> y = fetch<V>(b + at[2], (cut.repeated & 4U) != 0, count);
    const Pack<C, V> z = fetch<V>(c + at[3], (cut.repeated & 8U) != 0, count);
    Pack<Out, V> result;
    for (int j = 0; j < V; ++j) result.element[j] = f(x.element[j], y.element[j], z.element[j]);
    put<V>(out + at[0], result, count);
  }
}

// out = f(a, …) for a part from for_each_part() whose operands have the element types named. False, and nothing done, where its rows cannot be read in packs.
template <class Out, class A, class F>
bool map_part(const Context& context, F f, std::array<Strided, 2> part) {
  constexpr int V = 16 / static_cast<int>(std::max(sizeof(Out), sizeof(A)));
  RowCut cut;
  if (!cut_rows(part, V, cut)) return false;
  const Layout<2> layout(part);
  launch(KERNEL(map1_kernel<V, F, Out, A>), grid_for(layout.count, kMapThreads), kMapThreads, 0, stream_of(context), layout, cut, f, part[0].as<Out>(), part[1].as<A>());
  return true;
}
template <class Out, class A, class B, class F>
bool map_part(const Context& context, F f, std::array<Strided, 3> part) {
  constexpr int V = 16 / static_cast<int>(std::max({sizeof(Out), sizeof(A), sizeof(B)}));
  RowCut cut;
  if (!cut_rows(part, V, cut)) return false;
  const Layout<3> layout(part);
  launch(KERNEL(map2_kernel<V, F, Out, A, B>), grid_for(layout.count, kMapThreads), kMapThreads, 0, stream_of(context), layout, cut, f, part[0].as<Out>(), part[1].as<A>(),
         part[2].as<B>());
  return true;
}
template <class Out, class A, class B, class C, class F>
bool map_part(const Context& context, F f, std::array<Strided, 4> part) {
  constexpr int V = 16 / static_cast<int>(std::max({sizeof(Out), sizeof(A), sizeof(B), sizeof(C)}));
  RowCut cut;
  if (!cut_rows(part, V, cut)) return false;
  const Layout<4> layout(part);
  launch(KERNEL(map3_kernel<V, F, Out, A, B, C>), grid_for(layout.count, kMapThreads), kMapThreads, 0, stream_of(context), layout, cut, f, part[0].as<Out>(), part[1].as<A>(),
         part[2].as<B>(), part[3].as<C>());
  return true;
}

}  // namespace cambium::kernels::cuda
