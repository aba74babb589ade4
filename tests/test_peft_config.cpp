// adapter_config.json: stored files of the reference read and written back, old files, unknown and unsupported keys, every refusal.
#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <set>

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

TEST_CASE("every stored file comes back as it was") {
  const auto root = goldens("index.json");
  if (!root) return;
  std::map<std::string, int> seen;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::filesystem::path(*root).parent_path())) {
    if (entry.path().filename() != "adapter_config.json") continue;
    INFO(entry.path().string());
    std::vector<std::string> warnings;
    const PeftConfig config = read_peft_config(entry.path().parent_path().string(), &warnings);
    const std::string written = to_json(config), stored = test::read_text(entry.path().string());
    CHECK(warnings.empty());
    const nlohmann::json as_stored = nlohmann::json::parse(stored);
    nlohmann::json expected = as_stored;
    for (const char* key : {"target_modules", "feedforward_modules", "modules_to_save"})  // PEFT's sets come in any order, and its list for prompts grows at every wrap and load
      if (expected.contains(key) && expected[key].is_array()) expected[key] = std::set<std::string>(expected[key].begin(), expected[key].end());
    CHECK(nlohmann::json::parse(written) == expected);
    if (expected == as_stored) CHECK(written == stored.substr(0, stored.find_last_not_of('\n') + 1));
    ++seen[std::string(peft_type_of(config))];
  }
  CHECK(seen.size() == 5);
}

TEST_CASE("features that are not supported are refused, never ignored") {
  CHECK(contains(refused(R"("layer_replication": [[0, 2]])"), "layer_replication = [[0,2]] is not supported"));
  CHECK(contains(refused(R"("target_parameters": ["x"])"), "target_parameters"));
  CHECK(contains(refused(R"("ensure_weight_tying": true)"), "ensure_weight_tying"));
  CHECK(contains(refused(R"("loftq_config": {"bits": 4})"), "loftq_config"));
  for (const char* init : {"loftq", "eva", "corda", "mica", "pissa_niter_", "pissa_niter_x", "PISSA", ""}) {
    INFO(init);
    CHECK(contains(refused("\"init_lora_weights\": \"" + std::string(init) + "\""), "found \"" + std::string(init) + "\""));
  }
  CHECK_NOTHROW(parsed(R"("use_dora": false, "loftq_config": {}, "megatron_config": null, "megatron_core": "megatron.core")"));
}

