// Operators against stored values and gradients.
#pragma once

#include "tests/goldens/comparison.h"

namespace cambium::test {

/// ops.json and ops.safetensors of a folder.
Comparison compare_operators(const std::string& folder, const std::string& name);

}  // namespace cambium::test
