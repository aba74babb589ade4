// GGUF LoRA adapters: there and back, the order of q's and k's rows, scale, what the format cannot say.
#include <doctest/doctest.h>

#include "peft/gguf_adapter.h"
#include "peft/peft_model.h"
#include "tensor/gguf_writer.h"
#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_gguf.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

LoraAdapter random_adapter(std::shared_ptr<PretrainedModel> base, LoraConfig config) {
  PeftModel peft = get_peft_model(std::move(base), config);
  for (const auto& [name, slot] : peft.base_model->adapter_state("default"))
    slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{3, 0}.fold(name), -0.3, 0.3);
  LoraAdapter out = lora_adapter_of(*peft.base_model, "default");
  for (LoraAdapter::Part& part : out.parts) {
    part.a = clone(part.a);
    part.b = clone(part.b);
  }
  return out;
}

LoraConfig config_of(ModuleSelection targets) {
  LoraConfig config;
  config.r = 4;
  config.lora_alpha = 6;
  config.target_modules = std::move(targets);
  return config;
}

std::string config_of(const PretrainedModel& model) { return model.config().json; }

std::vector<float> logits_with(std::shared_ptr<PretrainedModel> base, const LoraAdapter& adapter) {
  PeftModel peft = get_peft_model(std::move(base), adapter.config);
  add_to_model(*peft.base_model, "x", adapter);
  peft.set_adapter("x");
  return logits_of(peft);
}

}  // namespace

TEST_CASE("there and back, on both kinds of bases") {
  const TemporaryFolder folder;
  for (const bool gpt2 : {false, true}) {
    const auto base = [&] { return gpt2 ? tiny_gpt2() : tiny_llama(); };
    LoraConfig config = gpt2 ? config_of({"c_attn", "c_fc"}) : config_of({"q_proj", "k_proj", "down_proj"});
    config.rank_pattern = {{gpt2 ? "c_fc" : "down_proj", 2}};
    const LoraAdapter adapter = random_adapter(base(), config);
    write_gguf_adapter(adapter, config_of(*base()), folder.file("a.gguf"));
    const GgufFile file(folder.file("a.gguf"));
    CHECK(file.value("general.type").string() == "adapter");
    CHECK(file.value("adapter.type").string() == "lora");
    CHECK(file.value("adapter.lora.alpha").number() == 6.0);
    if (!gpt2) CHECK(file.info("blk.1.attn_q.weight.lora_b").shape == Shape{16, 4});
    const LoraAdapter back = read_gguf_adapter(folder.file("a.gguf"), config_of(*base()));
    CHECK(largest_difference(logits_with(base(), back), logits_with(base(), adapter)) < 2e-5);
    // The file is for the order of rows in GGUF: the same on such a base.
    save_tiny_gguf(*base(), folder.file("base.gguf"));
    const LoraAdapter on_gguf = read_gguf_adapter(folder.file("a.gguf"), read_base_config(folder.file("base.gguf")));
    CHECK(largest_difference(logits_with(AutoModelForCausalLM::from_pretrained(folder.file("base.gguf")), on_gguf), logits_with(base(), adapter)) < 2e-5);
    // Loading takes the file as it takes a folder.
    PeftModel peft = PeftModel::from_pretrained(base(), folder.file("a.gguf"));
    CHECK(largest_difference(logits_of(peft), logits_with(base(), adapter)) < 2e-5);
    peft.load_adapter(folder.file("a.gguf"), "again");
    CHECK(peft.adapters().size() == 2);
  }
}

