// Fisher-Yates with 64-bit numbers derived from the key.
#include "train/shuffle.h"

#include <numeric>
#include <utility>

namespace cambium {

std::vector<std::int64_t> permutation(std::int64_t count, RandomKey key) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = count - 1; i > 0; --i) {
    // The upper half of a 64 x 64 bit product maps a random word to [0, i] (Lemire 2019); the bias is below 2^-40 for any data set.
    const RandomKey drawn = RandomKey{0, key.seed}.fold(key.offset).fold(static_cast<std::uint64_t>(i));
    const auto j = static_cast<std::int64_t>((static_cast<unsigned __int128>(drawn.offset) * static_cast<unsigned __int128>(i + 1)) >> 64);
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
  }
  return order;
}

}  // namespace cambium
