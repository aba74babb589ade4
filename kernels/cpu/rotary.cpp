// Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {

void rotary(Context&, Strided out, Strided x, Strided positions, Strided frequencies, double scale, bool interleaved, bool inverse) {
  const std::int64_t B = x.shape[0], T = x.shape[1], H = x.shape[2], D = x.shape[3], pairs = frequencies.shape[0];
  visit_float(x.dtype, "rotary", [&](auto tag) {
    using E = typename decltype(tag)::type;
    using A = acc_t<E>;
    parallel_for(B * T, [&](std::int64_t task) {
      const std::int64_t b = task / T, t = task % T;
      const double position = static_cast<double>(positions.as<std::int64_t>()[(positions.shape[0] == 1 ? 0 : b) * positions.strides[0] + t * positions.strides[1]]);
      std::vector<A> sines(static_cast<std::size_t>(pairs)), cosines(static_cast<std::size_t>(pairs));
      for (std::int64_t j = 0; j < pairs; ++j) {
        const double angle = position * static_cast<double>(frequencies.as<float>()[j * frequencies.strides[0]]);
        cosines[static_cast<std::size_t>(j)] = static_cast<A>(static_cast<float>(std::cos(angle) * scale));
        sines[static_cast<std::size_t>(j)] = static_cast<A>(static_cast<float>((inverse ? -std::sin(angle) : std::sin(angle)) * scale));
      }
      for (std::int64_t h = 0; h < H; ++h) {
        const E* from = x.as<E>() + b * x.strides[0] + t * x.strides[1] + h * x.strides[2];
        E* to = out.as<E>() + b * out.strides[0] + t * out.strides[1] + h * out.strides[2];
        const std::int64_t in = x.strides[3], step = out.strides[3];
        for (std::int64_t j = 0; j < pairs; ++j) {
          const std::int64_t first = interleaved ? 2 * j : j, second = interleaved ? 2 * j + 1 : j + pairs;
          const A a = convert<A>(from[first * in]), c = convert<A>(from[second * in]);
          const A cosine = cosines[static_cast<std::size_t>(j)], sine = sines[static_cast<std::size_t>(j)];
          to[first * step] = convert<E>(a * cosine - c * sine);
          to[second * step] = convert<E>(c * cosine + a * sine);
        }
        if (to != from)
          for (std::int64_t d = 2 * pairs; d < D; ++d) to[d * step] = from[d * in];
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
