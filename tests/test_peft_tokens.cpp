// Trained rows of embeddings, copies of modules in 16-bit models, status reports, preparation of 16-bit bases.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "peft/peft_model.h"
#include "peft/prepare.h"
#include "peft/trainable_tokens.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Floats = std::vector<float>;
using Names = std::vector<std::string>;

LoraConfig config_of(TokenIndices tokens, ModuleSelection targets = {"q_proj"}) {
  LoraConfig config;
  config.r = 2;
  config.target_modules = std::move(targets);
  config.init_lora_weights = false;
  config.trainable_token_indices = std::move(tokens);
  return config;
}

std::vector<TrainableTokens*> token_layers(const PeftModel& peft) {
  std::vector<TrainableTokens*> out;
  for (const auto& [path, layer] : peft.base_model->adapter_layers())
    if (auto* tokens = dynamic_cast<TrainableTokens*>(layer)) out.push_back(tokens);
  return out;
}

void randomize(PeftModel& peft, const std::string& adapter, std::uint64_t seed) {
  Param& rows = token_layers(peft)[0]->trainable_tokens_delta->at(adapter);
  rows.set(random_uniform(rows.get().shape(), RandomKey{seed, 0}, -1, 1).set_requires_grad(rows.get().requires_grad()));
}

}  // namespace

TEST_CASE("rows are replaced, trained alone, merged and brought back") {
  const auto table = std::make_shared<Embedding>(from_vector(Floats{1, 2, 3, 4, 5, 6, 7, 8}, {4, 2}), 3);
  TrainableTokens layer(table);
  layer.add_adapter("a", {2, 0, 3}, false);
  layer.set_active({"a"});
  const Tensor ids = from_vector(std::vector<std::int64_t>{0, 1, 2, 2, 3}, {1, 5});
  CHECK(layer.trainable_tokens_delta->at("a").get().to_vector<float>() == Floats{5, 6, 1, 2, 7, 8});
  CHECK(layer.forward(ids, {}).to_vector<float>() == Floats{1, 2, 3, 4, 5, 6, 5, 6, 7, 8});
  layer.trainable_tokens_delta->at("a").set(from_vector(Floats{10, 20, 30, 40, 50, 60}, {3, 2}).set_requires_grad(true));
  const Tensor y = layer.forward(ids, {});
  CHECK(y.to_vector<float>() == Floats{30, 40, 3, 4, 10, 20, 10, 20, 50, 60});
  backward(sum(y));
  CHECK(layer.trainable_tokens_delta->at("a").get().grad().to_vector<float>() == Floats{2, 2, 1, 1, 0, 0});  // 3 is padding
  const Tensor before = layer.weight().get();
  layer.merge({"a"}, true);
  CHECK(layer.weight().get().to_vector<float>() == Floats{30, 40, 3, 4, 10, 20, 50, 60});
  CHECK(before.to_vector<float>() == Floats{1, 2, 3, 4, 5, 6, 7, 8});
  layer.unmerge();
  CHECK(layer.weight().get().same_body(before));
  layer.add_adapter("b", {1, 2}, false);
  CHECK(contains(error_of<StateError>([&] { layer.merge({"a", "b"}, false); }), "both train token 2"));
  layer.set_active({"a", "b"});
  CHECK(contains(error_of<StateError>([&] { layer.forward(ids, {}); }), "both train token 2"));
  CHECK(contains(error_of<ConfigError>([&] { layer.add_adapter("c", {4}, false); }), "below 4, found 4"));
  CHECK(layer.adapters() == Names{"a", "b"});
}