TEST_CASE("what goes together and what does not") {
  CHECK(contains(refused(R"("lora_bias": true, "use_dora": true)"), "lora_bias"));
  CHECK(contains(refused(R"("lora_bias": true, "init_lora_weights": "pissa")"), "lora_bias"));
  CHECK(contains(refused(R"("init_lora_weights": "orthogonal", "r": 3)"), "even r, found 3"));
  CHECK(contains(refused(R"("trainable_token_indices": [1, 2, 1])"), "token 1 is listed twice"));
  CHECK(contains(refused(R"("trainable_token_indices": [-1])"), "found -1"));
  CHECK(contains(refused(R"("trainable_token_indices": [])"), "at least one"));
  CHECK(contains(refused(R"("trainable_token_indices": {"wte": [1, 2.5]})"), "trainable_token_indices"));
  CHECK(contains(refused(R"("trainable_token_indices": 3)"), "trainable_token_indices"));
  CHECK(parsed(R"("trainable_token_indices": [7, 3])").trainable_token_indices == TokenIndices{7, 3});
  CHECK(parsed(R"("trainable_token_indices": {"wte": [7, 3]})").trainable_token_indices == TokenIndices{{"wte", {7, 3}}});
  CHECK_FALSE(parsed(R"("trainable_token_indices": null)").trainable_token_indices.given());
  CHECK(parse_lora_init(std::string("pissa_niter_16")).iterations == 16);
  CHECK(parse_lora_init(std::string("OLoRA")).changes_base());

  const auto error = [](const std::string& fields) { return error_of<Error>([&] { parse_peft_config("{" + fields + "}", "f.json"); }); };
  CHECK(contains(error(R"("peft_type": "IA3", "target_modules": ["a"], "feedforward_modules": ["b"])"), "'b' is not among target_modules"));
  CHECK(error(R"("peft_type": "IA3", "target_modules": "a|b", "feedforward_modules": ["b"])").empty());
  CHECK(error(R"("peft_type": "IA3", "target_modules": ["a"], "feedforward_modules": [])").empty());
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING")"), "num_virtual_tokens"));
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING", "num_virtual_tokens": 0)"), "found 0"));
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "prompt_tuning_init": "WORDS")"), "RANDOM, TEXT or SAMPLE_VOCAB"));
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x")"), "tokenizer_name_or_path"));
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "x")"), "prompt_tuning_init_text"));
  CHECK(contains(error(R"("peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "tokenizer_kwargs": {})"), "TEXT only"));
  CHECK(contains(error(R"("peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "init_weights": "one")"), "\"one\""));
  CHECK(contains(error(R"("peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": -1)"), "encoder_hidden_size"));
  CHECK(contains(error(R"("peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_reparameterization_type": "GRU")"), "MLP or LSTM"));
  CHECK(contains(error(R"("peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_dropout": 1.0)"), "encoder_dropout"));
  CHECK(contains(error(R"("peft_type": "P_TUNING", "num_virtual_tokens": 4, "num_transformer_submodules": 3)"), "num_transformer_submodules"));
}

TEST_CASE("files of PEFT 0.4 of the other methods: missing keys take defaults, junk goes, all keys are written") {
  const auto read = [](const std::string& text) {
    std::vector<std::string> warnings;
    const PeftConfig config = parse_peft_config(text, "f.json", &warnings);
    CHECK(warnings.empty());
    return config;
  };
  const PeftConfig ia3 = read(R"({"peft_type": "IA3", "base_model_name_or_path": "t5-base", "fan_in_fan_out": false, "feedforward_modules": ["wo"], "inference_mode": true, "init_ia3_weights": true,
    "modules_to_save": null, "task_type": "SEQ_2_SEQ_LM", "revision": null, "target_modules": ["k", "v", "wo"]})");
  CHECK(nlohmann::json::parse(to_json(ia3)).size() == 13);
  const PeftConfig prefix = read(R"({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20, "token_dim": 8, "num_transformer_submodules": 1, "num_attention_heads": 2, "num_layers": 2,
    "encoder_hidden_size": 8, "prefix_projection": false, "postprocess_past_key_value_function": null, "task_type": "CAUSAL_LM", "inference_mode": true, "base_model_name_or_path": "m"})");
  CHECK(std::get<PrefixTuningConfig>(prefix).num_virtual_tokens == 20);
  CHECK_FALSE(contains(to_json(prefix), "postprocess"));
  CHECK(nlohmann::json::parse(to_json(prefix)).size() == 16);
  const PeftConfig prompt = read(R"({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "t",
    "modules_to_save": ["score", "classifier", "score"], "tokenizer_kwargs": {"z": 1, "trust_remote_code": true, "a": 2}})");
  CHECK(std::get<PromptTuningConfig>(prompt).modules_to_save == std::vector<std::string>{"score", "classifier"});
  CHECK(std::get<PromptTuningConfig>(prompt).tokenizer_kwargs == R"({"z":1,"a":2})");
  CHECK(to_json(parse_peft_config(to_json(prompt), "again")) == to_json(prompt));
  CHECK(std::get<PromptEncoderConfig>(read(R"({"peft_type": "P_TUNING", "num_virtual_tokens": 8})")).encoder_num_layers == 2);
  CHECK(to_json(IA3Config{.target_modules = {"a"}}).find("\"init_ia3_weights\": true") != std::string::npos);
  CHECK(is_prompt_learning(PrefixTuningConfig{.num_virtual_tokens = 2}));
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
