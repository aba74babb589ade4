// Two adapters on one model against stored numbers: switching, mixing, merging, weighted combinations.
#pragma once

#include "tests/goldens/base_models.h"

namespace cambium::test {

/// A case folder of kind two_adapters; what cannot be done is a failure.
Comparison compare_two_adapters(const std::string& folder, const std::string& name);
/// The same of kind two_ia3.
Comparison compare_two_ia3(const std::string& folder, const std::string& name);

}  // namespace cambium::test
