// Base models and adapters against the numbers of the reference implementations: the same comparisons as the program parity.
#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <set>

#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/goldens/folders.h"

using namespace cambium;

namespace {

/// Compares everything with this mark: what belongs to the sources, then what only the folder of all reference numbers has.
void compare_all(const std::string& mark) {
  std::set<std::string> seen;
  const auto compare = [&](const std::string& root) {
    const std::size_t before = seen.size();
    for (const test::ReferenceFolder& reference : test::reference_folders(root)) {
      if (reference.mark != mark || !seen.insert(reference.name).second) continue;
      const test::Comparison result = reference.compare();
      INFO(result.line());
      CHECK(result.passed());
    }
    CHECK(seen.size() > before);
  };
  compare(test::source_goldens());
  if (const auto all = test::all_goldens()) compare(*all);
}

}  // namespace

TEST_CASE("gradients of every parameter, and configurations of both spellings") { compare_all("full_gradients.json"); }

TEST_CASE("every case") { compare_all("case.json"); }

TEST_CASE("each base model of the sources has a case of each method") {
  const std::filesystem::path root = test::source_goldens();
  std::map<std::string, std::set<std::string>> methods;
  std::set<std::string> kinds;
  for (const test::ReferenceFolder& reference : test::reference_folders(root.string())) {
    if (reference.mark == "full_gradients.json") methods[reference.name];
    if (reference.mark != "case.json") continue;
    const Json json = read_json_file(reference.folder + "/case.json");
    if (json.contains("kind")) kinds.insert(json.at("kind"));
    else methods[json.at("base")].insert(json.at("peft_type"));
  }
  CHECK(methods.size() >= 11);
  for (const auto& base : methods) {
    CAPTURE(base.first);
    CHECK(base.second == std::set<std::string>{"LORA", "IA3", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"});
  }
  CHECK(kinds == std::set<std::string>{"two_adapters", "two_ia3"});
}
