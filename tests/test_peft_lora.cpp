// LoRA layers and PeftModel: golden vectors, scaling, merging, switching, deleting, taking out again.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "nn/linear.h"
#include "nn/optim/adamw.h"
#include "peft/peft_model.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

Tensor matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) { return from_vector(values, {rows, columns}); }

std::shared_ptr<LoraLinear> golden_layer(bool transposed = false, DType dtype = DType::f32) {
  const Tensor bias = to_dtype(from_vector(std::vector<float>{.5F, -.5F, 1.F}, {3}), dtype);
  std::shared_ptr<LinearLike> base;
  if (transposed) base = std::make_shared<Conv1D>(to_dtype(matrix({1, 3, 5, 2, 4, 6}, 2, 3), dtype), bias);
  else base = std::make_shared<Linear>(to_dtype(matrix({1, 2, 3, 4, 5, 6}, 3, 2), dtype), bias);
  auto layer = std::make_shared<LoraLinear>(base);
  LoraLayerOptions a, c;
  a.r = c.r = 2;
  a.alpha = 4;
  c.alpha = 2;
  layer->add_adapter("a", a, {});
  layer->add_adapter("c", c, {});
  layer->lora_A->at("a").set(matrix({1, -1, 2, 0}, 2, 2));
  layer->lora_B->at("a").set(matrix({1, 0, 0, 1, 1, 1}, 3, 2));
  layer->lora_A->at("c").set(matrix({0, 1, 1, 3}, 2, 2));
  layer->lora_B->at("c").set(matrix({2, 1, 1, 0, 0, -1}, 3, 2));
  layer->set_active({"a"});
  return layer;
}

/// Gives every adapter values that are not zero, different by adapter.
void randomize(PeftModel& peft, std::uint64_t seed) {
  for (const auto& [path, layer] : peft.lora().lora_layers())
    for (const std::string& name : layer->adapters()) {
      const Tensor now = layer->lora_B->at(name);
      const bool trained = now.requires_grad();
      const Tensor value = random_uniform(now.shape(), RandomKey{seed, 0}.fold(path).fold(name), -0.3, 0.3, now.dtype());
      value.set_requires_grad(trained);
      layer->lora_B->at(name).set(value);
    }
}

LoraConfig config_of(ModuleSelection targets, std::int64_t r = 4) {
  LoraConfig config;
  config.r = r;
  config.lora_alpha = 8;
  config.target_modules = std::move(targets);
  return config;
}

std::vector<std::string> trainable_names(const PeftModel& peft) {
  std::vector<std::string> names;
  for (const auto& [name, slot] : peft.trainable_parameters()) names.push_back(name);
  return names;
}

bool all_hold(const std::vector<std::string>& names, std::string_view part) {
  return !names.empty() && std::all_of(names.begin(), names.end(), [&](const std::string& n) { return contains(n, part); });
}

}  // namespace

TEST_CASE("golden vectors: forward, gradients, delta") {
  for (const bool transposed : {false, true}) {
    const auto layer = golden_layer(transposed);
    const Tensor x = matrix({1, 2, -1, .5F}, 2, 2);
    for (const char* which : {"lora_A", "lora_B"}) (std::string_view(which) == "lora_A" ? layer->lora_A : layer->lora_B)->at("a").get().set_requires_grad(true);
    const Tensor y = layer->forward(x, {});
    CHECK(y.to_vector<float>() == std::vector<float>{3.5F, 14.5F, 20, -2.5F, -5.5F, -8});
    backward(sum(y));
    CHECK(layer->lora_A->at("a").get().grad().to_vector<float>() == std::vector<float>{0, 10, 0, 10});
    CHECK(layer->lora_B->at("a").get().grad().to_vector<float>() == std::vector<float>{-5, 0, -5, 0, -5, 0});
    CHECK_FALSE(layer->weight().get().grad().defined());
    const std::vector<float> a{2, -2, 4, 0, 6, -2}, c{1, 5, 0, 1, -1, -3}, at{2, 4, 6, -2, 0, -2}, ct{1, 0, -1, 5, 1, -3};
    CHECK(layer->get_delta_weight("a").to_vector<float>() == (transposed ? at : a));
    CHECK(layer->get_delta_weight("c").to_vector<float>() == (transposed ? ct : c));
    CHECK_THROWS_AS(layer->get_delta_weight("b"), NameError);
    // Both active: the terms add up.
    layer->set_active({"c", "a"});
    CHECK(layer->forward(matrix({1, 2}, 1, 2), {}).to_vector<float>() == std::vector<float>{14.5F, 16.5F, 13});
  }
}

