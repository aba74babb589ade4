// Adapter folders: round trips, names of keys, spellings of other writers, reports, and loads that fail without a trace.
#include <doctest/doctest.h>

#include <filesystem>

#include "peft/peft_model.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Names = std::vector<std::string>;

LoraConfig config_of(ModuleSelection targets, std::int64_t r = 2) {
  LoraConfig config;
  config.r = r;
  config.target_modules = std::move(targets);
  config.init_lora_weights = false;  // B is not zero, so that a wrong load is seen
  return config;
}

PeftModelOptions named(const std::string& name, std::uint64_t seed = 9) {
  PeftModelOptions options;
  options.adapter_name = name;
  options.key = RandomKey{seed, 0};
  return options;
}

std::vector<NamedTensor> tensors_in(const std::string& folder) {
  const SafetensorsFile file(folder + "/adapter_model.safetensors");
  std::vector<NamedTensor> out;
  for (const std::string& name : file.names()) out.emplace_back(name, clone(file.tensor(name)));
  return out;
}
Names keys_in(const std::string& folder) {
  Names out;
  for (const auto& [name, tensor] : tensors_in(folder)) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

/// Rewrites the file's tensors under other names.
template <class F>
void rename_keys(const std::string& folder, F&& rename) {
  std::vector<NamedTensor> tensors = tensors_in(folder);
  for (auto& [name, tensor] : tensors) name = rename(name);
  save_safetensors(folder + "/adapter_model.safetensors", tensors);
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) text.replace(at, what.size(), by);
  return text;
}

std::vector<bool> flags_of(const Module& module) {
  std::vector<bool> out;
  for (const auto& [name, slot] : module.named_parameters()) out.push_back(slot->tensor.requires_grad());
  return out;
}

}  // namespace

TEST_CASE("save, load under another name: the same outputs bit for bit, frozen unless asked") {
  for (const int kind : {0, 1, 2, 3, 4, 5}) {
    INFO(kind);
    const TemporaryFolder folder;
    const bool gpt2 = kind >= 3;
    LoraConfig config = kind == 0 ? config_of({"q_proj", "v_proj"}) : kind == 1 ? config_of("all-linear") : kind == 2 ? config_of({"q_proj", "lm_head"}) : config_of({"c_attn"});
    if (kind == 1) config.rank_pattern = {{"q_proj", 5}, {"0.self_attn.v_proj", 1}};
    if (kind == 3) config.bias = "all";
    if (kind == 4) config.bias = "lora_only";
    if (kind == 5) config.modules_to_save = Names{"lm_head"};
    const auto make = [&] { return gpt2 ? tiny_gpt2() : tiny_llama(); };
    auto peft = get_peft_model(make(), config, named("default"));
    for (const auto& [name, slot] : peft.trainable_parameters())  // biases and copies away from the base's
      if (!contains(name, "lora_")) slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{2, 0}.fold(name), -0.2, 0.2).set_requires_grad(true);
    const std::vector<float> expected = logits_of(peft);
    peft.save_pretrained(folder.path());
    CHECK(folder.entries() == 3);  // nothing temporary is left

    auto loaded = PeftModel::from_pretrained(make(), folder.path(), "other");
    CHECK(logits_of(loaded) == expected);
    CHECK(loaded.trainable_parameters().empty());
    CHECK(loaded.adapters() == Names{"other"});
    AdapterLoadOptions options;
    options.is_trainable = true;
    auto trained = PeftModel::from_pretrained(make(), folder.path(), "default", options);
    CHECK(trained.trainable_parameter_count() == peft.trainable_parameter_count());
    const TemporaryFolder again;
    trained.save_pretrained(again.path());
    for (const char* file : {"adapter_model.safetensors", "adapter_config.json", "README.md"}) CHECK(read_all(again.file(file)) == read_all(folder.file(file)));
  }
}

TEST_CASE("file keys hold no adapter's name, whatever it is called") {
  Names expected;
  for (const std::string name : {"default", "default2", "other_default", "lora", "lora_A", "weight", "base_layer", "q_proj", "model", "0", "efaul"}) {
    INFO(name);
    const TemporaryFolder folder;
    auto peft = get_peft_model(tiny_llama(), config_of({"q_proj", "v_proj"}), named(name));
    const std::vector<float> logits = logits_of(peft);
    peft.save_pretrained(folder.path());
    const std::string where = name == "default" ? folder.path() : folder.file(name);
    if (expected.empty()) {
      expected = keys_in(where);
      CHECK(expected.size() == 8);
      CHECK(expected[0] == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    }
    CHECK(keys_in(where) == expected);
    CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), where, name)) == logits);
    CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), where, "default")) == logits);
  }
}

