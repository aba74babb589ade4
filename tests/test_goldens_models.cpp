// Base models and adapters against the numbers of the reference implementations: the same comparisons as the program parity.
#include <doctest/doctest.h>

#include <filesystem>

#include "tests/data_paths.h"
#include "tests/goldens/adapters.h"

using namespace cambium;

TEST_CASE("gradients of every parameter, and configurations of both spellings") {
  for (const char* name : {"bert", "bert-cls", "bert-qa", "bert-tok", "gpt2", "gpt2-cls", "gptj", "falcon-7b", "falcon-40b", "falcon-rw", "llama", "llama3", "llama-wide", "mistral",
                           "qwen2", "qwen3", "t5", "t5v11"}) {
    const auto folder = test::goldens(std::string("models/") + name);
    if (!folder) return;
    const test::Comparison result = test::compare_full_gradients(*folder, name);
    INFO(result.line());
    CHECK(result.passed());
  }
}

TEST_CASE("BERT and T5 without an adapter, in every case that there is") {
  const auto root = test::goldens("index.json");
  if (!root) return;
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(*root).parent_path())) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("bert") && !name.starts_with("t5")) continue;
    if (name.ends_with("two-adapters") || !std::filesystem::exists(entry.path() / "case.json")) continue;
    const test::CaseFiles files(entry.path().string());
    test::Comparison result(name);
    test::compare_base(files, *test::load_base(files), result);
    INFO(result.line());
    CHECK(result.passed());
    ++seen;
  }
  CHECK(seen == 44);
}

TEST_CASE("LoRA cases") {
  for (const char* name : {"gpt2-lora", "gpt2-lora-left", "gpt2-lora-all-linear", "gpt2-lora-patterns", "gpt2-lora-bias-all", "gpt2-lora-bias-only", "gpt2-lora-layers",
                           "llama-lora", "llama-lora-left", "llama-lora-all-linear", "llama-lora-exclude", "llama-lora-rslora", "llama-lora-regex", "llama-lora-head",
                           "llama3-lora", "llama-wide-lora", "mistral-lora", "qwen2-lora", "qwen3-lora", "gptj-lora", "gptj-lora-head-bias", "falcon-7b-lora", "falcon-7b-lora-left",
                           "falcon-40b-lora", "falcon-rw-lora", "falcon-rw-lora-left", "falcon-rw-lora-bias-all", "gpt2-cls-lora", "bert-cls-lora", "bert-cls-lora-tt",
                           "bert-feature-lora", "bert-qa-lora", "bert-tok-lora", "bert-tok-lora-rank-pattern", "t5-lora", "t5-lora-all-linear", "t5-lora-regex", "t5v11-lora"}) {
    const auto folder = test::goldens(name);
    if (!folder) return;
    const test::Comparison result = test::compare_case(*folder, name);
    INFO(result.line());
    CHECK(result.passed());
  }
}
