// Dropout with masks that are made again from their counter instead of being stored.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/streams.h"
#include "kernels/cpu/rows.h"
#include "kernels/philox.h"

namespace cambium::kernels::cpu {

void dropout(Context&, Strided out, Strided x, double p, std::uint64_t seed, std::uint64_t offset) {
  const std::int64_t count = x.count();
  if (is_vector_type(x.dtype)) {
    const float scale = p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0F;
    const std::int64_t size = item_size(x.dtype);
    return parallel_ranges(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
      isa().streams->dropout(element_of(x.dtype), out.as<std::byte>() + begin * size, x.as<std::byte>() + begin * size, begin / 4, end - begin, static_cast<float>(p),
                             scale, seed, offset);
    });
  }
  visit_float(x.dtype, "dropout", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const A scale = p < 1 ? static_cast<A>(1 / (1 - p)) : A(0);
    parallel_ranges((count + 3) / 4, kGrain / 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const PhiloxWords words = philox(seed, offset, static_cast<std::uint64_t>(block));
        for (std::int64_t i = block * 4; i < std::min(block * 4 + 4, count); ++i) {
          const bool kept = uniform_of(words.word[i - block * 4]) >= static_cast<float>(p);
          out.as<T>()[i] = convert<T>(kept ? convert<A>(x.as<T>()[i]) * scale : A(0));
        }
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
