// Deriving keys from keys.
#include "autograd/random.h"

namespace cambium {

namespace {
// splitmix64 (Steele, Lea and Flood 2014): a bijection that mixes every bit into every other.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}
}  // namespace

RandomKey RandomKey::fold(std::uint64_t number) const { return {seed, mix(offset ^ mix(number))}; }

RandomKey RandomKey::fold(std::string_view name) const {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return fold(hash);
}

}  // namespace cambium
