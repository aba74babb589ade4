// DoRA and biases on B: golden vectors, dropout, several adapters, merging.
#include "tests/lora_layers.h"

#include "autograd/engine.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"

using namespace cambium;
using namespace cambium::test;

TEST_CASE("DoRA: golden vectors; the length is not differentiated; merging comes back bit for bit") {
  for (const bool transposed : {false, true}) {
    LoraLayerOptions options = options_of(2, 4);
    options.use_dora = true;
    const auto layer = layer_of(transposed, options);
    check_close(layer->lora_magnitude_vector->at("a").get(), {2.23606801F, 5, 7.8102498F});
    check_close(layer->forward(matrix({1, 2}, 1, 2), {}), {5.5F, 10.5F, 18});  // B is zero
    set_golden(*layer);
    for (const auto& [key, slot] : layer->adapter_parameters("a")) slot->tensor.set_requires_grad(true);
    const Tensor y = layer->forward(matrix({1, 2}, 1, 2), {});
    check_close(y, {2.73606825F, 8.80260563F, 13.67821884F});
    backward(sum(y));
    check_close(layer->lora_A->at("a").get().grad(), {2.82526159F, 5.65052319F, 2.57489681F, 5.14979362F});
    check_close(layer->lora_B->at("a").get().grad(), {-1.49071205F, 2.98142409F, -1.24034739F, 2.48069477F, -1.33454943F, 2.66909885F});
    check_close(layer->lora_magnitude_vector->at("a").get().grad(), {1, 1.86052096F, 1.62327957F});
    CHECK_FALSE(layer->weight().get().grad().defined());
    const Tensor before = layer->weight().get();
    layer->merge({"a"}, true);
    const Floats rows{2.23606801F, 0, 4.34121609F, 2.48069477F, 7.34002209F, 2.66909885F};
    check_close(transposed ? contiguous(transpose(layer->weight().get())) : layer->weight().get(), rows);
    check_close(layer->forward(matrix({1, 2}, 1, 2), {}), {2.73606825F, 8.80260563F, 13.67821884F});
    layer->unmerge();
    CHECK(layer->weight().get().same_body(before));
    // Another base weight: its row lengths are not taken from the old one.
    layer->weight().set(mul(before, 2.0));
    const Tensor w2 = add(mul(to_dtype(before, DType::f32), 2.0), layer->get_delta_weight("a"));
    const Tensor rows2 = transposed ? transpose(w2) : w2;
    const Tensor expected = mul(mul(rows2, unsqueeze(div(detach(layer->lora_magnitude_vector->at("a").get()), norm(rows2, {1})), 1)), matrix({1, 2}, 1, 2));
    check_close(sub(layer->forward(matrix({1, 2}, 1, 2), {}), layer->bias().get()), sum(expected, {1}).to_vector<float>(), 1e-4);
  }
}

TEST_CASE("DoRA while training with dropout drops the input of the base's part as well") {
  LoraLayerOptions options = options_of(2, 4);
  options.use_dora = true;
  options.dropout = 0.5;
  for (const bool transposed : {false, true}) {
    const auto layer = layer_of(transposed, options);
    set_golden(*layer);
    layer->lora_magnitude_vector->at("a").set(from_vector(Floats{1, 2, 3}, {3}));
    ForwardContext training;
    training.training = true;
    training.key = RandomKey{5, 0};
    const Tensor x = random_uniform({6, 2}, RandomKey{6, 0}, -1, 1), dropped = dropout(x, 0.5, training.key.fold("").fold("a"));
    const Tensor stored = layer->weight().get(), w = transposed ? contiguous(transpose(stored)) : stored;
    const Tensor delta = transposed ? contiguous(transpose(layer->get_delta_weight("a"))) : layer->get_delta_weight("a");
    const Tensor factor = div(from_vector(Floats{1, 2, 3}, {3}), norm(add(w, delta), {1}));
    const Tensor expected = linear(x, w, layer->bias().get()) + (factor - 1.0) * linear(dropped, w) + factor * linear(dropped, delta);
    CHECK(largest_difference(layer->forward(x, training).to_vector<float>(), expected.to_vector<float>()) < 1e-5);
    CHECK(largest_difference(layer->forward(x, {}).to_vector<float>(), expected.to_vector<float>()) > 1e-2);
  }
}

