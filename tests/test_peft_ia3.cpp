// IA3: golden vectors, merging that is undone bit for bit, several adapters, defaults, files.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "nn/linear.h"
#include "peft/peft_model.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Floats = std::vector<float>;

Tensor matrix(const Floats& values, std::int64_t rows, std::int64_t columns) { return from_vector(values, {rows, columns}); }

std::shared_ptr<IA3Layer> golden_layer(bool transposed, bool feedforward, DType dtype = DType::f32) {
  const Tensor bias = to_dtype(from_vector(Floats{.5F, -.5F, 1.F}, {3}), dtype);
  std::shared_ptr<Layer> base;
  if (transposed) base = std::make_shared<Conv1D>(to_dtype(matrix({1, 3, 5, 2, 4, 6}, 2, 3), dtype), bias);
  else base = std::make_shared<Linear>(to_dtype(matrix({1, 2, 3, 4, 5, 6}, 3, 2), dtype), bias);
  auto layer = std::make_shared<IA3Layer>(base, feedforward);
  layer->add_adapter("a", true, false, {});
  layer->ia3_l->at("a").set(feedforward ? matrix({2, .5F}, 1, 2) : matrix({2, .5F, -1}, 3, 1));
  layer->set_active({"a"});
  return layer;
}

void randomize(PeftModel& peft, std::uint64_t seed) {
  for (const auto& [path, layer] : peft.ia3().ia3_layers())
    for (const std::string& name : layer->adapters()) {
      const Tensor now = layer->ia3_l->at(name);
      const bool trained = now.requires_grad();
      layer->ia3_l->at(name).set(random_uniform(now.shape(), RandomKey{seed, 0}.fold(path).fold(name), -0.5, 1.5, now.dtype()).set_requires_grad(trained));
    }
}

IA3Config llama_config() { return {.target_modules = {"k_proj", "v_proj", "down_proj"}, .feedforward_modules = {"down_proj"}}; }

}  // namespace

TEST_CASE("golden vectors: forward, gradients, merged weights") {
  for (const bool transposed : {false, true}) {
    const auto layer = golden_layer(transposed, false);
    const Tensor x = matrix({1, 2, -1, .5F}, 2, 2);
    layer->ia3_l->at("a").get().set_requires_grad(true);
    const Tensor y = layer->forward(x, {});
    CHECK(y.to_vector<float>() == Floats{11, 5.25F, -18, 1, -.75F, 1});
    backward(sum(y));
    CHECK(layer->ia3_l->at("a").get().grad().shape() == Shape{3, 1});
    CHECK(layer->ia3_l->at("a").get().grad().to_vector<float>() == Floats{6, 9, 17});
    CHECK_FALSE(layer->weight().get().grad().defined());
    layer->merge({"a"}, true);
    CHECK(layer->weight().get().to_vector<float>() == (transposed ? Floats{2, 1.5F, -5, 4, 2, -6} : Floats{2, 4, 1.5F, 2, -5, -6}));
    CHECK(layer->bias().get().to_vector<float>() == Floats{1, -.25F, -1});
    CHECK(layer->forward(x, {}).to_vector<float>() == Floats{11, 5.25F, -18, 1, -.75F, 1});

    const auto inner = golden_layer(transposed, true);
    inner->ia3_l->at("a").get().set_requires_grad(true);
    const Tensor z = inner->forward(matrix({1, 2}, 1, 2), {});
    CHECK(z.to_vector<float>() == Floats{4.5F, 9.5F, 17});
    backward(sum(z));
    CHECK(inner->ia3_l->at("a").get().grad().to_vector<float>() == Floats{9, 24});  // x times the sums of the columns
    const Tensor bias = inner->bias().get();
    inner->merge({"a"}, true);
    CHECK(inner->weight().get().to_vector<float>() == (transposed ? Floats{2, 6, 10, 1, 2, 3} : Floats{2, 1, 6, 2, 10, 3}));
    CHECK(inner->bias().get().same_body(bias));
    CHECK(contains(error_of<StateError>([&] { inner->get_delta_weight("a"); }), "ia3"));
  }
}

TEST_CASE("unmerging gives the very tensors back, also after zeros; a broken adapter is refused") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto layer = golden_layer(false, false, dtype);
    const Tensor weight = layer->weight().get(), bias = layer->bias().get();
    layer->ia3_l->at("a").set(matrix({0, 1e-9F, 3}, 3, 1));
    layer->merge({"a"}, false);
    CHECK(layer->weight().get().dtype() == dtype);
    CHECK(layer->weight().get().to_vector<float>()[0] == 0);
    CHECK_FALSE(layer->bias().get().same_body(bias));
    CHECK(layer->unmerged_weight().same_body(weight));
    layer->set_enabled(false);
    CHECK(layer->forward(to_dtype(matrix({1, 2}, 1, 2), dtype), {}).to_vector<float>() == Floats{5.5F, 10.5F, 18});
    layer->set_enabled(true);
    layer->unmerge();
    CHECK(layer->weight().get().same_body(weight));
    CHECK(layer->bias().get().same_body(bias));
    layer->ia3_l->at("a").set(matrix({1, NAN, 1}, 3, 1));
    CHECK(contains(error_of<StateError>([&] { layer->merge({"a"}, true); }), "'a'"));
    CHECK(layer->weight().get().same_body(weight));
  }
}