TEST_CASE("merging is bit-exact to undo, in any order, and refuses what is not finite") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto layer = golden_layer(false, dtype);
    const Tensor before = layer->weight().get();
    const std::vector<float> original = before.to_vector<float>();
    layer->merge({"a"}, false);
    CHECK(layer->merged());
    CHECK(layer->weight().get().dtype() == dtype);
    CHECK(layer->weight().get().to_vector<float>() == std::vector<float>{3, 0, 7, 4, 11, 4});
    layer->merge({"a"}, false);  // again: nothing happens
    CHECK(layer->merged_adapters() == std::vector<std::string>{"a"});
    CHECK(layer->weight().get().to_vector<float>() == std::vector<float>{3, 0, 7, 4, 11, 4});
    layer->merge({"c", "unknown"}, true);
    CHECK(layer->merged_adapters() == std::vector<std::string>{"a", "c"});
    CHECK(layer->weight().get().to_vector<float>() == std::vector<float>{4, 5, 7, 5, 10, 1});
    layer->unmerge();
    CHECK(layer->weight().get().same_body(before));
    CHECK(layer->weight().get().to_vector<float>() == original);
    layer->merge({"c", "a"}, true);
    CHECK(layer->weight().get().to_vector<float>() == std::vector<float>{4, 5, 7, 5, 10, 1});
    CHECK(contains(error_of<StateError>([&] { layer->delete_adapter("a"); }), "merged"));
    layer->unmerge();
    layer->unmerge();
    CHECK(layer->weight().get().same_body(before));
  }
}

TEST_CASE("a bfloat16 weight is rounded once, whatever number of calls merged into it") {
  const auto layer = golden_layer(false, DType::bf16);
  layer->lora_B->at("a").set(matrix({.001F, 0, 0, .001F, .001F, .001F}, 3, 2));
  layer->lora_B->at("c").set(matrix({.002F, .001F, .001F, 0, 0, -.001F}, 3, 2));
  const Tensor sum_once = to_dtype(add(add(to_dtype(layer->weight().get(), DType::f32), layer->get_delta_weight("a")), layer->get_delta_weight("c")), DType::bf16);
  layer->merge({"a"}, false);
  layer->merge({"c"}, false);
  CHECK(layer->weight().get().to_vector<float>() == sum_once.to_vector<float>());
}

TEST_CASE("scaling: alpha over r, over its root, set, scaled and brought back, also after an exception") {
  LoraConfig config = config_of({"q_proj", "v_proj"});
  config.rank_pattern = {{"layers.1.self_attn.q_proj", 2}};
  config.alpha_pattern = {{"v_proj", 5}};
  auto peft = get_peft_model(tiny_llama(), config);
  const auto scaling = [&](std::size_t i) { return peft.lora().lora_layers()[i].second->scaling("default"); };
  CHECK(peft.lora().lora_layers().size() == 4);
  CHECK(scaling(0) == 2.0);
  CHECK(scaling(1) == 5.0 / 4.0);
  CHECK(peft.lora().lora_layers()[2].second->r("default") == 2);
  CHECK(scaling(2) == 4.0);
  {
    RescaleAdapterScale scope(peft.lora(), 0.5);
    CHECK(scaling(0) == 1.0);
  }
  CHECK(scaling(0) == 2.0);
  try {
    RescaleAdapterScale scope(peft.lora(), 3);
    throw std::runtime_error("x");
  } catch (const std::runtime_error&) {
  }
  CHECK(scaling(2) == 4.0);
  CHECK_THROWS_AS(RescaleAdapterScale(peft.lora(), NAN), ConfigError);
  LoraLayer& layer = *peft.lora().lora_layers()[0].second;
  layer.set_scale("default", 3);
  CHECK(scaling(0) == 6.0);
  layer.set_scale("nobody", 3);
  layer.scale_layer(2);
  CHECK(scaling(0) == 12.0);
  layer.unscale_layer(4);
  CHECK(scaling(0) == 3.0);
  layer.unscale_layer();
  CHECK(scaling(0) == 2.0);
  CHECK_THROWS_AS(layer.unscale_layer(0.0), ConfigError);

  config.use_rslora = true;
  auto rslora = get_peft_model(tiny_llama(), config);
  CHECK(rslora.lora().lora_layers()[0].second->scaling("default") == 4.0);
  CHECK(rslora.lora().lora_layers()[2].second->scaling("default") == doctest::Approx(8.0 / std::sqrt(2.0)).epsilon(1e-15));
}

