// Merging into files: the same bytes as merging in memory, for folders in shards and GGUF, LoRA and IA3; nothing half-made is left behind.
#include <doctest/doctest.h>

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <limits>

#include "peft/merge_file.h"
#include "peft/peft_model.h"
#include "tensor/atomic_file.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_gguf.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;
namespace fs = std::filesystem;

namespace {

LoraConfig config_of(ModuleSelection targets, std::int64_t r = 4) {
  LoraConfig config;
  config.r = r;
  config.lora_alpha = 6;
  config.target_modules = std::move(targets);
  return config;
}

/// An adapter with values everywhere, saved; returns its folder.
std::string save_random_adapter(std::shared_ptr<PretrainedModel> base, const LoraConfig& config, const std::string& folder, std::uint64_t seed = 3) {
  PeftModel peft = get_peft_model(std::move(base), config);
  for (const auto& [name, slot] : peft.base_model->adapter_state("default"))
    slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{seed, 0}.fold(name), -0.3, 0.3, slot->tensor.dtype());
  peft.save_pretrained(folder);
  return folder;
}

/// The folder that merging in memory writes.
void merge_in_memory(const std::string& model, const std::vector<std::string>& adapters, const std::string& out, std::int64_t shard_bytes = 5'000'000'000) {
  PeftModel peft = PeftModel::from_pretrained(AutoModelForCausalLM::from_pretrained(model), adapters[0], "a0");
  std::vector<std::string> names{"a0"};
  for (std::size_t i = 1; i < adapters.size(); ++i) {
    names.push_back("a" + std::to_string(i));
    peft.load_adapter(adapters[i], names.back());
  }
  save_pretrained(*peft.merge_and_unload(true, names), out, shard_bytes);
}

void check_same_files(const std::string& found, const std::string& expected) {
  std::size_t weights = 0;
  for (const auto& entry : fs::directory_iterator(expected)) {
    const std::string name = entry.path().filename().string();
    INFO(name);
    REQUIRE(fs::exists(fs::path(found) / name));
    if (name.ends_with(".safetensors")) {
      ++weights;
      CHECK(read_all((fs::path(found) / name).string()) == read_all(entry.path().string()));
    }
    if (name.ends_with("index.json")) CHECK(read_json_file((fs::path(found) / name).string())["weight_map"] == read_json_file(entry.path().string())["weight_map"]);
  }
  CHECK(weights > 0);
}

std::vector<float> logits_of_file(const std::string& path) { return logits_of(*AutoModelForCausalLM::from_pretrained(path)); }

}  // namespace

TEST_CASE("a folder in shards becomes the same shards that merging in memory writes, in every dtype") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    INFO(name_of(dtype));
    const TemporaryFolder folder;
    const std::string model = folder.file("model"), one = folder.file("one"), two = folder.file("two");
    save_pretrained(*tiny_llama(2, dtype), model, 3000);
    save_random_adapter(tiny_llama(2, dtype), config_of({"q_proj", "down_proj"}), one);
    LoraConfig second = config_of("all-linear", 3);
    second.use_rslora = true;
    save_random_adapter(tiny_llama(2, dtype), second, two, 4);
    folder.write("model/tokenizer.json", "{}");
    const MergeReport report = merge_model_files(model, {one, two}, folder.file("out"));
    merge_in_memory(model, {one, two}, folder.file("expected"), 3000);
    CHECK(report.files.size() > 2);
    CHECK(report.merged == 14);
    check_same_files(folder.file("out"), folder.file("expected"));
    CHECK(read_all(folder.file("out/config.json")) == read_all(folder.file("model/config.json")));
    CHECK(fs::exists(folder.file("out/tokenizer.json")));
    CHECK(folder.entries() == 5);  // nothing temporary is left
  }
}

TEST_CASE("a 16-bit result is one rounding of the float32 sum") {
  const TemporaryFolder folder;
  save_pretrained(*tiny_llama(1, DType::bf16), folder.file("model"));
  const std::string adapter = save_random_adapter(tiny_llama(1, DType::bf16), config_of({"q_proj"}), folder.file("adapter"));
  merge_model_files(folder.file("model"), {adapter}, folder.file("out"));
  merge_model_files(folder.file("model"), {adapter}, folder.file("wide"), {.dtype = DType::f32});
  const SafetensorsFile narrow(folder.file("out/model.safetensors")), wide(folder.file("wide/model.safetensors"));
  for (const std::string& name : narrow.names())
    CHECK(to_dtype(wide.tensor(name), DType::bf16).to_vector<float>() == narrow.tensor(name).to_vector<float>());
  CHECK(read_json_file(folder.file("wide/config.json"))["dtype"] == "float32");
}

