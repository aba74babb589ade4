// Optimizers, schedules and clipping against trajectories of the reference implementations.
#include <doctest/doctest.h>

#include "tests/data_paths.h"
#include "tests/goldens/optim.h"

using namespace cambium;

TEST_CASE("optimizers, schedules and clipping agree with the reference") {
  const test::Comparison result = test::compare_optimizers(test::source_goldens() + "/optim", "optim");
  INFO(result.line());
  CHECK(result.passed());
}
