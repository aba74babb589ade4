// Uniform and normal random numbers.
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"
#include "kernels/philox.h"

namespace cambium::kernels::cpu {
namespace {

// Calls `body(i, words)` for every block of four elements; i is the first element of the block.
template <class F>
void for_each_block(std::int64_t count, std::uint64_t seed, std::uint64_t offset, F&& body) {
  parallel_ranges((count + 3) / 4, kGrain / 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) body(block * 4, philox(seed, offset, static_cast<std::uint64_t>(block)));
  });
}

}  // namespace

void random_uniform(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double low, double high) {
  const std::int64_t count = out.count();
  visit_float(out.dtype, "random_uniform", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    for_each_block(count, seed, offset, [&](std::int64_t first, const PhiloxWords& words) {
      for (std::int64_t i = first; i < std::min(first + 4, count); ++i)
        out.as<T>()[i] = convert<T>(static_cast<A>(low + (high - low) * static_cast<double>(uniform_of(words.word[i - first]))));
    });
  });
}

void random_normal(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double mean, double deviation) {
  const std::int64_t count = out.count();
  visit_float(out.dtype, "random_normal", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    for_each_block(count, seed, offset, [&](std::int64_t first, const PhiloxWords& words) {
      for (std::int64_t i = first; i < std::min(first + 4, count); ++i) {
        const std::int64_t pair = (i - first) & 2;
        const float radius = std::sqrt(-2.0F * std::log(uniform_of(words.word[pair]) + 0x1p-24F)), angle = 6.2831853F * uniform_of(words.word[pair + 1]);
        const float value = radius * (((i - first) & 1) != 0 ? std::sin(angle) : std::cos(angle));
        out.as<T>()[i] = convert<T>(static_cast<A>(mean + deviation * static_cast<double>(value)));
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
