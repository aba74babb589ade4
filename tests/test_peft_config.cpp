// adapter_config.json: stored files of the reference read and written back, old files, unknown and unsupported keys, every refusal.
#include <doctest/doctest.h>

#include "peft/config.h"
#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

LoraConfig parsed(const std::string& fields, std::vector<std::string>* warnings = nullptr) {
  return std::get<LoraConfig>(parse_peft_config(R"({"peft_type": "LORA")" + (fields.empty() ? "" : ", " + fields) + "}", "f.json", warnings));
}
std::string refused(const std::string& fields) {
  const std::string text = error_of<Error>([&] { parsed(fields); });
  CHECK(text.starts_with("f.json") + text.starts_with("LoraConfig") + text.starts_with("task_type") == 1);
  return text;
}

}  // namespace

TEST_CASE("stored files come back as they were, byte for byte") {
  int seen = 0;
  for (const char* name : {"gpt2-lora", "gpt2-lora-all-linear", "gpt2-lora-patterns", "gpt2-lora-bias-all", "gpt2-lora-bias-only", "gpt2-lora-wte", "gpt2-lora-left", "gpt2-lora-layers",
                           "llama-lora", "llama-lora-all-linear", "llama-lora-rslora", "llama-lora-embed", "llama-lora-regex", "llama-lora-head", "llama-lora-exclude", "mistral-lora",
                           "qwen2-lora", "bert-tok-lora-rank-pattern", "t5-lora", "gptj-lora-head-bias"}) {
    const auto folder = goldens(std::string(name) + "/adapter");
    if (!folder) continue;
    INFO(name);
    ++seen;
    std::vector<std::string> warnings;
    const std::string written = to_json(read_peft_config(*folder, &warnings));
    const std::string stored = test::read_text(*folder + "/adapter_config.json");
    CHECK(warnings.empty());
    CHECK(nlohmann::json::parse(written) == nlohmann::json::parse(stored));  // as values, whatever the order
    CHECK(written == stored.substr(0, stored.find_last_not_of('\n') + 1));
  }
  if (seen == 0) MESSAGE("no stored file was there");
}

TEST_CASE("features of other versions of the reference are refused, never ignored") {
  for (const auto& [name, word] : {std::pair{"gpt2-dora", "use_dora"}, {"llama-lora-bias", "lora_bias"}, {"llama-trainable-tokens", "trainable_token_indices"}, {"llama-ia3", "IA3"}, {"llama-prefix", "PREFIX_TUNING"}}) {
    const auto folder = goldens(std::string(name) + "/adapter");
    if (folder) CHECK(contains(error_of<ConfigError>([&] { read_peft_config(*folder); }), word));
  }
  CHECK(contains(refused(R"("use_dora": true)"), "use_dora = true is not supported"));
  CHECK(contains(refused(R"("lora_bias": true)"), "lora_bias"));
  CHECK(contains(refused(R"("layer_replication": [[0, 2]])"), "layer_replication"));
  CHECK(contains(refused(R"("target_parameters": ["x"])"), "target_parameters"));
  CHECK(contains(refused(R"("loftq_config": {"bits": 4})"), "loftq_config"));
  CHECK(contains(refused(R"("init_lora_weights": "pissa")"), "pissa"));
  CHECK_NOTHROW(parsed(R"("use_dora": false, "loftq_config": {}, "megatron_config": null, "megatron_core": "megatron.core")"));
}

TEST_CASE("every field") {
  const LoraConfig c = parsed(R"("r": 4, "target_modules": ["b", "a", "b"], "exclude_modules": "x.*", "lora_alpha": 2.5, "lora_dropout": 0.1, "fan_in_fan_out": true, "bias": "all",
    "use_rslora": true, "modules_to_save": ["head"], "init_lora_weights": "Gaussian", "layers_to_transform": 3, "layers_pattern": "h", "rank_pattern": {"z": 3, "a": 2},
    "alpha_pattern": {"z": 1.5}, "task_type": "CAUSAL_LM", "base_model_name_or_path": "m", "revision": "r", "inference_mode": true)");
  CHECK(c.r == 4);
  CHECK(c.target_modules == ModuleSelection{"b", "a"});
  CHECK(c.exclude_modules.pattern() == "x.*");
  CHECK(c.lora_alpha == 2.5);
  CHECK(c.lora_dropout == 0.1);
  CHECK(c.fan_in_fan_out);
  CHECK(c.bias == "all");
  CHECK(c.use_rslora);
  CHECK(c.modules_to_save == std::vector<std::string>{"head"});
  CHECK(std::get<std::string>(c.init_lora_weights) == "Gaussian");
  CHECK(c.layers_to_transform == std::vector<std::int64_t>{3});
  CHECK(c.layers_pattern == std::vector<std::string>{"h"});
  CHECK(c.rank_pattern == std::vector<std::pair<std::string, std::int64_t>>{{"z", 3}, {"a", 2}});
  CHECK(c.task_type == TaskType::CAUSAL_LM);
  CHECK(c.inference_mode);
  // The order of patterns decides which wins, so it is written as it is; all else is sorted.
  const std::string written = to_json(c);
  CHECK(written.find("\"z\": 3") < written.find("\"a\": 2"));
  CHECK(to_json(parse_peft_config(written, "again")) == written);
  CHECK(contains(written, "\"target_modules\": [\n    \"a\",\n    \"b\"\n  ]"));
  CHECK(contains(to_json(LoraConfig{}), "\"inference_mode\": true"));
  CHECK(nlohmann::json::parse(to_json(LoraConfig{})).size() == 41);
}