TEST_CASE("initial values: B zero keeps the base's output, A within its bound, reproducible by key") {
  const auto base = tiny_llama();
  const std::vector<float> before = logits_of(*base);
  PeftModelOptions options;
  options.key = RandomKey{7, 0};
  auto peft = get_peft_model(base, config_of({"q_proj"}), options);
  CHECK(logits_of(peft) == before);
  const std::vector<float> a = peft.lora().lora_layers()[0].second->lora_A->at("default").get().to_vector<float>();
  CHECK(std::all_of(a.begin(), a.end(), [](float v) { return std::fabs(v) <= 0.25F; }));
  CHECK(*std::max_element(a.begin(), a.end()) > 0.15F);
  auto same = get_peft_model(tiny_llama(), config_of({"q_proj"}), options);
  CHECK(same.lora().lora_layers()[0].second->lora_A->at("default").get().to_vector<float>() == a);
  options.key = RandomKey{8, 0};
  auto other = get_peft_model(tiny_llama(), config_of({"q_proj"}), options);
  CHECK(other.lora().lora_layers()[0].second->lora_A->at("default").get().to_vector<float>() != a);
  LoraConfig random = config_of({"q_proj"});
  random.init_lora_weights = false;
  auto nonzero = get_peft_model(tiny_llama(), random, options);
  CHECK(logits_of(nonzero) != before);
}

TEST_CASE("16-bit bases get float32 adapters unless told otherwise") {
  auto peft = get_peft_model(tiny_llama(1, DType::bf16), config_of({"q_proj"}));
  CHECK(peft.lora().lora_layers()[0].second->lora_A->at("default").get().dtype() == DType::f32);
  PeftModelOptions options;
  options.autocast_adapter_dtype = false;
  auto narrow = get_peft_model(tiny_llama(1, DType::bf16), config_of({"q_proj"}), options);
  CHECK(narrow.lora().lora_layers()[0].second->lora_A->at("default").get().dtype() == DType::bf16);
}

TEST_CASE("a model merged, unmerged, disabled, overridden") {
  for (const bool gpt2 : {false, true}) {
    const auto base = gpt2 ? tiny_gpt2() : tiny_llama();
    const std::vector<float> plain = logits_of(*base);
    auto peft = get_peft_model(base, config_of(gpt2 ? ModuleSelection{"c_attn", "c_fc"} : ModuleSelection{"q_proj", "down_proj"}));
    peft.add_adapter("other", config_of(gpt2 ? ModuleSelection{"c_attn"} : ModuleSelection{"v_proj", "q_proj"}, 2));
    randomize(peft, 3);
    const auto weights = values_of(peft);
    const std::vector<float> first = logits_of(peft);
    CHECK(largest_difference(first, plain) > 1e-2);
    peft.set_adapter("other");
    const std::vector<float> other = logits_of(peft);
    CHECK(largest_difference(first, other) > 1e-2);
    peft.set_adapter(std::vector<std::string>{"default", "other"});
    const std::vector<float> both = logits_of(peft);
    peft.set_adapter("default");

    ForwardContext override_context;
    override_context.override_adapters = true;
    CHECK(logits_of(peft, override_context) == plain);
    override_context.adapters = {"other"};
    CHECK(logits_of(peft, override_context) == other);
    override_context.adapters = {"default", "other"};
    CHECK(logits_of(peft, override_context) == both);
    CHECK(logits_of(peft) == first);

    {
      DisableAdapter off(peft);
      CHECK(logits_of(peft) == plain);
      {
        DisableAdapter again(peft);
        CHECK(logits_of(peft) == plain);
      }
      CHECK(logits_of(peft) == plain);  // the inner one found it disabled and leaves it so
    }
    CHECK(logits_of(peft) == first);

    peft.merge_adapter();
    CHECK(largest_difference(logits_of(peft), first) < 1e-4);
    CHECK(peft.base_model->merged_adapters() == std::vector<std::string>{"default"});
    {
      DisableAdapter off(peft);
      CHECK(logits_of(peft) == plain);  // bit for bit, although merged
    }
    override_context.adapters = {};
    CHECK(logits_of(peft, override_context) == plain);
    override_context.adapters = {"other"};
    CHECK(contains(error_of<StateError>([&] { logits_of(peft, override_context); }), "merged"));
    peft.unmerge_adapter();
    CHECK(values_of(peft) == weights);
    CHECK(logits_of(peft) == first);

    for (const auto& order : {std::vector<std::string>{"default", "other"}, std::vector<std::string>{"other", "default"}}) {
      peft.merge_adapter(order, true);
      CHECK(largest_difference(logits_of(peft), both) < 1e-4);
      peft.unmerge_adapter();
      CHECK(values_of(peft) == weights);
    }
    peft.merge_adapter({"other"});
    peft.merge_adapter({"default"});
    CHECK(largest_difference(logits_of(peft), both) < 1e-4);
    peft.set_adapter("other");  // unmerges first
    CHECK(peft.base_model->merged_adapters().empty());
    CHECK(logits_of(peft) == other);
    CHECK(contains(error_of<NameError>([&] { peft.merge_adapter({"nobody"}); }), "'nobody': there is default, other"));
    CHECK(contains(error_of<NameError>([&] { peft.set_adapter("nobody"); }), "'nobody'"));
    CHECK(logits_of(peft) == other);
  }
}

