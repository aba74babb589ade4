// Folders of prompt methods: what is written, loaded frozen, trained on, and refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "nn/optim/adamw.h"
#include "peft/peft_model.h"
#include "peft/prompt_tuner.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace fs = std::filesystem;

namespace {

PromptEncoderConfig lstm_config() {
  PromptEncoderConfig c;
  c.num_virtual_tokens = 3;
  c.encoder_reparameterization_type = PromptEncoderType::LSTM;
  c.encoder_hidden_size = 5;
  c.encoder_dropout = 0.5;
  c.task_type = TaskType::CAUSAL_LM;
  return c;
}

std::vector<PeftConfig> configs() {
  PromptTuningConfig prompt;
  prompt.num_virtual_tokens = 3;
  prompt.task_type = TaskType::CAUSAL_LM;
  PromptTuningConfig text = prompt;
  text.prompt_tuning_init = PromptTuningInit::TEXT;
  text.prompt_tuning_init_text = "a text";
  text.tokenizer_name_or_path = "nowhere";
  PrefixTuningConfig flat;
  flat.num_virtual_tokens = 2;
  flat.task_type = TaskType::CAUSAL_LM;
  PrefixTuningConfig projected = flat;
  projected.prefix_projection = true;
  PromptEncoderConfig mlp = lstm_config();
  mlp.encoder_reparameterization_type = PromptEncoderType::MLP;
  return {prompt, text, flat, projected, lstm_config(), mlp};
}

PeftModelOptions with_text() {
  PeftModelOptions options;
  options.key = RandomKey{11, 0};
  options.prompt_text_ids = {4, 7};
  return options;
}

void train(PeftModel& model, int steps) {
  AdamW optimizer(model.trainable_parameters(), AdamWConfig{.learning_rate = 0.05});
  for (int step = 0; step < steps; ++step) {
    ModelInput input = tiny_input();
    input.labels = input.input_ids;
    ForwardContext context;
    context.training = true;
    context.key = RandomKey{1, 0}.fold(static_cast<std::uint64_t>(step));
    backward(model.forward(input, context).loss);
    optimizer.step();
    optimizer.zero_grad();
  }
}

std::vector<NamedTensor> tensors_in(const std::string& path) {
  const SafetensorsFile file(path);
  std::vector<NamedTensor> out;
  for (const std::string& name : file.names()) out.emplace_back(name, clone(file.tensor(name)));
  return out;
}

}  // namespace

TEST_CASE("saved, loaded frozen and under another name, and trained on") {
  for (const PeftConfig& config : configs()) {
    CAPTURE(config.index());
    const TemporaryFolder folder;
    PeftModel model = get_peft_model(tiny_llama(), config, with_text());
    train(model, 2);
    model.save_pretrained(folder.path());
    const std::vector<NamedTensor> saved = tensors_in(folder.file("adapter_model.safetensors"));
    REQUIRE(saved.size() == 1);
    CHECK(saved[0].first == "prompt_embeddings");
    CHECK(saved[0].second.dtype() == DType::f32);

    PeftModel loaded = PeftModel::from_pretrained(tiny_llama(), folder.path(), "else");
    CHECK(loaded.trainable_parameter_count() == 0);
    CHECK(loaded.adapters() == std::vector<std::string>{"else"});
    CHECK(loaded.parameter_count() == loaded.model().parameter_count() + saved[0].second.count());  // the encoder is not needed any more
    CHECK(largest_difference(logits_of(loaded), logits_of(model)) <= 1e-6);
    const TemporaryFolder again;
    save_adapter(*loaded.base_model, "else", again.path());
    CHECK_FALSE(fs::exists(again.file("prompt_encoder.safetensors")));
    CHECK(tensors_in(again.file("adapter_model.safetensors"))[0].second.to_vector<float>() == saved[0].second.to_vector<float>());

    // The side file lets training go on as if nothing had happened.
    PeftModel resumed = PeftModel::from_pretrained(tiny_llama(), folder.path(), "default", {.is_trainable = true});
    CHECK(resumed.trainable_parameter_count() == model.trainable_parameter_count());
    train(resumed, 2);
    train(model, 2);
    CHECK(values_of(resumed) == values_of(model));
    fs::remove(folder.file("prompt_encoder.safetensors"));
    CHECK(contains(error_of<StateError>([&] { PeftModel::from_pretrained(tiny_llama(), folder.path(), "default", {.is_trainable = true}); }), "prompt_encoder.safetensors"));
  }
}

TEST_CASE("what is saved does not depend on dropout") {
  PeftModel model = get_peft_model(tiny_llama(), lstm_config());
  const auto first = model.base_model->adapter_tensors("default"), second = model.base_model->adapter_tensors("default");
  CHECK(first[0].second.to_vector<float>() == second[0].second.to_vector<float>());
  ForwardContext training;
  training.training = true;
  training.key = RandomKey{5, 0};
  const auto& tuner = dynamic_cast<const PromptTuner&>(*model.base_model);
  CHECK(tuner.prompt_encoder("default").forward(training).to_vector<float>() != first[0].second.to_vector<float>());
}

