// Steps of AdamW and SGD over many tensors at once.
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"
#include "kernels/cuda/multi.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int V = 4;  // elements that a thread takes at once

enum Operand { kParameter, kGradient, kState1, kState2, kOperands };

template <class S>
struct AdamWStep {
  S decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step, root_scale, epsilon;
  __device__ void operator()(S& parameter, S gradient, S& first, S& second) const {
    parameter *= decay;
    first = beta1 * first + one_minus_beta1 * gradient;
    second = beta2 * second + one_minus_beta2 * gradient * gradient;
    parameter -= step * first / (std::sqrt(second) * root_scale + epsilon);
  }
};

template <class S>
struct SgdStep {
  S learning_rate, momentum, one_minus_dampening, weight_decay;
  bool nesterov, first_step;
  __device__ void operator()(S& parameter, S gradient, S& buffer, S&) const {
    gradient += weight_decay * parameter;
    if (momentum != S(0)) {
      buffer = first_step ? gradient : momentum * buffer + one_minus_dampening * gradient;
      gradient = nesterov ? gradient + momentum * buffer : buffer;
    }
    parameter -= learning_rate * gradient;
  }
};

// States that are absent have no data and are neither read nor written.
template <class T>
__device__ __forceinline__ Pack<T, V> fetch_state(const T* p, std::int64_t i, int n, bool aligned) {
  Pack<T, V> pack;
  if (p && aligned) return fetch<V>(p + i, false, n);
  for (int j = 0; j < V; ++j) pack.element[j] = p ? p[i + (j < n ? j : 0)] : T();
  return pack;
}
template <class T>
__device__ __forceinline__ void put_state(T* p, std::int64_t i, const Pack<T, V>& pack, int n, bool aligned) {
  if (p && aligned) put<V>(p + i, pack, n);
  else for (int j = 0; p && j < n; ++j) p[i + j] = pack.element[j];
}
template <class... T>
__device__ __forceinline__ bool all_aligned(const T*... p) { return ((reinterpret_cast<std::uintptr_t>(p) % (V * sizeof(T)) == 0) && ...); }

template <class Step, class P, class G>
__global__ void __launch_bounds__(kListThreads) optimizer_kernel(TensorList<kOperands> list, Step step) {
  using S = acc_t<P>;
  for (std::uint32_t chunk = blockIdx.x; chunk < list.chunks; chunk += gridDim.x) {
    const int k = list.find(chunk);
    P* parameter = static_cast<P*>(list.operands[k][kParameter]);
    const G* gradient = static_cast<const G*>(list.operands[k][kGradient]);
    S *state1 = static_cast<S*>(list.operands[k][kState1]), *state2 = static_cast<S*>(list.operands[k][kState2]);
    const bool aligned = all_aligned(parameter, gradient, state1, state2);
    const std::int64_t begin = (chunk - list.first_chunk[k]) * kChunk, end = begin + kChunk < list.counts[k] ? begin + kChunk : list.counts[k];
    for (std::int64_t i = begin + threadIdx.x * V; i < end; i += kListThreads * V) {
      const int n = end - i < V ? static_cast<int>(end - i) : V;
      Pack<P, V> p = fetch_state<P>(parameter, i, n, aligned);
      const Pack<G, V> g = fetch_state<G>(gradient, i, n, aligned);
      Pack<S, V> s1 = fetch_state<S>(state1, i, n, aligned), s2 = fetch_state<S>(state2, i, n, aligned);
      for (int j = 0; j < V; ++j) {
        S value = convert_to<S>(p.element[j]);
        step(value, convert_to<S>(g.element[j]), s1.element[j], s2.element[j]);
        p.element[j] = convert_to<P>(value);
      }
      put_state(parameter, i, p, n, aligned);
      put_state(state1, i, s1, n, aligned);
      put_state(state2, i, s2, n, aligned);
    }
  }
}

// One launch, or a few, for all tensors of a pair of types.
template <class Make>
void step_all(Context& context, const OptimizerTensor* tensors, int n, const char* what, Make&& make_step) {
  const auto run = [&]<class P, class G>(TypeTag<P>, TypeTag<G>) {
    const auto takes = [&](int k) { return tensors[k].parameter.dtype == dtype_of<P> && (tensors[k].gradient.dtype == tensors[k].parameter.dtype ? dtype_of<P> : DType::f32) == dtype_of<G>; };
    const auto operand = [&](int k, int i) {
      const OptimizerTensor& t = tensors[k];
      return i == kParameter ? t.parameter : i == kGradient ? t.gradient : i == kState1 ? t.state1 : t.state2;
    };
    for_each_list<kOperands>(n, takes, operand, [&](const TensorList<kOperands>& list) {
      const auto step = make_step(TypeTag<acc_t<P>>{});
      launch(KERNEL(optimizer_kernel<decltype(make_step(TypeTag<acc_t<P>>{})), P, G>), grid_for(list.chunks, 1), kListThreads, 0, stream_of(context), list, step);
    });
  };
  for (int k = 0; k < n; ++k)
    check<DTypeError>(is_float(tensors[k].parameter.dtype) && (tensors[k].gradient.dtype == tensors[k].parameter.dtype || tensors[k].gradient.dtype == DType::f32), what,
                      ": expected a floating parameter with gradients of its type or float32, found ", tensors[k].parameter.dtype, " and ", tensors[k].gradient.dtype);
  const auto both = [&]<class P>(TypeTag<P> parameter) {
    run(parameter, parameter);
    if constexpr (!std::is_same_v<P, float>) run(parameter, TypeTag<float>{});
  };
  both(TypeTag<double>{});
  both(TypeTag<float>{});
  both(TypeTag<bfloat16>{});
  both(TypeTag<float16>{});
}

}  // namespace

// Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, with epsilon outside of the corrected root.
void adamw(Context& context, const OptimizerTensor* tensors, int n, const AdamWOptions& o) {
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(o.step)), correction2 = std::sqrt(1 - std::pow(o.beta2, static_cast<double>(o.step)));
  step_all(context, tensors, n, "adamw", [&]<class S>(TypeTag<S>) {
    return AdamWStep<S>{static_cast<S>(1 - o.learning_rate * o.weight_decay), static_cast<S>(o.beta1), static_cast<S>(1 - o.beta1), static_cast<S>(o.beta2),
                        static_cast<S>(1 - o.beta2), static_cast<S>(o.learning_rate / correction1), static_cast<S>(1 / correction2), static_cast<S>(o.epsilon)};
  });
}

void sgd(Context& context, const OptimizerTensor* tensors, int n, const SgdOptions& o) {
  step_all(context, tensors, n, "sgd", [&]<class S>(TypeTag<S>) {
    return SgdStep<S>{static_cast<S>(o.learning_rate), static_cast<S>(o.momentum), static_cast<S>(1 - o.dampening), static_cast<S>(o.weight_decay), o.nesterov, o.first_step};
  });
}

}  // namespace cambium::kernels::cuda