TEST_CASE("safe merge with NaN or infinity in one layer leaves all layers as they were") {
  for (const float bad : {NAN, INFINITY}) {
    auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
    peft.add_adapter("other", config_of({"q_proj", "v_proj"}));
    randomize(peft, 4);
    peft.merge_adapter({"other"});
    const auto before = values_of(*peft.model().child("model.layers.0").module());
    LoraLayer& last = *peft.lora().lora_layers()[2].second;
    std::vector<float> values = last.lora_B->at("default").get().to_vector<float>();
    values[3] = bad;
    last.lora_B->at("default").set(from_vector(values, last.lora_B->at("default").get().shape()));
    const std::string text = error_of<StateError>([&] { peft.merge_adapter({"default"}, true); });
    CHECK(contains(text, "'default'"));
    CHECK(contains(text, "layers.1.self_attn.q_proj"));
    CHECK(values_of(*peft.model().child("model.layers.0").module()) == before);
    CHECK(peft.base_model->merged_adapters() == std::vector<std::string>{"other"});
    CHECK_THROWS_AS(peft.merge_and_unload(true, {"default"}), StateError);
    CHECK(peft.adapters().size() == 2);
    peft.merge_adapter({"default"});  // unsafe: as told
    CHECK(peft.base_model->merged_adapters().size() == 2);
  }
}

TEST_CASE("trainability over two adapters") {
  auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  CHECK(trainable_names(peft).size() == 4);
  CHECK(all_hold(trainable_names(peft), ".default.weight"));
  CHECK(peft.trainable_parameter_count() == 2 * 4 * (16 + 16));
  peft.add_adapter("other", config_of({"q_proj", "v_proj"}));  // added, not activated
  CHECK(peft.active_adapters() == std::vector<std::string>{"default"});
  CHECK(trainable_names(peft).size() == 4);
  CHECK(all_hold(trainable_names(peft), ".default.weight"));
  peft.set_adapter("other");
  CHECK(trainable_names(peft).size() == 8);
  CHECK(all_hold(trainable_names(peft), ".other.weight"));
  peft.set_adapter(std::vector<std::string>{"other", "default"});
  CHECK(trainable_names(peft).size() == 12);
  peft.set_requires_grad({"other"}, false);
  CHECK(trainable_names(peft).size() == 4);
  peft.base_model->set_adapter({"default"}, true);
  CHECK(trainable_names(peft).empty());
  // Adding or deleting an adapter that is not active leaves the others alone.
  peft.add_adapter("third", config_of({"q_proj"}));
  CHECK(trainable_names(peft).empty());
  peft.delete_adapter("third");
  CHECK(trainable_names(peft).empty());
  LoraConfig frozen = config_of({"q_proj"});
  frozen.inference_mode = true;
  peft.add_adapter("frozen", frozen);
  peft.set_adapter("frozen");
  CHECK(trainable_names(peft).empty());
  CHECK(peft.trainable_parameters_line() == "trainable params: 0 || all params: " + std::to_string(peft.parameter_count()).insert(1, ",") + " || trainable%: 0.0000");
}

