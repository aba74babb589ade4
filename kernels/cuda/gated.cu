// Gated activations f(gate) up and their backward.
#include "kernels/choices.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"
#include "kernels/pointwise.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class Function, class T, int V>
__global__ void __launch_bounds__(kThreads) gated_kernel(T* out, const T* gate, const T* up, std::int64_t count) {
  using A = acc_t<T>;
  for (std::int64_t i = grid_thread() * V; i < count; i += grid_threads() * V) {
    const int n = count - i < V ? static_cast<int>(count - i) : V;
    const Pack<T, V> x = fetch<V>(gate + i, false, n), u = fetch<V>(up + i, false, n);
    Pack<T, V> result;
    for (int j = 0; j < V; ++j) result.element[j] = convert_to<T>(Function::template f<A>(convert_to<A>(x.element[j]), A(0), A(0)) * convert_to<A>(u.element[j]));
    put<V>(out + i, result, n);
  }
}

template <class Function, class T, int V>
__global__ void __launch_bounds__(kThreads) gated_backward_kernel(T* dgate, T* dup, const T* g, const T* gate, const T* up, std::int64_t count) {
  using A = acc_t<T>;
  for (std::int64_t i = grid_thread() * V; i < count; i += grid_threads() * V) {
    const int n = count - i < V ? static_cast<int>(count - i) : V;
    const Pack<T, V> upstream = fetch<V>(g + i, false, n), x = fetch<V>(gate + i, false, n), u = fetch<V>(up + i, false, n);
    Pack<T, V> to_gate, to_up;
    for (int j = 0; j < V; ++j) {
      const A vg = convert_to<A>(upstream.element[j]), vx = convert_to<A>(x.element[j]), value = Function::template f<A>(vx, A(0), A(0));
      // The derivative of relu is computed from its output; that of the others from the input.
      const A slope = Function::template d<A>(Function::needs == Needs::output ? value : vx, A(0), A(0));
      to_gate.element[j] = convert_to<T>(vg * convert_to<A>(u.element[j]) * slope);
      to_up.element[j] = convert_to<T>(vg * value);
    }
    if (dgate) put<V>(dgate + i, to_gate, n);
    if (dup) put<V>(dup + i, to_up, n);
  }
}

// Slices of a tensor may begin anywhere; packs need addresses that are whole multiples of theirs.
template <class T, class... Operands>
bool all_packable(const Operands&... operands) { return (packable<T>(operands.data, 0) && ...); }

}  // namespace

void gated(Context& context, UnaryFunction function, Strided out, Strided gate, Strided up) {
  const std::int64_t count = out.count();
  if (count == 0) return;
  visit_gate(function, [&](auto f) {
    visit_float(out.dtype, "gated", [&](auto tag) {
      using T = typename decltype(tag)::type;
      using Function = decltype(f);
      constexpr int V = kPack<T>;
      const cudaStream_t stream = stream_of(context);
      if (all_packable<T>(out, gate, up))
        launch(KERNEL(gated_kernel<Function, T, V>), grid_for(ceil_div<std::int64_t>(count, V), kThreads), kThreads, 0, stream, out.as<T>(), gate.as<const T>(), up.as<const T>(), count);
      else
        launch(KERNEL(gated_kernel<Function, T, 1>), grid_for(count, kThreads), kThreads, 0, stream, out.as<T>(), gate.as<const T>(), up.as<const T>(), count);
    });
  });
}

void gated_backward(Context& context, UnaryFunction function, Strided dgate, Strided dup, Strided g, Strided gate, Strided up) {
  const std::int64_t count = g.count();
  if (count == 0) return;
  visit_gate(function, [&](auto f) {
    visit_float(g.dtype, "gated_backward", [&](auto tag) {
      using T = typename decltype(tag)::type;
      using Function = decltype(f);
      constexpr int V = kPack<T>;
      const cudaStream_t stream = stream_of(context);
      if (all_packable<T>(dgate, dup, g, gate, up))  // absent operands are at 0
        launch(KERNEL(gated_backward_kernel<Function, T, V>), grid_for(ceil_div<std::int64_t>(count, V), kThreads), kThreads, 0, stream, dgate.as<T>(), dup.as<T>(), g.as<const T>(),
               gate.as<const T>(), up.as<const T>(), count);
      else
        launch(KERNEL(gated_backward_kernel<Function, T, 1>), grid_for(count, kThreads), kThreads, 0, stream, dgate.as<T>(), dup.as<T>(), g.as<const T>(), gate.as<const T>(),
               up.as<const T>(), count);
    });
  });
}

}  // namespace cambium::kernels::cuda