TEST_CASE("rows of q that were not permuted are another adapter") {
  const TemporaryFolder folder;
  const LoraAdapter adapter = random_adapter(tiny_llama(), config_of({"q_proj"}));
  write_gguf_adapter(adapter, config_of(*tiny_llama()), folder.file("good.gguf"));
  const GgufFile good(folder.file("good.gguf"));
  std::vector<GgufTensor> tensors;
  for (const LoraAdapter::Part& part : adapter.parts) {
    const std::string name = gguf_name(*gguf_architecture("llama"), part.path + ".weight").value();
    tensors.push_back({name + ".lora_a", part.a});
    tensors.push_back({name + ".lora_b", part.b});  // as Hugging Face has them
    CHECK(good.tensor(name + ".lora_a").to_vector<float>() == part.a.to_vector<float>());
    CHECK(good.tensor(name + ".lora_b").to_vector<float>() != part.b.to_vector<float>());
    CHECK(halves_from_pairs(good.tensor(name + ".lora_b"), 4).to_vector<float>() == part.b.to_vector<float>());
  }
  GgufMetadata metadata;
  metadata.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora").set("adapter.lora.alpha", 6.0F);
  save_gguf(folder.file("bad.gguf"), metadata, tensors);
  const std::vector<float> right = logits_with(tiny_llama(), adapter);
  CHECK(largest_difference(logits_with(tiny_llama(), read_gguf_adapter(folder.file("good.gguf"), config_of(*tiny_llama()))), right) < 2e-5);
  CHECK(largest_difference(logits_with(tiny_llama(), read_gguf_adapter(folder.file("bad.gguf"), config_of(*tiny_llama()))), right) > 1e-2);
}

TEST_CASE("scalings that differ, 16-bit and block types") {
  const TemporaryFolder folder;
  LoraConfig config = config_of({"q_proj", "v_proj"});
  config.use_rslora = true;
  config.alpha_pattern = {{"v_proj", 11.0}};
  const LoraAdapter adapter = random_adapter(tiny_llama(), config);
  for (const auto& [type, tolerance] : {std::pair{GgmlType::f32, 2e-5}, {GgmlType::f16, 2e-2}, {GgmlType::bf16, 0.2}}) {
    write_gguf_adapter(adapter, config_of(*tiny_llama()), folder.file("a.gguf"), type);
    CHECK(largest_difference(logits_with(tiny_llama(), read_gguf_adapter(folder.file("a.gguf"), config_of(*tiny_llama()))), logits_with(tiny_llama(), adapter)) < tolerance);
  }
  CHECK(contains(error_of<ConfigError>([&] { write_gguf_adapter(adapter, config_of(*tiny_llama()), folder.file("a.gguf"), GgmlType::q8_0); }), "multiple of 32"));
}

TEST_CASE("the table of tokens is stored flipped") {
  const TemporaryFolder folder;
  LoraAdapter adapter;
  adapter.where = "test";
  adapter.config = config_of({"model.embed_tokens"});
  adapter.parts.push_back({"model.embed_tokens", true, 1.5, random_normal({4, 40}, {1, 0}), random_normal({16, 4}, {2, 0}), {}, {}});
  write_gguf_adapter(adapter, config_of(*tiny_llama()), folder.file("a.gguf"));
  const GgufFile file(folder.file("a.gguf"));
  CHECK(file.info("token_embd.weight.lora_a").shape == Shape{40, 4});  // ggml: [r, vocabulary]
  CHECK(file.info("token_embd.weight.lora_b").shape == Shape{16, 4});  // ggml: [r, width]
  const LoraAdapter back = read_gguf_adapter(folder.file("a.gguf"), config_of(*tiny_llama()));
  CHECK(back.parts[0].embedding);
  CHECK(back.parts[0].a.to_vector<float>() == adapter.parts[0].a.to_vector<float>());
}