TEST_CASE("several adapters: sub-folders, selected ones, unknown ones before anything is written") {
  const TemporaryFolder folder;
  auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  peft.add_adapter("b", config_of({"v_proj"}));
  peft.add_adapter("c", config_of({"v_proj"}));
  CHECK_THROWS_AS(peft.save_pretrained(folder.path(), {"b", "nobody"}), NameError);
  CHECK(folder.entries() == 0);
  peft.save_pretrained(folder.path(), {"b"});
  CHECK(folder.entries() == 1);
  CHECK(keys_in(folder.file("b")).size() == 4);
  peft.save_pretrained(folder.path());
  CHECK(folder.entries() == 5);
  const std::string file = folder.write("plain", "x");
  CHECK(contains(error_of<FileError>([&] { peft.save_pretrained(file); }), "is a file"));
}

TEST_CASE("keys as other programs spell them") {
  const auto check_loads = [](const std::string& folder, const std::vector<float>& expected, const char* name, bool gpt2) {
    AdapterLoadOptions options;
    CHECK(logits_of(PeftModel::from_pretrained(gpt2 ? tiny_gpt2() : tiny_llama(), folder, name, options)) == expected);
  };
  const TemporaryFolder folder;
  auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  const std::vector<float> expected = logits_of(peft);
  peft.save_pretrained(folder.path());
  rename_keys(folder.path(), [](const std::string& name) { return replaced(name, "base_model.model.model.", "model."); });
  check_loads(folder.path(), expected, "default", false);
  check_loads(folder.path(), expected, "x", false);
  rename_keys(folder.path(), [](const std::string& name) { return replaced(replaced(name, "lora_A.", "lora_A.default."), "lora_B.", "lora_B.default."); });
  check_loads(folder.path(), expected, "default", false);
  check_loads(folder.path(), expected, "x", false);

  const TemporaryFolder old;
  LoraConfig config = config_of({"c_attn"});
  config.bias = "lora_only";
  auto gpt2 = get_peft_model(tiny_gpt2(), config);
  for (const auto& [name, slot] : gpt2.trainable_parameters())
    if (name.ends_with("bias")) slot->tensor = full(slot->tensor.shape(), 0.25);
  const std::vector<float> with_bias = logits_of(gpt2);
  gpt2.save_pretrained(old.path());
  CHECK(keys_in(old.path())[0] == "base_model.model.transformer.h.0.attn.c_attn.base_layer.bias");
  rename_keys(old.path(), [](const std::string& name) { return replaced(name, ".base_layer.bias", ".bias"); });
  check_loads(old.path(), with_bias, "default", true);
}

TEST_CASE("16-bit files load into float32 adapters") {
  const TemporaryFolder folder;
  auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  peft.save_pretrained(folder.path());
  std::vector<NamedTensor> tensors = tensors_in(folder.path());
  for (auto& [name, tensor] : tensors) tensor = to_dtype(tensor, DType::bf16);
  save_safetensors(folder.file("adapter_model.safetensors"), tensors);
  auto loaded = PeftModel::from_pretrained(tiny_llama(), folder.path());
  const Tensor a = loaded.lora().lora_layers()[0].second->lora_A->at("default").get();
  CHECK(a.dtype() == DType::f32);
  CHECK(a.to_vector<float>() == to_dtype(to_dtype(peft.lora().lora_layers()[0].second->lora_A->at("default").get(), DType::bf16), DType::f32).to_vector<float>());
}

