// Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#include "kernels/cuda/block.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kPairs = 32, kHeads = 8;  // of a block: each line of threads takes every eighth head

struct RotaryPlan {
  std::int64_t positions, T, H, D, pairs;  // positions: B T
  std::int64_t out_strides[4], x_strides[4], position_strides[2], frequency_stride;
  double scale;
  bool interleaved, inverse;
};

// A block takes 32 pairs of all heads at one position, so that an angle is computed once for all heads.
template <class E>
__global__ void __launch_bounds__(kPairs * kHeads) rotary_kernel(RotaryPlan plan, E* out, const E* x, const std::int64_t* positions, const float* frequencies) {
  using A = acc_t<E>;
  KSHARED(cosines, float[kPairs]);
  KSHARED(sines, float[kPairs]);
  const std::int64_t lane = threadIdx.x % kPairs, line = threadIdx.x / kPairs;
  const std::int64_t rest = plan.D - 2 * plan.pairs, columns = plan.pairs > rest ? plan.pairs : rest, blocks = (columns + kPairs - 1) / kPairs;
  for (std::int64_t item = blockIdx.x; item < plan.positions * blocks; item += gridDim.x) {
    const std::int64_t j = item % blocks * kPairs + lane, place = item / blocks, b = place / plan.T, t = place % plan.T;
    if (line == 0 && j < plan.pairs) {
      const double angle = static_cast<double>(positions[b * plan.position_strides[0] + t * plan.position_strides[1]]) * static_cast<double>(frequencies[j * plan.frequency_stride]);
      double sine, cosine;
      sincos(angle, &sine, &cosine);
      cosines[lane] = static_cast<float>(cosine * plan.scale);
      sines[lane] = static_cast<float>((plan.inverse ? -sine : sine) * plan.scale);
    }
    __syncthreads();
    const std::int64_t first = plan.interleaved ? 2 * j : j, second = plan.interleaved ? 2 * j + 1 : j + plan.pairs;
    for (std::int64_t h = line; h < plan.H; h += kHeads) {
      const E* from = x + b * plan.x_strides[0] + t * plan.x_strides[1] + h * plan.x_strides[2];
      E* to = out + b * plan.out_strides[0] + t * plan.out_strides[1] + h * plan.out_strides[2];
      if (j < plan.pairs) {
        const A a = load(from + first * plan.x_strides[3]), c = load(from + second * plan.x_strides[3]), cosine = static_cast<A>(cosines[lane]), sine = static_cast<A>(sines[lane]);
        store(to + first * plan.out_strides[3], a * cosine - c * sine);
        store(to + second * plan.out_strides[3], c * cosine + a * sine);
      }
      const std::int64_t d = 2 * plan.pairs + j;  // what is not rotated
      if (d < plan.D && to != from) to[d * plan.out_strides[3]] = from[d * plan.x_strides[3]];
    }
    __syncthreads();
  }
}

}  // namespace

void rotary(Context& context, Strided out, Strided x, Strided positions, Strided frequencies, double scale, bool interleaved, bool inverse) {
  if (x.count() == 0) return;
  RotaryPlan plan{x.shape[0] * x.shape[1], x.shape[1], x.shape[2], x.shape[3], frequencies.shape[0], {}, {}, {}, frequencies.strides[0], scale, interleaved, inverse};
  for (int i = 0; i < 4; ++i) {
    plan.out_strides[i] = out.strides[i];
    plan.x_strides[i] = x.strides[i];
  }
  plan.position_strides[0] = positions.shape[0] == 1 ? 0 : positions.strides[0];
  plan.position_strides[1] = positions.strides[1];
  const std::int64_t columns = std::max(plan.pairs, plan.D - 2 * plan.pairs);
  visit_float(x.dtype, "rotary", [&](auto tag) {
    using E = typename decltype(tag)::type;
    launch(KERNEL(rotary_kernel<E>), grid_for(plan.positions * ceil_div<std::int64_t>(columns, kPairs), 1), kPairs * kHeads, 0, stream_of(context), plan, out.as<E>(), x.as<const E>(),
           positions.as<const std::int64_t>(), frequencies.as<const float>());
  });
}

}  // namespace cambium::kernels::cuda
