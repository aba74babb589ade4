// Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/streams.h"
#include "kernels/cpu/scratch.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kPositionsPerTask = 8;
constexpr double kLargestVectorAngle = 0x1p20;

// Cosines and sines of one position, in the order in which rotate() takes them.
void angles_of(float* cosines, float* sines, const float* frequencies, std::int64_t pairs, double position, double scale, bool interleaved, bool inverse) {
  double largest = 0;
  for (std::int64_t j = 0; j < pairs; ++j) largest = std::max(largest, std::fabs(static_cast<double>(frequencies[j]) * position));
  if (largest < kLargestVectorAngle) {
    isa().streams->sincos(cosines, sines, frequencies, pairs, position, scale);
  } else {
    for (std::int64_t j = 0; j < pairs; ++j) {
      const double angle = position * static_cast<double>(frequencies[j]);
      cosines[j] = static_cast<float>(std::cos(angle) * scale);
      sines[j] = static_cast<float>(std::sin(angle) * scale);
    }
  }
  for (std::int64_t j = 0; inverse && j < pairs; ++j) sines[j] = -sines[j];
  for (std::int64_t j = pairs - 1; interleaved && j >= 0; --j) {
    cosines[2 * j] = cosines[2 * j + 1] = cosines[j];
    sines[2 * j + 1] = sines[j];
    sines[2 * j] = -sines[j];
  }
}

void rotate_position(Strided out, Strided x, std::int64_t b, std::int64_t t, const float* cosines, const float* sines, std::int64_t pairs, bool interleaved) {
  const std::int64_t size = item_size(x.dtype);
  for (std::int64_t h = 0; h < x.shape[2]; ++h) {
    const std::byte* from = x.as<std::byte>() + (b * x.strides[0] + t * x.strides[1] + h * x.strides[2]) * size;
    std::byte* to = out.as<std::byte>() + (b * out.strides[0] + t * out.strides[1] + h * out.strides[2]) * size;
    isa().streams->rotate(element_of(x.dtype), to, from, cosines, sines, pairs, interleaved);
    if (to != from) std::memcpy(to + 2 * pairs * size, from + 2 * pairs * size, static_cast<std::size_t>((x.shape[3] - 2 * pairs) * size));
  }
}

}  // namespace

void rotary(Context&, Strided out, Strided x, Strided positions, Strided frequencies, double scale, bool interleaved, bool inverse) {
  const std::int64_t B = x.shape[0], T = x.shape[1], H = x.shape[2], D = x.shape[3], pairs = frequencies.shape[0];
  if (is_vector_type(x.dtype) && x.strides[3] == 1 && out.strides[3] == 1) {
    std::vector<float> dense(static_cast<std::size_t>(pairs));
    for (std::int64_t j = 0; j < pairs; ++j) dense[static_cast<std::size_t>(j)] = frequencies.as<float>()[j * frequencies.strides[0]];
    return parallel_ranges(B * T, kPositionsPerTask, [&](std::int64_t begin, std::int64_t end) {
      float* cosines = reinterpret_cast<float*>(thread_scratch(4 * pairs * static_cast<std::int64_t>(sizeof(float))));
      float* sines = cosines + 2 * pairs;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t b = i / T, t = i % T;
        const std::int64_t position = positions.as<std::int64_t>()[(positions.shape[0] == 1 ? 0 : b) * positions.strides[0] + t * positions.strides[1]];
        angles_of(cosines, sines, dense.data(), pairs, static_cast<double>(position), scale, interleaved, inverse);
        rotate_position(out, x, b, t, cosines, sines, pairs, interleaved);
      }
    });
  }
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