TEST_CASE("deleting adapters") {
  const auto base = tiny_llama();
  const std::vector<float> plain = logits_of(*base);
  auto peft = get_peft_model(base, config_of({"q_proj"}));
  peft.add_adapter("z", config_of({"q_proj"}));
  peft.add_adapter("b", config_of({"v_proj"}));
  randomize(peft, 5);
  const std::vector<float> first = logits_of(peft);
  peft.delete_adapter("z");
  CHECK(peft.active_adapters() == std::vector<std::string>{"default"});
  CHECK(logits_of(peft) == first);
  for (const auto& [name, slot] : peft.named_parameters()) CHECK_FALSE(contains(name, ".z."));
  CHECK(contains(error_of<NameError>([&] { peft.delete_adapter("z"); }), "'z': there is default, b"));
  peft.merge_adapter({"b"});
  CHECK(contains(error_of<StateError>([&] { peft.delete_adapter("b"); }), "'b' is merged"));
  CHECK(peft.adapters() == std::vector<std::string>{"default", "b"});
  peft.unmerge_adapter();
  peft.add_adapter("a2", config_of({"v_proj"}));
  peft.delete_adapter("default");
  CHECK(peft.active_adapters() == std::vector<std::string>{"a2"});  // alphabetically first
  CHECK(all_hold(trainable_names(peft), ".a2.weight"));
  CHECK_FALSE(peft.base_model->warnings().empty());
  peft.delete_adapter("a2");
  peft.delete_adapter("b");
  CHECK(peft.adapters().empty());
  CHECK(peft.active_adapters().empty());
  CHECK(logits_of(peft) == plain);
  CHECK(trainable_names(peft).empty());
}

TEST_CASE("unload and merge_and_unload give the base back") {
  for (const bool gpt2 : {false, true}) {
    const auto base = gpt2 ? tiny_gpt2() : tiny_llama();
    const std::vector<float> plain = logits_of(*base);
    const auto weights = values_of(*base);
    {
      auto peft = get_peft_model(base, config_of("all-linear"));
      randomize(peft, 6);
      peft.merge_adapter();
      CHECK(peft.unload() == base);
    }
    CHECK(base->parent() == nullptr);
    CHECK(values_of(*base) == weights);
    CHECK(logits_of(*base) == plain);
    std::vector<float> adapted;
    {
      auto peft = get_peft_model(base, config_of("all-linear"));
      randomize(peft, 6);
      adapted = logits_of(peft);
      CHECK(contains(error_of<StateError>([&] { get_peft_model(base, config_of("all-linear")); }), "wrapped already"));
      CHECK(peft.merge_and_unload(true) == base);
    }
    CHECK(largest_difference(logits_of(*base), adapted) < 1e-4);
    CHECK(values_of(*base).size() == weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) CHECK(values_of(*base)[i].first == weights[i].first);
    auto again = get_peft_model(base, config_of("all-linear"));  // it can carry adapters again
    CHECK(again.adapters().size() == 1);
  }
}

TEST_CASE("what cannot be added leaves nothing behind") {
  const auto base = tiny_gpt2();
  const auto untouched = values_of(*base);
  const auto flags = [](const Module& m) {
    std::vector<bool> out;
    for (const auto& [name, slot] : m.named_parameters()) out.push_back(slot->tensor.requires_grad());
    return out;
  };
  LoraConfig bad = config_of({"c_attn"});
  bad.modules_to_save = std::vector<std::string>{"h"};  // a list of modules cannot be a copy
  CHECK_THROWS_AS(get_peft_model(base, bad), ConfigError);
  CHECK_THROWS_AS(get_peft_model(base, config_of({"nothing"})), ConfigError);
  CHECK_THROWS_AS(get_peft_model(base, config_of({"attn"})), ConfigError);
  CHECK(base->parent() == nullptr);
  CHECK(values_of(*base) == untouched);

  auto peft = get_peft_model(base, config_of({"c_attn"}));
  randomize(peft, 7);
  const auto before = values_of(peft);
  const auto flags_before = flags(peft);
  LoraConfig bias = config_of({"c_fc"});
  for (const char* kind : {"all", "lora_only"}) {
    bias.bias = kind;
    CHECK(contains(error_of<ConfigError>([&] { peft.add_adapter("second", bias); }), "only a single adapter may train biases"));
  }
  CHECK_THROWS_AS(peft.add_adapter("default", config_of({"c_fc"})), NameError);
  CHECK_THROWS_AS(peft.add_adapter("with.dot", config_of({"c_fc"})), NameError);
  CHECK_THROWS_AS(peft.add_adapter("", config_of({"c_fc"})), NameError);
  CHECK_THROWS_AS(peft.add_adapter("second", bad), ConfigError);
  CHECK_THROWS_AS(peft.add_adapter("second", config_of({"nothing"})), ConfigError);
  CHECK(values_of(peft) == before);
  CHECK(flags(peft) == flags_before);
  CHECK(peft.adapters() == std::vector<std::string>{"default"});
  CHECK(peft.get_layer_status().size() == 2);

  bias.bias = "lora_only";
  auto with_bias = get_peft_model(tiny_gpt2(), bias);
  CHECK(contains(error_of<ConfigError>([&] { with_bias.add_adapter("second", config_of({"c_fc"})); }), "only a single adapter"));
  CHECK(with_bias.trainable_parameters().size() == 6);
}

