// Base models and adapters against the numbers of the reference implementations: the same comparisons as the program parity.
#include <doctest/doctest.h>

#include <filesystem>

#include "tests/data_paths.h"
#include "tests/goldens/adapters.h"

using namespace cambium;

TEST_CASE("gradients of every parameter, and configurations of both spellings") {
  for (const char* name : {"gpt2", "llama", "llama3", "llama-wide", "mistral", "qwen2", "qwen3"}) {
    const auto folder = test::goldens(std::string("models/") + name);
    if (!folder) return;
    const test::Comparison result = test::compare_full_gradients(*folder, name);
    INFO(result.line());
    CHECK(result.passed());
  }
}

TEST_CASE("LoRA cases") {
  for (const char* name : {"gpt2-lora", "gpt2-lora-left", "gpt2-lora-all-linear", "gpt2-lora-patterns", "gpt2-lora-bias-all", "gpt2-lora-bias-only", "gpt2-lora-layers",
                           "llama-lora", "llama-lora-left", "llama-lora-all-linear", "llama-lora-exclude", "llama-lora-rslora", "llama-lora-regex", "llama-lora-head",
                           "llama3-lora", "llama-wide-lora", "mistral-lora", "qwen2-lora", "qwen3-lora"}) {
    const auto folder = test::goldens(name);
    if (!folder) return;
    const test::Comparison result = test::compare_case(*folder, name);
    INFO(result.line());
    CHECK(result.passed());
  }
}
