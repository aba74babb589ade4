// The comparisons of the program parity on the device, within the same bounds: every reference folder. In parts, for two cores.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "tests/data_paths.h"
#include "tests/goldens/folders.h"

using namespace cambium;

namespace {

void compare(const std::vector<test::ReferenceFolder>& references) {
  test::set_comparison_device(Device{DeviceType::cuda, 0});
  for (const test::ReferenceFolder& reference : references) {
    const test::Comparison result = reference.compare();
    INFO(result.line());
    CHECK(result.passed());
  }
  test::set_comparison_device({});
  CHECK(!references.empty());
}

// What only the folder of all reference numbers has: every second one.
void compare_rest(std::size_t first) {
  const auto root = test::all_goldens();
  if (!root) return;
  std::set<std::string> known;
  for (const test::ReferenceFolder& reference : test::reference_folders(test::source_goldens())) known.insert(reference.name);
  std::vector<test::ReferenceFolder> rest, half;
  for (const test::ReferenceFolder& reference : test::reference_folders(*root))
    if (!known.contains(reference.name)) rest.push_back(reference);
  for (std::size_t i = first; i < rest.size(); i += 2) half.push_back(rest[i]);
  compare(half);
}

}  // namespace

TEST_CASE("reference folders of the sources") { compare(test::reference_folders(test::source_goldens())); }
TEST_CASE("all others, the first half") { compare_rest(0); }
TEST_CASE("all others, the second half") { compare_rest(1); }