TEST_CASE("several adapters, some of them DoRA, merge to what they do") {
  LoraLayerOptions dora = options_of(2, 4), plain = options_of(2, 2);
  dora.use_dora = true;
  dora.init = plain.init = false;
  for (const bool transposed : {false, true}) {
    const auto layer = layer_of(transposed, dora);
    layer->add_adapter("b", plain, RandomKey{2, 0});
    layer->add_adapter("c", dora, RandomKey{3, 0});
    for (const char* name : {"a", "c"}) layer->lora_magnitude_vector->at(name).set(from_vector(Floats{1, 2, 3}, {3}));
    const Tensor x = random_uniform({4, 2}, RandomKey{6, 0}, -1, 1);
    for (const auto& names : {std::vector<std::string>{"a", "b"}, {"b", "a"}, {"a", "c"}, {"c", "b", "a"}}) {
      layer->set_active(names);
      const Floats expected = layer->forward(x, {}).to_vector<float>();
      layer->merge(names, true);
      CHECK(largest_difference(layer->forward(x, {}).to_vector<float>(), expected) < 1e-4);
      layer->unmerge();
      CHECK(layer->forward(x, {}).to_vector<float>() == expected);
    }
  }
}

TEST_CASE("a bias on B is scaled like the rest; it merges into a bias or not at all") {
  LoraLayerOptions options = options_of(2, 4);
  options.lora_bias = true;
  for (const bool transposed : {false, true}) {
    const auto layer = layer_of(transposed, options);
    set_golden(*layer);
    CHECK(layer->lora_B->bias("a").get().to_vector<float>() == Floats{0, 0, 0});
    layer->lora_B->bias("a").set(from_vector(Floats{1, 2, 3}, {3}).set_requires_grad(true));
    const Tensor y = layer->forward(matrix({1, 2}, 1, 2), {});
    CHECK(y.to_vector<float>() == Floats{5.5F, 18.5F, 26});
    backward(sum(y));
    CHECK(layer->lora_B->bias("a").get().grad().to_vector<float>() == Floats{2, 2, 2});
    const Tensor bias = layer->bias().get();
    layer->merge({"a"}, true);
    CHECK(layer->forward(matrix({1, 2}, 1, 2), {}).to_vector<float>() == Floats{5.5F, 18.5F, 26});
    layer->unmerge();
    CHECK(layer->bias().get().same_body(bias));
  }
  const auto without = layer_of(false, options, false);
  set_golden(*without);
  without->lora_B->bias("a").set(from_vector(Floats{1, 2, 3}, {3}));
  CHECK(without->forward(matrix({1, 2}, 1, 2), {}).to_vector<float>() == Floats{5, 19, 25});
  CHECK(contains(error_of<StateError>([&] { without->merge({"a"}, false); }), "no bias to merge it into"));
  CHECK_FALSE(without->merged());
  LoraConfig config = config_of({"q_proj", "embed_tokens"});
  config.lora_bias = true;
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_llama(), config); }), "embedding"));
}

TEST_CASE("biases of the base and of B are told apart") {
  const TemporaryFolder folder;
  LoraConfig config = config_of({"c_attn"});
  config.lora_bias = true;
  config.bias = "all";
  auto peft = get_peft_model(tiny_gpt2(), config);
  peft.save_pretrained(folder.path());
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  CHECK(file.contains("base_model.model.transformer.h.1.attn.c_attn.lora_B.bias"));
  CHECK(file.contains("base_model.model.transformer.h.1.attn.c_attn.base_layer.bias"));
  CHECK(file.names().size() == 2 * 3 + 2 * 6 + 1);
  CHECK(logits_of(PeftModel::from_pretrained(tiny_gpt2(), folder.path(), "x")) == logits_of(peft));
}