TEST_CASE("an untied model: list or map, the head stays, files hold the rows in the order given") {
  const TemporaryFolder folder;
  for (const TokenIndices& tokens : {TokenIndices{9, 1}, TokenIndices{{"embed_tokens", {9, 1}}}}) {
    auto peft = get_peft_model(tiny_llama(), config_of(tokens));
    CHECK(token_layers(peft).size() == 1);
    CHECK(peft.trainable_parameter_count() == 2 * 2 * (16 + 16) + 2 * 16);
    const std::vector<float> start = logits_of(peft);
    randomize(peft, "default", 3);
    const std::vector<float> logits = logits_of(peft);
    CHECK(logits != start);
    peft.save_pretrained(folder.path());
    const SafetensorsFile file(folder.file("adapter_model.safetensors"));
    CHECK(file.tensor("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta").to_vector<float>() ==
          token_layers(peft)[0]->trainable_tokens_delta->at("default").get().to_vector<float>());
    CHECK(file.names().size() == 5);
    CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), folder.path(), "x")) == logits);
    peft.merge_adapter();
    CHECK(largest_difference(logits_of(peft), logits) < 1e-4);
    {
      DisableAdapter off(peft);
      CHECK(logits_of(peft) == logits_of(*tiny_llama()));
    }
    peft.unmerge_adapter();
    CHECK(logits_of(peft) == logits);
    CHECK(logits_of(*peft.unload()) == logits_of(*tiny_llama()));
  }
  CHECK(contains(error_of<ConfigError>([] { get_peft_model(tiny_llama(), config_of({{"nothing", {1}}})); }), "'nothing'"));
  CHECK(contains(error_of<ConfigError>([] { get_peft_model(tiny_llama(), config_of({40})); }), "below 40, found 40"));
  CHECK(contains(error_of<ConfigError>([] { get_peft_model(tiny_llama(), config_of({1}, {"embed_tokens", "q_proj"})); }), "embed_tokens"));
  auto head = get_peft_model(tiny_llama(), config_of({{"lm_head", {5}}}));
  randomize(head, "default", 4);
  const std::vector<float> logits = logits_of(head), plain = logits_of(get_peft_model(tiny_llama(), config_of({{"lm_head", {5}}})));
  for (std::size_t i = 0; i < logits.size(); ++i) CHECK((std::fabs(logits[i] - plain[i]) < 1e-5) == (i % 40 != 5));
}

TEST_CASE("a tied head uses the same rows, whole logits or not, merged or not") {
  auto peft = get_peft_model(tiny_gpt2(), config_of({9, 30}, {"c_attn"}));
  CHECK(token_layers(peft).size() == 2);
  CHECK(token_layers(peft)[1]->is_tied());
  CHECK(peft.trainable_parameter_count() == 2 * 2 * (16 + 48) + 2 * 16);
  randomize(peft, "default", 3);
  const std::vector<float> logits = logits_of(peft);
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  Tensor rows = token_layers(peft)[0]->trainable_tokens_delta->at("default");
  const auto gradient = [&](bool whole) {
    input.want_logits = whole;
    backward(peft.forward(input).loss);
    const std::vector<float> out = rows.grad().to_vector<float>();
    rows.reset_grad();
    return out;
  };
  CHECK(largest_difference(gradient(true), gradient(false)) < 1e-6);
  peft.merge_adapter();
  CHECK(largest_difference(logits_of(peft), logits) < 1e-4);
  {
    DisableAdapter off(peft);
    CHECK(logits_of(peft) == logits_of(*tiny_gpt2()));
  }
  CHECK(largest_difference(logits_of(peft), logits) < 1e-4);
  peft.unmerge_adapter();
  CHECK(logits_of(peft) == logits);
  peft.add_adapter("other", config_of({30}, {"c_attn"}));
  CHECK(contains(error_of<StateError>([&] { peft.set_adapter(Names{"default", "other"}); }), "token 30"));
  CHECK(peft.active_adapters() == Names{"default"});
  peft.set_adapter("other");
  peft.delete_adapter("default");
  CHECK(logits_of(*peft.merge_and_unload()).size() == logits.size());
}

