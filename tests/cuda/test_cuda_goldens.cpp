// The comparisons of the program parity on the device, within the same bounds: every reference folder. In parts, for two cores.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "emulation.h"
#include "kernels/device.h"
#include "tests/data_paths.h"
#include "tests/goldens/folders.h"

using namespace cambium;

namespace {

void compare(const std::vector<test::ReferenceFolder>& references) {
  test::set_comparison_device(Device{DeviceType::cuda, 0});
  for (const test::ReferenceFolder& reference : references) {
    const std::int64_t before = kemu::counters().launches;
    const test::Comparison result = reference.compare();
    INFO(result.line());
    CHECK(result.passed());
    CHECK(kemu::counters().launches > before);  // and not on the CPU
  }
  test::set_comparison_device({});
  CHECK(!references.empty());
}

// Every `step`-th, from the `first` on.
std::vector<test::ReferenceFolder> some_of(const std::vector<test::ReferenceFolder>& references, std::size_t first, std::size_t step) {
  std::vector<test::ReferenceFolder> some;
  for (std::size_t i = first; i < references.size(); i += step) some.push_back(references[i]);
  return some;
}

// What only the folder of all reference numbers has: every second one.
void compare_others(std::size_t first) {
  const auto root = test::all_goldens();
  if (!root) return;
  std::set<std::string> known;
  for (const test::ReferenceFolder& reference : test::reference_folders(test::source_goldens())) known.insert(reference.name);
  std::vector<test::ReferenceFolder> others = test::reference_folders(*root);
  std::erase_if(others, [&](const test::ReferenceFolder& reference) { return known.contains(reference.name); });
  compare(some_of(others, first, 2));
}

}  // namespace

// For sanitizers, under which all of them would take longer than everything else.
TEST_CASE("a sample of the sources") { compare(some_of(test::reference_folders(test::source_goldens()), 0, 9)); }

TEST_CASE("all of the sources") { compare(test::reference_folders(test::source_goldens())); }
TEST_CASE("all others, the first half") { compare_others(0); }
TEST_CASE("all others, the second half") { compare_others(1); }