TEST_CASE("what the format cannot say") {
  const TemporaryFolder folder;
  const LoraAdapter plain = random_adapter(tiny_llama(), config_of({"q_proj"}));
  const auto refused = [&](const LoraAdapter& adapter, const std::string& config, const char* text) {
    const std::string error = error_of<ConfigError>([&] { write_gguf_adapter(adapter, config, folder.file("a.gguf")); });
    CHECK_MESSAGE(contains(error, text), error);
    CHECK(folder.entries() == 0);
  };
  const std::string config = config_of(*tiny_llama());
  LoraAdapter changed = plain;
  changed.parts[0].magnitude = ones({16});
  refused(changed, config, "DoRA");
  changed = plain;
  changed.parts[0].bias = ones({16});
  refused(changed, config, "lora_bias");
  changed = plain;
  changed.others = {{"lm_head.weight", ones({40, 16})}};
  refused(changed, config, "copies of modules");
  changed = plain;
  for (LoraAdapter::Part& part : changed.parts) part.scaling = 0.0;
  refused(changed, config, "alpha 0");
  changed = plain;
  changed.parts[0].path = "model.layers.0.self_attn.w_pack";
  refused(changed, config, "no tensor for it");
  changed = plain;
  changed.parts[0].path = "lm_head";
  Json tied = parse_json(config, "config");
  tied["tie_word_embeddings"] = true;
  refused(changed, tied.dump(), "tied");
  Json other = parse_json(config, "config");
  other["model_type"] = "bert";
  refused(plain, other.dump(), "bert");
}

TEST_CASE("files that are no adapters for this base") {
  const TemporaryFolder folder;
  const std::string config = config_of(*tiny_llama());
  const Tensor a = ones({4, 16}), b = ones({16, 4});
  const auto error = [&](GgufMetadata metadata, const std::vector<GgufTensor>& tensors) {
    save_gguf(folder.file("a.gguf"), metadata, tensors);
    return error_of<Error>([&] { read_gguf_adapter(folder.file("a.gguf"), config); });
  };
  const auto good = [] { return GgufMetadata().set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora").set("adapter.lora.alpha", 6.0F); };
  CHECK(error(good(), {{"blk.0.attn_q.weight.lora_a", a}, {"blk.0.attn_q.weight.lora_b", b}}).empty());
  CHECK(contains(error(good().set("general.type", "model"), {{"x.lora_a", a}}), "no adapter"));
  CHECK(contains(error(good().set("adapter.type", "ia3"), {{"x.lora_a", a}}), "adapter.type"));
  CHECK(contains(error(good().set("general.architecture", "gpt2"), {{"x.lora_a", a}}), "'gpt2'"));
  CHECK(contains(error(good().set("adapter.lora.alpha", 0.0F), {{"x.lora_a", a}}), "not 0"));
  CHECK(contains(error(good(), {{"blk.0.attn_q.weight.lora_c", a}}), ".lora_a or .lora_b"));
  CHECK(contains(error(good(), {{"blk.0.attn_x.weight.lora_a", a}}), "no tensor 'blk.0.attn_x.weight'"));
  CHECK(contains(error(good(), {{"blk.0.attn_q.weight.lora_a", a}}), "lora_b is missing"));
  CHECK(contains(error(good(), {{"blk.0.attn_q.weight.lora_a", a}, {"blk.0.attn_q.weight.lora_b", ones({16, 3})}}), "cannot be multiplied"));
}

TEST_CASE("the adapter of SmolLM2 that a converter made") {
  const std::optional<std::string> found = goldens("real/smollm2/lora");
  if (!found) return;
  const std::string& folder = *found;
  const std::string config = R"({"model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": true})";
  const LoraAdapter stored = read_gguf_adapter(folder + "/adapter-f16.gguf", config), ours = read_lora_adapter(folder + "/adapter");
  REQUIRE(stored.parts.size() == ours.parts.size());
  CHECK(stored.config.lora_alpha == 16);
  // Written again: the same tensors, bit for bit.
  const TemporaryFolder out;
  write_gguf_adapter(ours, config, out.file("a.gguf"), GgmlType::f16);
  const GgufFile theirs(folder + "/adapter-f16.gguf"), again(out.file("a.gguf"));
  for (const GgufTensorInfo& info : theirs.tensors()) CHECK(again.tensor(info.name).to_vector<float>() == theirs.tensor(info.name).to_vector<float>());
}