TEST_CASE("a float32 copy of a 16-bit module computes in float32") {
  LoraConfig config = config_of({}, {"q_proj"});
  config.modules_to_save = Names{"lm_head", "embed_tokens"};
  auto peft = get_peft_model(tiny_llama(1, DType::bf16), config);
  CHECK(peft.base_model->saved_modules()[0].second->copy_of("default")->named_parameters()[0].second->tensor.dtype() == DType::f32);
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  CHECK(peft.forward(input).logits.dtype() == DType::bf16);
  input.want_logits = false;
  backward(peft.forward(input).loss);
  for (const auto& [name, slot] : peft.trainable_parameters()) CHECK(slot->tensor.grad().defined());
}

TEST_CASE("status of the whole model, irregular where layers differ") {
  auto peft = get_peft_model(tiny_llama(), config_of({}));
  peft.add_adapter("other", config_of({}, {"v_proj"}));
  ModelStatus status = peft.get_model_status();
  CHECK(status.adapter_model_type == "LoraModel");
  CHECK(status.base_model_type == "LlamaForCausalLM");
  CHECK(status.peft_types == std::vector<std::pair<std::string, std::string>>{{"default", "LORA"}, {"other", "LORA"}});
  CHECK(status.num_adapter_layers == 4);
  CHECK(status.enabled == "true");
  CHECK(status.active_adapters == Names{"default"});
  CHECK(status.merged_adapters.empty());
  CHECK(status.requires_grad == std::vector<std::pair<std::string, std::string>>{{"default", "true"}, {"other", "false"}});
  CHECK(status.trainable_params == peft.trainable_parameter_count());
  CHECK(status.total_params == peft.parameter_count());
  const auto layers = peft.base_model->adapter_layers();
  layers[0].second->merge({"default"}, false);
  layers[2].second->set_enabled(false);
  layers[0].second->adapter_parameters("default")[0].second->tensor.set_requires_grad(false);
  status = peft.get_model_status();
  CHECK(status.merged_adapters == Names{"irregular"});
  CHECK(status.enabled == "irregular");
  CHECK(status.requires_grad[0].second == "irregular");
}

TEST_CASE("preparing a 16-bit base: float32, frozen, checkpoints, ties kept") {
  for (const bool checkpoints : {true, false}) {
    const auto model = tiny_llama(1, DType::bf16);
    model->set_requires_grad(true);
    CHECK(prepare_model_for_int8_training(model, checkpoints) == model);
    for (const auto& [name, slot] : model->named_parameters()) {
      CHECK(slot->tensor.dtype() == DType::f32);
      CHECK_FALSE(slot->tensor.requires_grad());
    }
    CHECK(model->gradient_checkpointing() == checkpoints);
  }
  const auto tied = tiny_gpt2();
  const std::size_t count = tied->named_parameters().size();
  tied->to(DType::f16);
  prepare_model_for_kbit_training(tied);
  CHECK(tied->named_parameters().size() == count);
  auto peft = get_peft_model(tied, config_of({}, {"c_attn"}));
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  backward(peft.forward(input).loss);
  for (const auto& [name, slot] : peft.trainable_parameters()) CHECK(slot->tensor.grad().defined());
  CHECK(contains(error_of<StateError>([&] { prepare_model_for_kbit_training(tied); }), "carries adapters"));
}