TEST_CASE("missing, unexpected, mismatched: an error that leaves no trace, or a report") {
  struct Case {
    const char* what;
    std::size_t missing, unexpected, mismatched;
    void (*damage)(std::vector<NamedTensor>&);
  };
  const Case cases[] = {
      {"missing", 1, 0, 0, [](std::vector<NamedTensor>& t) { t.pop_back(); }},
      {"unexpected", 0, 1, 0, [](std::vector<NamedTensor>& t) { t.emplace_back("base_model.model.nothing.lora_A.weight", zeros({2, 2})); }},
      {"of another shape", 0, 0, 1, [](std::vector<NamedTensor>& t) { t[0].second = zeros({3, 16}); }},
      {"of another shape", 0, 0, 1, [](std::vector<NamedTensor>& t) { t[0].second = to_dtype(t[0].second, DType::i32); }},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    const TemporaryFolder folder;
    {
      auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
      peft.save_pretrained(folder.path());
      std::vector<NamedTensor> tensors = tensors_in(folder.path());
      c.damage(tensors);
      save_safetensors(folder.file("adapter_model.safetensors"), tensors);
    }
    const auto base = tiny_llama();
    base->set_requires_grad(true);
    const auto before = values_of(*base);
    CHECK(contains(error_of<NameError>([&] { PeftModel::from_pretrained(base, folder.path()); }), c.what));
    CHECK(base->parent() == nullptr);
    CHECK(values_of(*base) == before);
    CHECK(flags_of(*base) == std::vector<bool>(before.size(), true));

    auto peft = get_peft_model(base, config_of({"v_proj"}, 3));
    peft.base_model->set_adapter({"default"}, true);
    peft.merge_adapter();
    const auto with_adapter = values_of(peft);
    const auto flags = flags_of(peft);
    CHECK(contains(error_of<NameError>([&] { peft.load_adapter(folder.path(), "second"); }), "1 " + std::string(c.what)));
    CHECK(values_of(peft) == with_adapter);
    CHECK(flags_of(peft) == flags);
    CHECK(peft.adapters() == Names{"default"});
    CHECK(peft.active_adapters() == Names{"default"});
    CHECK(peft.base_model->merged_adapters() == Names{"default"});
    CHECK(peft.base_model->adapter_layers().size() == 2);

    AdapterLoadOptions lenient;
    lenient.strict = false;
    const LoadReport report = peft.load_adapter(folder.path(), "second", lenient);
    CHECK(report.missing.size() == c.missing);
    CHECK(report.unexpected.size() == c.unexpected);
    CHECK(report.mismatched.size() == c.mismatched);
    CHECK_FALSE(report.complete());
    CHECK(flags_of(*peft.model().child("model.layers.0.self_attn.v_proj").module()) == std::vector<bool>(3, false));
    CHECK(peft.base_model->merged_adapters() == Names{"default"});
  }
}

TEST_CASE("loading a second adapter, trainable or not, does not touch the first") {
  const TemporaryFolder folder;
  get_peft_model(tiny_llama(), config_of({"q_proj"})).save_pretrained(folder.path());
  for (const bool trainable : {false, true}) {
    auto frozen = PeftModel::from_pretrained(tiny_llama(), folder.path());
    AdapterLoadOptions options;
    options.is_trainable = trainable;
    frozen.load_adapter(folder.path(), "second", options);
    CHECK(frozen.trainable_parameters().empty());
    frozen.set_adapter("second");
    CHECK(frozen.trainable_parameters().size() == (trainable ? 4 : 0));
    frozen.set_adapter("default");
    CHECK(frozen.trainable_parameters().empty());
    auto trained = get_peft_model(tiny_llama(), config_of({"q_proj"}));
    trained.load_adapter(folder.path(), "second", options);
    CHECK(trained.trainable_parameters().size() == 4);
  }
}

TEST_CASE("what cannot be read says so, and the model is as it was") {
  const TemporaryFolder folder;
  const auto base = tiny_llama();
  const auto refused = [&](const std::string& path) {
    const std::string text = error_of<Error>([&] { PeftModel::from_pretrained(base, path); });
    CHECK(base->parent() == nullptr);
    return text;
  };
  CHECK(contains(refused(folder.file("nothing")), "nothing"));
  CHECK(contains(refused(folder.path()), "adapter_config.json"));
  folder.write("adapter_config.json", to_json(config_of({"q_proj"})));
  CHECK(contains(refused(folder.path()), "adapter_model.safetensors"));
  folder.write("adapter_model.bin", "PK\3\4");
  CHECK(contains(refused(folder.path()), "pickle"));
  folder.write("adapter_model.safetensors", "rubbish");
  CHECK(contains(refused(folder.path()), "adapter_model.safetensors"));
  LoraConfig other = config_of({"q_proj"});
  folder.write("adapter_config.json", to_json(config_of({"nothing"})));
  get_peft_model(tiny_llama(), other).save_pretrained(folder.file("good"));
  std::filesystem::copy_file(folder.file("good/adapter_model.safetensors"), folder.file("adapter_model.safetensors"), std::filesystem::copy_options::overwrite_existing);
  CHECK(contains(refused(folder.path()), "nothing"));
  auto peft = PeftModel::from_pretrained(base, folder.file("good"));
  CHECK_THROWS_AS(peft.load_adapter(folder.file("good"), "default"), NameError);
  CHECK(peft.adapters() == Names{"default"});
}