TEST_CASE("biases that were trained in place and copies of modules in a 16-bit model") {
  const TemporaryFolder folder;
  const auto base = [] {
    const std::shared_ptr<PretrainedModel> model = tiny_gpt2();
    model->to(DType::bf16);
    return model;
  };
  save_pretrained(*base(), folder.file("model"));
  LoraConfig config = config_of({"c_attn"});
  config.bias = "all";
  config.modules_to_save = {"mlp.c_fc"};
  const std::string adapter = save_random_adapter(base(), config, folder.file("adapter"));
  merge_model_files(folder.file("model"), {adapter}, folder.file("out"));
  merge_in_memory(folder.file("model"), {adapter}, folder.file("expected"));
  check_same_files(folder.file("out"), folder.file("expected"));
}

TEST_CASE("GPT-2: transposed matrices, an adapted embedding's head, biases and copies that are not tied any more") {
  const TemporaryFolder folder;
  save_pretrained(*tiny_gpt2(), folder.file("model"));
  LoraConfig config = config_of({"c_attn", "c_proj", "c_fc"});
  config.bias = "all";
  const std::string adapter = save_random_adapter(tiny_gpt2(), config, folder.file("adapter"));
  merge_model_files(folder.file("model"), {adapter}, folder.file("out"));
  merge_in_memory(folder.file("model"), {adapter}, folder.file("expected"));
  check_same_files(folder.file("out"), folder.file("expected"));

  LoraConfig with_head = config_of({"c_attn"});
  with_head.modules_to_save = {"lm_head"};
  const std::string head = save_random_adapter(tiny_gpt2(), with_head, folder.file("head"));
  const MergeReport report = merge_model_files(folder.file("model"), {head}, folder.file("untied"));
  CHECK(report.notes.size() == 1);
  CHECK_FALSE(read_json_file(folder.file("untied/config.json"))["tie_word_embeddings"].get<bool>());
  PeftModel peft = PeftModel::from_pretrained(AutoModelForCausalLM::from_pretrained(folder.file("model")), head);
  CHECK(largest_difference(logits_of_file(folder.file("untied")), logits_of(peft)) < 1e-4);
}

TEST_CASE("IA3 and DoRA as their formulas say, on rows and on columns") {
  // The numbers of the specification: W = [[1,2],[3,4],[5,6]], b = [.5,-.5,1].
  const Tensor w = from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2});
  const auto rows_of = [](TensorEdit& edit, const Tensor& x) {
    std::vector<float> out;
    const auto read = [&](std::int64_t begin, std::int64_t end) { return slice(x, 0, begin, end); };
    for (std::int64_t i = 0; i < x.size(0); ++i)
      for (const float v : edit.rows(x.shape(), read, i, i + 1, 1).to_vector<float>()) out.push_back(v);
    return out;
  };
  TensorEdit outputs, inputs, bias, dora, turned;
  outputs.scale_rows(from_vector(std::vector<float>{2, .5F, -1}, {3, 1}));
  CHECK(rows_of(outputs, w) == std::vector<float>{2, 4, 1.5F, 2, -5, -6});
  inputs.scale_columns(from_vector(std::vector<float>{2, .5F}, {1, 2}));
  CHECK(rows_of(inputs, w) == std::vector<float>{2, 1, 6, 2, 10, 3});
  bias.scale_rows(from_vector(std::vector<float>{2, .5F, -1}, {3, 1}));
  CHECK(rows_of(bias, from_vector(std::vector<float>{.5F, -.5F, 1}, {3})) == std::vector<float>{1, -.25F, -1});
  const Tensor a = from_vector(std::vector<float>{1, -1, 2, 0}, {2, 2}), b = from_vector(std::vector<float>{1, 0, 0, 1, 1, 1}, {3, 2});
  const Tensor m = from_vector(std::vector<float>{2.23606801F, 5, 7.8102498F}, {3});
  const std::vector<float> expected{2.23606801F, 0, 4.34121609F, 2.48069477F, 7.34002209F, 2.66909885F};
  dora.add_dora(b, a, 2.0, false, m);
  CHECK(largest_difference(rows_of(dora, w), expected) < 1e-5);
  turned.add_dora(b, a, 2.0, true, m);
  const Tensor wt = contiguous(transpose(w));
  CHECK(largest_difference(transpose(from_vector(rows_of(turned, wt), {2, 3})).to_vector<float>(), expected) < 1e-5);
}