TEST_CASE("which parameters are trained: two adapters with their own tables, copies and layers") {
  LoraConfig first = config_of({}, {"embed_tokens", "q_proj"}), second = config_of({}, {"q_proj"});
  first.modules_to_save = Names{"lm_head"};
  second.modules_to_save = Names{"norm"};
  auto peft = get_peft_model(tiny_llama(), first);
  peft.add_adapter("other", second);
  const auto trained = [&] {
    Names out;
    for (const auto& [name, slot] : peft.trainable_parameters()) out.push_back(name);
    return out;
  };
  const auto all_of = [](const Names& names, const char* adapter, std::size_t count) {
    return names.size() == count && std::all_of(names.begin(), names.end(), [&](const std::string& n) { return contains(n, "." + std::string(adapter)); });
  };
  CHECK(all_of(trained(), "default", 4 + 2 + 1));
  peft.set_adapter("other");
  CHECK(all_of(trained(), "other", 4 + 5));  // the final norm, and input_layernorm and post_attention_layernorm of each layer: entries are endings
  peft.set_adapter(Names{"default", "other"});
  CHECK(trained().size() == 16);
  peft.set_adapter("default");
  CHECK(all_of(trained(), "default", 7));
}

TEST_CASE("several copies of one module cannot be active at once; containers cannot be copied") {
  LoraConfig config = config_of({});
  config.modules_to_save = Names{"lm_head"};
  auto peft = get_peft_model(tiny_llama(), config);
  peft.add_adapter("other", config);
  CHECK(contains(error_of<StateError>([&] { peft.set_adapter(Names{"default", "other"}); }), "lm_head"));
  CHECK(peft.active_adapters() == Names{"default"});
  config.modules_to_save = Names{"layers"};
  config.target_modules = {"lm_head"};
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_llama(), config); }), "ModuleList"));
}

TEST_CASE("every kind on 16-bit bases, adapters in float32 or in the base's type: forward, backward, merged") {
  for (const DType dtype : {DType::bf16, DType::f16})
    for (const bool autocast : {true, false})
      for (const int kind : {0, 1, 2, 3, 4, 5}) {
        INFO(kind);
        PeftModelOptions options;
        options.autocast_adapter_dtype = autocast;
        LoraConfig config = kind == 3 ? config_of({}, {"embed_tokens", "q_proj"}) : kind == 4 ? config_of({3, 9}) : config_of({}, {"q_proj", "lm_head"});
        config.use_dora = kind == 1;
        config.lora_bias = kind == 2;
        if (kind == 0) config.lora_dropout = 0.1;
        const PeftConfig any = kind == 5 ? PeftConfig(IA3Config{.target_modules = {"k_proj", "down_proj", "lm_head"}, .feedforward_modules = {"down_proj"}}) : PeftConfig(config);
        auto peft = get_peft_model(tiny_llama(1, dtype), any, options);
        for (const auto& [name, slot] : peft.trainable_parameters()) CHECK(slot->tensor.dtype() == (autocast ? DType::f32 : dtype));
        ModelInput input = tiny_input();
        input.labels = input.input_ids;
        ForwardContext context;
        context.training = true;
        CHECK(peft.forward(input, context).logits.dtype() == dtype);
        for (const bool whole : {true, false}) {
          input.want_logits = whole;
          backward(peft.forward(input, context).loss);
        }
        for (const auto& [name, slot] : peft.trainable_parameters()) {
          REQUIRE(slot->tensor.grad().defined());
          CHECK(all_finite(slot->tensor.grad()));
        }
        if (kind == 2) continue;  // no biases in this base
        const std::vector<float> before = logits_of(peft);
        peft.merge_adapter({}, true);
        CHECK(largest_difference(logits_of(peft), before) < 0.3);  // two roundings of 8 bits on logits of a few units
        peft.unmerge_adapter();
        CHECK(logits_of(peft) == before);
      }
}

TEST_CASE("what comes out of a wrapped model has the base's own names and values") {
  for (const bool merge : {false, true}) {
    const auto base = tiny_gpt2();
    const auto before = base->state_dict();
    auto peft = get_peft_model(base, config_of({3}, {"c_attn", "wpe"}));
    const auto out = merge ? peft.merge_and_unload() : peft.unload();
    const auto after = out->state_dict();
    REQUIRE(after.size() == before.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      CHECK(after[i].first == before[i].first);
      if (!merge) CHECK(after[i].second.same_body(before[i].second));
    }
  }
}
