// Optimizers, schedules and clipping against stored trajectories.
#pragma once

#include "tests/goldens/comparison.h"

namespace cambium::test {

/// optim.json and optim.safetensors of a folder.
Comparison compare_optimizers(const std::string& folder, const std::string& name);

}  // namespace cambium::test