TEST_CASE("an IA3 folder, also on transposed weights") {
  const TemporaryFolder folder;
  for (const bool gpt2 : {false, true}) {
    const std::string model = folder.file(gpt2 ? "gpt2" : "llama"), adapter = model + "-ia3";
    const std::shared_ptr<PretrainedModel> base = gpt2 ? tiny_gpt2() : tiny_llama(1);
    save_pretrained(*base, model);
    fs::create_directories(adapter);
    const std::string out_path = gpt2 ? "transformer.h.0.attn.c_attn" : "model.layers.0.self_attn.k_proj", in_path = gpt2 ? "transformer.h.1.mlp.c_proj" : "model.layers.0.mlp.down_proj";
    const std::int64_t outs = gpt2 ? 48 : 8, ins = gpt2 ? 64 : 24;
    const Tensor l_out = random_uniform({outs, 1}, {1, 0}, -1, 2), l_in = random_uniform({1, ins}, {2, 0}, -1, 2);
    write_file(adapter + "/adapter_config.json", R"({"peft_type": "IA3"})");
    save_safetensors(adapter + "/adapter_model.safetensors", {{"base_model.model." + out_path + ".ia3_l", l_out}, {"base_model.model." + in_path + ".ia3_l", l_in}});
    merge_model_files(model, {adapter}, model + "-out");
    const SafetensorsFile before(model + "/model.safetensors"), after(model + "-out/model.safetensors");
    const auto turned = [&](const Tensor& x) { return gpt2 ? transpose(x) : x; };
    CHECK(after.tensor(out_path + ".weight").to_vector<float>() == turned(mul(turned(before.tensor(out_path + ".weight")), l_out)).to_vector<float>());
    CHECK(after.tensor(in_path + ".weight").to_vector<float>() == turned(mul(turned(before.tensor(in_path + ".weight")), l_in)).to_vector<float>());
    if (gpt2) CHECK(after.tensor(out_path + ".bias").to_vector<float>() == mul(before.tensor(out_path + ".bias"), reshape(l_out, {outs})).to_vector<float>());
    if (gpt2) CHECK(after.tensor(in_path + ".bias").to_vector<float>() == before.tensor(in_path + ".bias").to_vector<float>());
  }
}

TEST_CASE("GGUF to GGUF and to a folder: the rows of q and k are permuted, GPT-2's matrices turned") {
  for (const bool gpt2 : {false, true}) {
    INFO(gpt2);
    const TemporaryFolder folder;
    const std::shared_ptr<PretrainedModel> base = gpt2 ? tiny_gpt2() : tiny_llama();
    save_tiny_gguf(*base, folder.file("model.gguf"));
    CHECK(largest_difference(logits_of_file(folder.file("model.gguf")), logits_of(*base)) == 0.0);
    const ModuleSelection targets = gpt2 ? ModuleSelection{"c_attn", "c_proj"} : ModuleSelection{"q_proj", "k_proj", "v_proj", "gate_proj"};
    const std::string adapter = save_random_adapter(gpt2 ? tiny_gpt2() : tiny_llama(), config_of(targets), folder.file("adapter"));
    PeftModel peft = PeftModel::from_pretrained(base, adapter);
    const std::vector<float> expected = logits_of(peft);
    merge_model_files(folder.file("model.gguf"), {adapter}, folder.file("out.gguf"));
    merge_model_files(folder.file("model.gguf"), {adapter}, folder.file("out"));
    merge_model_files(folder.file("model.gguf"), {adapter}, folder.file("half.gguf"), {.gguf_type = GgmlType::f16});
    CHECK(largest_difference(logits_of_file(folder.file("out.gguf")), expected) < 1e-4);
    CHECK(largest_difference(logits_of_file(folder.file("out")), expected) < 1e-4);
    CHECK(largest_difference(logits_of_file(folder.file("half.gguf")), expected) < 0.05);
    CHECK(GgufFile(folder.file("half.gguf")).value("general.file_type").integer() == 1);
    CHECK(folder.entries() == 5);
  }
}