TEST_CASE("biases: which are trained") {
  LoraConfig config = config_of({"c_attn"});
  config.bias = "all";
  auto all = get_peft_model(tiny_gpt2(), config);
  std::size_t biases = 0;
  for (const auto& [name, slot] : all.named_parameters()) biases += name.ends_with("bias") ? 1U : 0U;
  CHECK(all.trainable_parameters().size() == 4 + biases);
  CHECK(biases == 2 * 6 + 1);
  config.bias = "lora_only";
  auto only = get_peft_model(tiny_gpt2(), config);
  CHECK(only.trainable_parameters().size() == 6);
  only.disable_adapter_layers();
  CHECK(std::any_of(only.base_model->warnings().begin(), only.base_model->warnings().end(), [](const std::string& w) { return contains(w, "biases"); }));
}

TEST_CASE("modules_to_save: a copy per adapter") {
  LoraConfig config = config_of({"q_proj"});
  config.modules_to_save = std::vector<std::string>{"lm_head"};
  const auto base = tiny_llama();
  const std::vector<float> plain = logits_of(*base);
  auto peft = get_peft_model(base, config);
  CHECK(logits_of(peft) == plain);
  CHECK(peft.trainable_parameter_count() == 2 * 4 * 32 + 40 * 16);
  const auto [path, wrapper] = peft.base_model->saved_modules().at(0);
  CHECK(path == "lm_head");
  wrapper->copy_of("default")->named_parameters()[0].second->tensor = zeros({40, 16});
  CHECK(logits_of(peft) == std::vector<float>(plain.size(), 0.F));
  {
    DisableAdapter off(peft);
    CHECK(logits_of(peft) == plain);
  }
  peft.add_adapter("plain", config_of({"q_proj"}));
  peft.set_adapter("plain");
  CHECK(logits_of(peft) == plain);
  peft.add_adapter("second", config);
  CHECK(contains(error_of<StateError>([&] { peft.set_adapter(std::vector<std::string>{"default", "second"}); }), "lm_head"));
  CHECK(peft.active_adapters() == std::vector<std::string>{"plain"});
  peft.set_adapter(std::vector<std::string>{"plain", "second"});
  CHECK(logits_of(peft) == plain);
  peft.set_adapter("default");
  peft.delete_adapter("second");
  CHECK_FALSE(wrapper->has_adapter("second"));
  CHECK(peft.merge_and_unload() == base);
  CHECK(logits_of(*base) == std::vector<float>(plain.size(), 0.F));
}

TEST_CASE("fan_in_fan_out is corrected with a warning, and so it is saved") {
  LoraConfig config = config_of({"q_proj"});
  config.fan_in_fan_out = true;
  auto llama = get_peft_model(tiny_llama(), config);
  CHECK_FALSE(std::get<LoraConfig>(llama.peft_config("default")).fan_in_fan_out);
  CHECK(llama.base_model->warnings().size() == 1);
  auto gpt2 = get_peft_model(tiny_gpt2(), config_of({"c_attn"}));
  CHECK(std::get<LoraConfig>(gpt2.peft_config("default")).fan_in_fan_out);
  CHECK(contains(gpt2.base_model->warnings().at(0), "fan_in_fan_out"));
  auto right = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  CHECK(right.base_model->warnings().empty());
}

TEST_CASE("pattern keys and exclusions that match nothing are told") {
  LoraConfig config = config_of({"q_proj"});
  config.rank_pattern = {{"q_porj", 2}};
  config.exclude_modules = {"nonsense"};
  auto peft = get_peft_model(tiny_llama(), config);
  CHECK(peft.base_model->warnings().size() == 2);
}

