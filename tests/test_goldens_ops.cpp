// Values and gradients of the stored operator cases.
#include <doctest/doctest.h>

#include "tests/data_paths.h"
#include "tests/goldens/ops.h"

using namespace cambium;

TEST_CASE("the stored operator cases") {
  const test::Comparison result = test::compare_operators(test::source_goldens() + "/ops", "ops");
  INFO(result.line());
  CHECK(result.passed());
}
