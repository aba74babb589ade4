// LoRA on embeddings and heads, tied ones too: golden rows, losses without whole logits, what is saved of the base.
#include "tests/lora_layers.h"

#include <cmath>

#include "autograd/engine.h"
#include "nn/embedding.h"
#include "peft/chunked_loss.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"

using namespace cambium;
using namespace cambium::test;

TEST_CASE("embeddings: golden rows, gradients, the padding row, DoRA") {
  const auto table = std::make_shared<Embedding>(matrix({1, 2, 3, 4, 5, 6}, 3, 2), 1);
  LoraEmbedding layer(table);
  layer.add_adapter("a", options_of(1, 2), RandomKey{1, 0});
  layer.set_active({"a"});
  CHECK(layer.lora_embedding_A->at("a").get().to_vector<float>() == Floats{0, 0, 0});
  layer.lora_embedding_A->at("a").set(matrix({1, 0, -1}, 1, 3).set_requires_grad(true));
  layer.lora_embedding_B->at("a").set(matrix({1, 2}, 2, 1).set_requires_grad(true));
  const Tensor ids = from_vector(std::vector<std::int64_t>{0, 1, 2}, {3});
  const Tensor y = layer.forward(ids, {});
  CHECK(y.to_vector<float>() == Floats{3, 6, 3, 4, 3, 2});
  backward(sum(y));
  CHECK(layer.lora_embedding_A->at("a").get().grad().to_vector<float>() == Floats{6, 0, 6});  // row 1 is padding
  CHECK(layer.lora_embedding_B->at("a").get().grad().to_vector<float>() == Floats{0, 0});
  CHECK(layer.get_delta_weight("a").to_vector<float>() == Floats{2, 4, 0, 0, -2, -4});
  layer.merge({"a"}, true);
  CHECK(layer.forward(ids, {}).to_vector<float>() == Floats{3, 6, 3, 4, 3, 2});
  layer.set_enabled(false);
  CHECK(layer.forward(ids, {}).to_vector<float>() == Floats{1, 2, 3, 4, 5, 6});
  layer.set_enabled(true);
  layer.unmerge();
  ForwardContext training;
  training.training = true;
  CHECK(layer.forward(ids, training).to_vector<float>() == Floats{3, 6, 3, 4, 3, 2});

  LoraLayerOptions options = options_of(1, 2);
  options.use_dora = true;
  layer.add_adapter("d", options, RandomKey{1, 0});
  check_close(layer.lora_magnitude_vector->at("d").get(), {std::sqrt(35.F), std::sqrt(56.F)});  // one for each column of the table
  layer.lora_embedding_A->at("d").set(matrix({1, 0, -1}, 1, 3));
  layer.lora_embedding_B->at("d").set(matrix({1, 2}, 2, 1));
  layer.set_active({"d"});
  const Tensor whole = matrix({3, 6, 3, 4, 3, 2}, 3, 2);
  const Tensor expected = mul(whole, div(detach(layer.lora_magnitude_vector->at("d").get()), norm(whole, {0})));
  check_close(layer.forward(ids, {}), expected.to_vector<float>());
  layer.merge({"d"}, true);
  check_close(layer.forward(ids, {}), expected.to_vector<float>());
}

TEST_CASE("an adapted table that the head is tied to: the head joins in when it is merged, and disabling brings the base back bit for bit") {
  for (const bool dora : {false, true}) {
    LoraConfig config = config_of({"wte", "c_attn"});
    config.use_dora = dora;
    const std::vector<float> plain = logits_of(*tiny_gpt2());
    auto peft = get_peft_model(tiny_gpt2(), config);
    CHECK(std::get<LoraConfig>(peft.peft_config("default")).fan_in_fan_out);
    randomize(peft, 3);
    const std::vector<float> adapted = logits_of(peft);
    peft.merge_adapter();
    const std::vector<float> merged = logits_of(peft);
    CHECK(largest_difference(merged, adapted) > 1e-3);
    {
      DisableAdapter off(peft);
      CHECK(logits_of(peft) == plain);
    }
    CHECK(logits_of(peft) == merged);
    peft.unmerge_adapter();
    CHECK(logits_of(peft) == adapted);
    CHECK(logits_of(*peft.unload()) == plain);
  }
  // Both sides of a tied pair adapted: each has its own factors, merging adds both to the one weight, and all of it comes back.
  auto both = get_peft_model(tiny_gpt2(), config_of({"wte", "lm_head"}));
  randomize(both, 5);
  const auto values = values_of(both);
  const std::vector<float> adapted = logits_of(both);
  both.merge_adapter();
  {
    DisableAdapter off(both);
    CHECK(logits_of(both) == logits_of(*tiny_gpt2()));
  }
  both.unmerge_adapter();
  CHECK(values_of(both) == values);
  CHECK(logits_of(both) == adapted);
  auto positions = get_peft_model(tiny_gpt2(), config_of({"wpe"}));
  CHECK_FALSE(std::get<LoraConfig>(positions.peft_config("default")).fan_in_fan_out);
}