TEST_CASE("dropout follows the key, acts in training only, and its gradient sees the same mask") {
  LoraConfig config = config_of({"q_proj"});
  config.lora_dropout = 0.5;
  auto peft = get_peft_model(tiny_llama(), config);
  randomize(peft, 8);
  ForwardContext one, two;
  one.training = two.training = true;
  one.key = RandomKey{1, 0};
  two.key = RandomKey{2, 0};
  const std::vector<float> quiet = logits_of(peft);
  CHECK(logits_of(peft) == quiet);
  CHECK(logits_of(peft, one) == logits_of(peft, one));
  CHECK(logits_of(peft, one) != logits_of(peft, two));
  CHECK(logits_of(peft, one) != quiet);

  // y is linear in A and in B, so <dA, A> = <dB, B> = what the adapter adds, if backward draws the mask that forward drew.
  auto layer = golden_layer();
  LoraLayerOptions options;
  options.r = 2;
  options.dropout = 0.5;
  options.init = false;
  layer->add_adapter("d", options, RandomKey{3, 0});
  layer->set_active({"d"});
  layer->lora_A->at("d").get().set_requires_grad(true);
  layer->lora_B->at("d").get().set_requires_grad(true);
  const Tensor x = random_uniform({64, 2}, RandomKey{4, 0}, -1, 1);
  backward(sum(layer->forward(x, one)));
  const double added = sum(layer->forward(x, one)).item() - sum(layer->base_layer->forward(x, one)).item();
  for (const Tensor& p : {layer->lora_A->at("d").get(), layer->lora_B->at("d").get()})
    CHECK(sum(mul(p.grad(), detach(p))).item() == doctest::Approx(added).epsilon(1e-3));
}

TEST_CASE("layer status tells what is where") {
  auto peft = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  peft.add_adapter("other", config_of({"v_proj"}));
  peft.merge_adapter();
  const std::vector<LayerStatus> status = peft.get_layer_status();
  CHECK(status.size() == 4);
  CHECK(status[0].name == "model.layers.0.self_attn.q_proj");
  CHECK(status[0].merged_adapters == std::vector<std::string>{"default"});
  CHECK(status[1].available_adapters == std::vector<std::string>{"other"});
  CHECK(status[1].active_adapters.empty());
  CHECK(status[0].requires_grad == std::vector<std::pair<std::string, bool>>{{"default", true}});
}

TEST_CASE("parameters that are moved to another type or loaded anew under adapters and optimizer") {
  auto peft = get_peft_model(tiny_llama(), config_of(ModuleSelection{"q_proj", "down_proj"}));
  randomize(peft, 5);
  // Weights of the base that are loaded later are the ones that adapters stand beside and merge into.
  const auto other = tiny_llama(2, DType::f32, 9);
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : other->state_dict()) weights.emplace(name, tensor);
  const std::vector<float> first = logits_of(peft);
  auto expected = get_peft_model(other, config_of(ModuleSelection{"q_proj", "down_proj"}));
  randomize(expected, 5);
  for (const auto& [name, slot] : peft.model().named_parameters()) {
    std::string plain = name;
    if (const auto at = plain.find(".base_layer"); at != std::string::npos) plain.erase(at, std::string_view(".base_layer").size());
    if (const auto found = weights.find(plain); found != weights.end()) slot->tensor = found->second;
  }
  CHECK(largest_difference(logits_of(peft), first) > 1e-2);
  CHECK(logits_of(peft) == logits_of(expected));
  peft.merge_adapter();
  expected.merge_adapter();
  CHECK(logits_of(peft) == logits_of(expected));
  peft.unmerge_adapter();

  // An optimizer made before the parameters moved still trains what the model uses, in the new type.
  AdamW optimizer(peft.trainable_parameters(), {.learning_rate = 1e-2});
  const std::vector<float> before = logits_of(peft);
  peft.model().to(DType::f64);
  CHECK(largest_difference(logits_of(peft), before) <= 1e-4);
  CHECK(peft.trainable_parameters().size() == 8);
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  backward(peft.forward(input).loss);
  optimizer.step();
  CHECK(largest_difference(logits_of(peft), before) > 1e-3);
  for (const auto& [name, slot] : peft.trainable_parameters()) CHECK(slot->tensor.dtype() == DType::f64);
}