TEST_CASE("a file of PEFT 0.4, with what was known then and old junk") {
  std::vector<std::string> warnings;
  const LoraConfig c = parsed(R"("auto_mapping": null, "base_model_name_or_path": "gpt2", "bias": "none", "fan_in_fan_out": true, "inference_mode": true, "init_lora_weights": true,
    "layers_pattern": null, "layers_to_transform": null, "lora_alpha": 16, "lora_dropout": 0.05, "modules_to_save": null, "r": 8, "revision": null, "target_modules": ["c_attn"],
    "task_type": "CAUSAL_LM", "enable_lora": null, "merge_weights": false)", &warnings);
  CHECK(warnings.empty());
  CHECK(c.lora_alpha == 16);
  CHECK_FALSE(contains(to_json(c), "enable_lora"));
}

TEST_CASE("unknown keys are kept, with a warning") {
  std::vector<std::string> warnings;
  const LoraConfig c = parsed(R"("from_the_future": {"a": [1, 2]}, "r": 3)", &warnings);
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "from_the_future"));
  const Json written = parse_json(to_json(c), "w");
  CHECK(written["from_the_future"].dump() == R"({"a":[1,2]})");
  CHECK(written["r"] == 3);
}

TEST_CASE("values that make no sense are refused with key, expectation and what was found") {
  CHECK(contains(refused(R"("r": 0)"), "r: expected a positive integer, found 0"));
  CHECK(contains(refused(R"("r": 2.5)"), "r: expected an integer, found 2.5"));
  CHECK(contains(refused(R"("r": "8")"), "r: expected an integer"));
  CHECK(contains(refused(R"("lora_alpha": "16")"), "lora_alpha: expected a number"));
  CHECK(contains(refused(R"("lora_dropout": 1.0)"), "lora_dropout"));
  CHECK(contains(refused(R"("lora_dropout": -0.1)"), "lora_dropout"));
  CHECK(contains(refused(R"("bias": "some")"), "none, all or lora_only"));
  CHECK(contains(refused(R"("target_modules": 3)"), "target_modules"));
  CHECK(contains(refused(R"("target_modules": ["a", 3])"), "target_modules"));
  CHECK(contains(refused(R"("modules_to_save": "head")"), "modules_to_save"));
  CHECK(contains(refused(R"("fan_in_fan_out": 1)"), "true or false"));
  CHECK(contains(refused(R"("init_lora_weights": 1)"), "init_lora_weights"));
  CHECK(contains(refused(R"("layers_to_transform": ["1"])"), "layers_to_transform"));
  CHECK(contains(refused(R"("rank_pattern": {"q": 0})"), "rank_pattern['q']"));
  CHECK(contains(refused(R"("rank_pattern": {"q": 1.5})"), "rank_pattern"));
  CHECK(contains(refused(R"("alpha_pattern": [])"), "alpha_pattern"));
  CHECK(contains(refused(R"("task_type": "CAUSAL")"), "SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM"));
  CHECK(contains(refused(R"("target_modules": "x", "layers_to_transform": [1])"), "layers_to_transform"));
  CHECK(contains(refused(R"("target_modules": ["x"], "layers_pattern": ["h"])"), "layers_pattern needs layers_to_transform"));
  const auto file = [](const char* text) { return error_of<Error>([&] { parse_peft_config(text, "f.json"); }); };
  CHECK(contains(file("[]"), "expected an object"));
  CHECK(contains(file("{}"), "peft_type"));
  CHECK(contains(file(R"({"peft_type": 3})"), "peft_type"));
  CHECK(contains(file(R"({"peft_type": "LOHA"})"), "LOHA"));
  CHECK(contains(file("{"), "f.json"));
  CHECK(contains(file(R"({"peft_type": "LORA", "r": 1, "r": 2})"), "twice"));
}

TEST_CASE("a folder without a configuration is a file error that names it") {
  const TemporaryFolder folder;
  CHECK(contains(error_of<FileError>([&] { read_peft_config(folder.path()); }), "adapter_config.json"));
}
