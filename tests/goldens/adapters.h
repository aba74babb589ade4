// Adapters against stored numbers: everything a case folder holds for its method.
#pragma once

#include "tests/goldens/base_models.h"

namespace cambium::test {

/// Base model and adapter of one case folder; what cannot be done is a failure.
Comparison compare_case(const std::string& folder, const std::string& name);

}  // namespace cambium::test