TEST_CASE("a model: ones change nothing, adapters multiply, merging and switching") {
  for (const bool gpt2 : {false, true}) {
    const auto base = gpt2 ? tiny_gpt2() : tiny_llama();
    const std::vector<float> plain = logits_of(*base);
    IA3Config config;  // of the table
    auto peft = get_peft_model(base, config);
    CHECK(logits_of(peft) == plain);
    CHECK(peft.ia3().ia3_layers().size() == (gpt2 ? 4 : 6));
    CHECK(std::get<IA3Config>(peft.peft_config("default")).fan_in_fan_out == gpt2);
    CHECK(peft.trainable_parameter_count() == (gpt2 ? 2 * (48 + 64) : 2 * (8 + 8 + 24)));
    peft.add_adapter("other", config);
    randomize(peft, 3);
    const auto weights = values_of(peft);
    const std::vector<float> first = logits_of(peft);
    CHECK(largest_difference(first, plain) > 1e-2);
    peft.set_adapter("other");
    const std::vector<float> other = logits_of(peft);
    peft.set_adapter(std::vector<std::string>{"default", "other"});
    const std::vector<float> both = logits_of(peft);
    CHECK(largest_difference(both, first) > 1e-2);
    peft.merge_adapter({}, true);
    CHECK(largest_difference(logits_of(peft), both) < 1e-4);
    {
      DisableAdapter off(peft);
      CHECK(logits_of(peft) == plain);
    }
    peft.unmerge_adapter();
    CHECK(values_of(peft) == weights);
    CHECK(logits_of(peft) == both);
    peft.set_adapter("default");
    CHECK(logits_of(peft) == first);
    peft.delete_adapter("other");
    CHECK(logits_of(peft) == first);
    CHECK(largest_difference(logits_of(*peft.merge_and_unload()), first) < 1e-4);
  }
  auto peft = get_peft_model(tiny_llama(), llama_config());
  randomize(peft, 4);
  CHECK(logits_of(*peft.unload()) == logits_of(*tiny_llama()));
}

TEST_CASE("feed-forward modules: endings without a boundary, patterns, disagreement") {
  auto peft = get_peft_model(tiny_llama(), IA3Config{.target_modules = {"up_proj", "down_proj"}, .feedforward_modules = ".*\\.0\\.mlp\\.down_proj"});
  CHECK_FALSE(peft.ia3().ia3_layers()[0].second->is_feedforward());
  CHECK(peft.ia3().ia3_layers()[1].second->is_feedforward());
  CHECK_FALSE(peft.ia3().ia3_layers()[3].second->is_feedforward());
  const std::vector<float> before = logits_of(peft);
  CHECK(contains(error_of<ConfigError>([&] { peft.add_adapter("other", IA3Config{.target_modules = {"up_proj", "down_proj"}, .feedforward_modules = {"up_proj"}}); }), "feed-forward"));
  CHECK(peft.adapters() == std::vector<std::string>{"default"});
  CHECK(logits_of(peft) == before);
  auto ending = get_peft_model(tiny_llama(), IA3Config{.target_modules = {"up_proj", "wn_proj", "down_proj"}, .feedforward_modules = {"wn_proj"}});
  CHECK(ending.ia3().ia3_layers()[1].second->is_feedforward());
  auto none = get_peft_model(tiny_llama(), IA3Config{.target_modules = "all-linear", .feedforward_modules = std::vector<std::string>{}});
  CHECK(none.ia3().ia3_layers().size() == 14);
  CHECK(contains(error_of<ConfigError>([&] { get_peft_model(tiny_llama(), IA3Config{.target_modules = {"embed_tokens"}, .feedforward_modules = std::vector<std::string>{}}); }), "Linear and Conv1D"));
}

TEST_CASE("16-bit bases get float32 vectors; random starts; losses without whole logits") {
  auto peft = get_peft_model(tiny_llama(1, DType::bf16), llama_config());
  CHECK(peft.ia3().ia3_layers()[0].second->ia3_l->at("default").get().dtype() == DType::f32);
  CHECK(logits_of(peft) == logits_of(*tiny_llama(1, DType::bf16)));
  IA3Config random = llama_config();
  random.init_ia3_weights = false;
  auto other = get_peft_model(tiny_llama(), random);
  CHECK(logits_of(other) != logits_of(*tiny_llama()));

  auto head = get_peft_model(tiny_llama(), IA3Config{.target_modules = {"lm_head"}, .feedforward_modules = std::vector<std::string>{}});
  randomize(head, 5);
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  const double whole = head.forward(input).loss.item();
  input.want_logits = false;
  CHECK(head.forward(input).loss.item() == doctest::Approx(whole).epsilon(1e-6));
}

TEST_CASE("files: keys without the adapter's name, both ways, and names left in") {
  const TemporaryFolder folder;
  auto peft = get_peft_model(tiny_llama(), llama_config());
  randomize(peft, 6);
  const std::vector<float> expected = logits_of(peft);
  peft.merge_adapter();  // what is saved does not depend on it
  peft.save_pretrained(folder.path());
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  CHECK(file.names().size() == 6);
  CHECK(file.tensor("base_model.model.model.layers.0.self_attn.k_proj.ia3_l").shape() == Shape{8, 1});
  CHECK(file.tensor("base_model.model.model.layers.0.mlp.down_proj.ia3_l").shape() == Shape{1, 24});
  CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), folder.path(), "x")) == expected);
  std::vector<NamedTensor> renamed;
  for (const std::string& name : file.names()) renamed.emplace_back(name.substr(std::string("base_model.model.").size()) + ".default", clone(file.tensor(name)));
  save_safetensors(folder.file("adapter_model.safetensors"), renamed);
  CHECK(logits_of(PeftModel::from_pretrained(tiny_llama(), folder.path(), "y")) == expected);
}