TEST_CASE("encoders that do not belong to the adapter, and broken files, change nothing") {
  const TemporaryFolder folder, other;
  PeftModel model = get_peft_model(tiny_llama(), lstm_config(), {.key = RandomKey{1, 0}}), stranger = get_peft_model(tiny_llama(), lstm_config(), {.key = RandomKey{2, 0}});
  model.save_pretrained(folder.path());
  stranger.save_pretrained(other.path());
  fs::copy_file(other.file("prompt_encoder.safetensors"), folder.file("prompt_encoder.safetensors"), fs::copy_options::overwrite_existing);
  PeftModel target = get_peft_model(tiny_llama(), lstm_config());
  const auto before = values_of(target);
  const auto unchanged = [&] { return values_of(target) == before && target.adapters().size() == 1 && target.trainable_parameter_count() == stranger.trainable_parameter_count(); };
  CHECK(contains(error_of<StateError>([&] { target.load_adapter(folder.path(), "b", {.is_trainable = true}); }), "do not belong together"));
  CHECK(unchanged());

  std::vector<NamedTensor> encoder = tensors_in(other.file("prompt_encoder.safetensors"));
  encoder.pop_back();
  save_safetensors(other.file("prompt_encoder.safetensors"), encoder);
  CHECK(contains(error_of<NameError>([&] { target.load_adapter(other.path(), "b", {.is_trainable = true}); }), "expected 21 tensors, found 20"));
  CHECK(unchanged());
  save_safetensors(other.file("adapter_model.safetensors"), {{"prompt_embeddings", zeros({3, 15})}});
  CHECK_FALSE(error_of<NameError>([&] { target.load_adapter(other.path(), "b"); }).empty());
  CHECK(unchanged());
  save_safetensors(other.file("adapter_model.safetensors"), {{"prompt_embedding", zeros({3, 16})}});
  CHECK_FALSE(error_of<NameError>([&] { target.load_adapter(other.path(), "b"); }).empty());
  CHECK(unchanged());
}

TEST_CASE("several adapters: one file each, selected ones, folders of their own") {
  const TemporaryFolder folder;
  PeftModel model = get_peft_model(tiny_gpt2(), lstm_config(), {.key = RandomKey{1, 0}});
  model.add_adapter("second", lstm_config(), {.key = RandomKey{2, 0}});
  model.save_pretrained(folder.path());
  CHECK(fs::exists(folder.file("second/adapter_model.safetensors")));
  PeftModel loaded = PeftModel::from_pretrained(tiny_gpt2(), folder.file("second"));
  loaded.load_adapter(folder.path(), "first");
  model.set_adapter("second");
  CHECK(largest_difference(logits_of(loaded), logits_of(model)) <= 1e-6);
  loaded.set_adapter("first");
  model.set_adapter("default");
  CHECK(largest_difference(logits_of(loaded), logits_of(model)) <= 1e-6);
}

TEST_CASE("files of PEFT 0.4") {
  const TemporaryFolder folder;
  std::ofstream(folder.file("adapter_config.json")) << R"({"base_model_name_or_path": "x", "inference_mode": true, "num_attention_heads": 4, "num_layers": 2, "num_transformer_submodules": 1,
    "num_virtual_tokens": 3, "peft_type": "PREFIX_TUNING", "encoder_hidden_size": 16, "prefix_projection": false, "task_type": "CAUSAL_LM", "token_dim": 16, "revision": null,
    "postprocess_past_key_value_function": null})";
  save_safetensors(folder.file("adapter_model.safetensors"), {{"prompt_embeddings", to_dtype(random_normal({3, 2 * 2 * 16}, RandomKey{1, 0}), DType::f16)}});
  PeftModel loaded = PeftModel::from_pretrained(tiny_gpt2(), folder.path());
  CHECK(dynamic_cast<const PromptTuner&>(*loaded.base_model).prompt_embeddings("default").dtype() == DType::f32);
}

TEST_CASE("copies of modules are trained and saved beside a prompt") {
  const TemporaryFolder folder;
  PromptTuningConfig config;
  config.num_virtual_tokens = 3;
  config.task_type = TaskType::CAUSAL_LM;
  config.modules_to_save = std::vector<std::string>{"lm_head"};
  PeftModel model = get_peft_model(tiny_llama(), config);
  train(model, 2);
  model.save_pretrained(folder.path());
  std::vector<std::string> keys;
  for (const auto& [key, tensor] : tensors_in(folder.file("adapter_model.safetensors"))) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  CHECK(keys == std::vector<std::string>{"base_model.lm_head.weight", "prompt_embeddings"});
  PeftModel loaded = PeftModel::from_pretrained(tiny_llama(), folder.path());
  CHECK(logits_of(loaded) == logits_of(model));
  PeftModel resumed = PeftModel::from_pretrained(tiny_llama(), folder.path(), "default", {.is_trainable = true});
  train(resumed, 1);
  train(model, 1);
  CHECK(values_of(resumed) == values_of(model));
  // Without the adapter the original head answers.
  const DisableAdapter off(model);
  CHECK(logits_of(model) == logits_of(*tiny_llama()));
}