TEST_CASE("block formats are unpacked in rows") {
  const TemporaryFolder folder;
  const std::string config = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu"})";
  const std::shared_ptr<PretrainedModel> base = AutoModelForCausalLM::from_config(config, {1, 0});
  save_tiny_gguf(*base, folder.file("model.gguf"), GgmlType::q8_0);
  const std::string adapter = save_random_adapter(AutoModelForCausalLM::from_config(config, {1, 0}), config_of({"q_proj", "down_proj"}), folder.file("adapter"));
  merge_model_files(folder.file("model.gguf"), {adapter}, folder.file("wide.gguf"), {.gguf_type = GgmlType::f32});
  merge_model_files(folder.file("model.gguf"), {adapter}, folder.file("default.gguf"));
  PeftModel peft = PeftModel::from_pretrained(AutoModelForCausalLM::from_pretrained(folder.file("model.gguf")), adapter);
  CHECK(largest_difference(logits_of_file(folder.file("wide.gguf")), logits_of(peft)) < 1e-4);
  CHECK(GgufFile(folder.file("default.gguf")).info("blk.0.attn_q.weight").type == GgmlType::f16);
}

TEST_CASE("what does not fit is refused before anything is written") {
  const TemporaryFolder folder;
  save_pretrained(*tiny_llama(), folder.file("model"));
  const std::string adapter = save_random_adapter(tiny_llama(), config_of({"q_proj"}), folder.file("adapter")), foreign = save_random_adapter(tiny_gpt2(), config_of({"c_attn"}), folder.file("foreign"));
  const auto refused = [&](const std::vector<std::string>& adapters, const std::string& out, const MergeOptions& options, const char* text) {
    const std::string error = error_of<Error>([&] { merge_model_files(folder.file("model"), adapters, folder.file(out), options); });
    CHECK_MESSAGE(contains(error, text), error);
    CHECK(folder.entries() == 3);
  };
  refused({}, "out", {}, "at least one");
  refused({foreign}, "out", {}, "c_attn");
  refused({adapter}, "out.gguf", {}, "GGUF model only");
  refused({adapter}, "model", {}, "exists");
  refused({adapter}, "out", {.gguf_type = GgmlType::f16}, "GGUF type");
  refused({folder.file("model")}, "out", {}, "adapter_config.json");
  folder.write("adapter/adapter_config.json", R"({"peft_type": "PREFIX_TUNING"})");
  refused({adapter}, "out", {}, "change no weights");
}

TEST_CASE("an error, an interrupt or a full disk leaves nothing under the name") {
  const TemporaryFolder folder;
  save_pretrained(*tiny_llama(), folder.file("model"), 3000);
  const std::string adapter = save_random_adapter(tiny_llama(), config_of({"q_proj", "down_proj"}), folder.file("adapter"));
  std::size_t asked = 0;
  CHECK(contains(error_of<StateError>([&] { merge_model_files(folder.file("model"), {adapter}, folder.file("out"), {.stop = [&] { return ++asked > 9; }}); }), "stopped"));
  CHECK(folder.entries() == 2);

  // Every write beyond this size fails, as on a full disk.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{2500, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of<FileError>([&] { merge_model_files(folder.file("model"), {adapter}, folder.file("out")); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_MESSAGE(contains(error, "cannot be written"), error);
  CHECK(folder.entries() == 2);

  // NaN in an adapter is found before the folder has its name; asked not to look, it is written.
  PeftModel peft = PeftModel::from_pretrained(tiny_llama(), adapter);
  for (const auto& [path, layer] : peft.lora().lora_layers()) layer->lora_B->at("default").set(full(layer->lora_B->at("default").get().shape(), std::numeric_limits<double>::quiet_NaN()));
  peft.save_pretrained(folder.file("broken"));
  CHECK(contains(error_of<StateError>([&] { merge_model_files(folder.file("model"), {folder.file("broken")}, folder.file("out")); }), "NaN"));
  CHECK(folder.entries() == 3);
  merge_model_files(folder.file("model"), {folder.file("broken")}, folder.file("out"), {.safe = false});
  CHECK(fs::exists(folder.file("out")));
}
