// Uniform and normal random numbers.
#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"
#include "kernels/philox.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kBlocks = 64, kWords = 4 * kBlocks;  // made at a time, so that the rounds run in vectors

// The words of blocks first .. first + kBlocks, in the order of the elements that take them.
void philox_words(std::uint64_t seed, std::uint64_t offset, std::uint64_t first, std::uint32_t* words) {
  std::uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
  for (std::int64_t j = 0; j < kBlocks; ++j) {
    const std::uint64_t block = first + static_cast<std::uint64_t>(j);
    c0[j] = static_cast<std::uint32_t>(block);
    c1[j] = static_cast<std::uint32_t>(block >> 32);
    c2[j] = static_cast<std::uint32_t>(offset);
    c3[j] = static_cast<std::uint32_t>(offset >> 32);
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1)
    for (std::int64_t j = 0; j < kBlocks; ++j) philox_round(c0[j], c1[j], c2[j], c3[j], k0, k1);
  for (std::int64_t j = 0; j < kBlocks; ++j) {
    words[4 * j] = c0[j];
    words[4 * j + 1] = c1[j];
    words[4 * j + 2] = c2[j];
    words[4 * j + 3] = c3[j];
  }
}

// Fills `out` with values that `make(values, words)` computes from kWords words at a time in acc_t.
template <class F>
void fill_random(Strided out, std::uint64_t seed, std::uint64_t offset, const char* what, F&& make) {
  visit_float(out.dtype, what, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const ConvertRow store = convert_row(out.dtype, dtype_of<A>);
    parallel_ranges(out.count(), kGrain / 4, [&](std::int64_t begin, std::int64_t end) {
      std::uint32_t words[kWords];
      A values[kWords];
      for (std::int64_t first = begin; first < end; first += kWords) {
        philox_words(seed, offset, static_cast<std::uint64_t>(first / 4), words);
        make(values, words);
        store(out.as<T>() + first, 1, values, 1, std::min(kWords, end - first));
      }
    });
  });
}

}  // namespace

// A float takes the upper 24 bits of its word, a double all 32.
void random_uniform(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double low, double high) {
  fill_random(out, seed, offset, "random_uniform", [=]<class A>(A* values, const std::uint32_t* words) {
    const A start = static_cast<A>(low), width = static_cast<A>(high - low);
    for (std::int64_t i = 0; i < kWords; ++i) {
      if constexpr (std::is_same_v<A, float>) values[i] = start + width * uniform_of(words[i]);
      else values[i] = start + width * (static_cast<double>(words[i]) * 0x1p-32);
    }
  });
}

void random_normal(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double mean, double deviation) {
  fill_random(out, seed, offset, "random_normal", [=]<class A>(A* values, const std::uint32_t* words) {
    const A center = static_cast<A>(mean), scale = static_cast<A>(deviation);
    std::uint32_t first_words[kWords / 2], second_words[kWords / 2];
    float first[kWords / 2], second[kWords / 2];
    for (std::int64_t i = 0; i < kWords / 2; ++i) {
      first_words[i] = words[2 * i];
      second_words[i] = words[2 * i + 1];
    }
    for (std::int64_t i = 0; i < kWords / 2; ++i) normal_pair_of(first_words[i], second_words[i], first[i], second[i]);
    for (std::int64_t i = 0; i < kWords / 2; ++i) {
      values[2 * i] = center + scale * static_cast<A>(first[i]);
      values[2 * i + 1] = center + scale * static_cast<A>(second[i]);
    }
  });
}

}  // namespace cambium::kernels::cpu
