// Permutations that depend on a key and nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/random.h"

namespace cambium {

/// A uniform permutation of 0..count-1 (Fisher and Yates), the same on every machine.
std::vector<std::int64_t> permutation(std::int64_t count, RandomKey key);

}  // namespace cambium