TEST_CASE("heads: the loss without whole logits is that with them, and so are its gradients") {
  for (const int kind : {0, 1, 2}) {
    INFO(kind);
    LoraConfig config = config_of({"lm_head", "q_proj"});
    config.use_dora = kind == 1;
    config.lora_bias = kind == 2;
    auto peft = get_peft_model(tiny_llama(), config);
    randomize(peft, 4);
    ModelInput input = tiny_input();
    input.labels = input.input_ids;
    std::vector<std::vector<float>> grads[2];
    for (const bool whole : {true, false}) {
      input.want_logits = whole;
      backward(peft.forward(input).loss);
      for (const auto& [name, slot] : peft.trainable_parameters()) {
        grads[whole].push_back(slot->tensor.grad().to_vector<float>());
        slot->tensor.reset_grad();
      }
    }
    REQUIRE(grads[0].size() == grads[1].size());
    for (std::size_t i = 0; i < grads[0].size(); ++i) CHECK(largest_difference(grads[0][i], grads[1][i]) < 1e-6);
  }
}

TEST_CASE("chunks of rows: loss and gradients of any head") {
  const Tensor w = random_uniform({5, 4}, RandomKey{1, 0}, -1, 1).set_requires_grad(true), hidden = random_uniform({2500, 4}, RandomKey{2, 0}, -1, 1).set_requires_grad(true);
  std::vector<std::int64_t> ids(2500);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = i % 7 == 3 ? -100 : static_cast<std::int64_t>(i % 5);
  const Tensor targets = from_vector(ids, {2500});
  for (const std::optional<double> count : {std::optional<double>(), std::optional<double>(77.0)}) {
    int calls = 0;
    const Tensor loss = cambium::detail::chunked_cross_entropy(hidden, targets, count, 5, {&w, 1}, [&](const Tensor& rows, std::uint64_t chunk) {
      CHECK(chunk == static_cast<std::uint64_t>(calls++));
      return linear(rows, w);
    });
    CHECK(calls == 3);
    const Tensor expected = linear_cross_entropy(hidden, w, {}, targets, -100, count);
    CHECK(loss.item() == doctest::Approx(expected.item()).epsilon(1e-5));
    const std::vector<Tensor> inputs{hidden, w}, a = grad({&loss, 1}, inputs), b = grad({&expected, 1}, inputs);
    for (std::size_t i = 0; i < 2; ++i) CHECK(largest_difference(a[i].to_vector<float>(), b[i].to_vector<float>()) < 1e-5);
    NoGrad no_grad;
    CHECK(cambium::detail::chunked_cross_entropy(hidden, targets, count, 5, {}, [&](const Tensor& rows, std::uint64_t) { return linear(rows, w); }).item() ==
          doctest::Approx(expected.item()).epsilon(1e-5));
  }
}

TEST_CASE("what is saved of the base is what it was before merging") {
  for (const char* target : {"lm_head", "embed_tokens"}) {
    const TemporaryFolder folder;
    auto peft = get_peft_model(tiny_llama(), config_of({"q_proj", target}));
    const std::vector<float> logits = logits_of(peft);
    const std::string key = std::string(target) == "lm_head" ? "base_model.model.lm_head.base_layer.weight" : "base_model.model.model.embed_tokens.base_layer.weight";
    peft.save_pretrained(folder.file("before"));
    peft.merge_adapter();
    peft.save_pretrained(folder.file("after"));
    CHECK(read_all(folder.file("before/adapter_model.safetensors")) == read_all(folder.file("after/adapter_model.safetensors")));
    CHECK(SafetensorsFile(folder.file("after/adapter_model.safetensors")).contains(key));
    CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), folder.file("after"))) == logits);
  }
  const TemporaryFolder folder;
  LoraConfig config = config_of({"c_attn"});
  config.bias = "all";
  config.use_dora = true;
  auto peft = get_peft_model(tiny_gpt2(), config);
  const std::vector<float> logits = logits_of(peft);
  peft.merge_adapter();
  peft.save_pretrained(folder.path());
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  CHECK(file.contains("base_model.model.transformer.h.0.attn.c_attn.base_layer.bias"));
  CHECK(file.contains("base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector"));
  CHECK(file.contains("base_model.model.transformer.ln_f.bias"));
  CHECK(logits_of(PeftModel::from_pretrained(tiny_gpt2(), folder.path())) == logits);
  // As PEFT 0.11 and trainers spell the magnitude.
  for (const char* ending : {".weight", ".default.weight"}) {
    std::vector<NamedTensor> tensors;
    for (const std::string& name : file.names()) tensors.emplace_back(name.ends_with("magnitude_vector") ? name + ending : name, clone(file.tensor(name)));
    const TemporaryFolder other;
    save_safetensors(other.file("adapter_model.safetensors"), tensors);
    other.write("adapter_config.json", read_all(folder.file("adapter_config.json")));
    CHECK(logits_of(PeftModel::from_pretrained(tiny_gpt2(), other.path(), "z")) == logits);
  }
}
