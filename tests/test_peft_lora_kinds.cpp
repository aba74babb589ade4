// LoRA's kinds: DoRA, biases on B, embeddings, heads, and starts that take their part out of the base.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/engine.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "peft/chunked_loss.h"
#include "peft/lora_init.h"
#include "peft/peft_model.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Floats = std::vector<float>;

Tensor matrix(const Floats& values, std::int64_t rows, std::int64_t columns) { return from_vector(values, {rows, columns}); }

void check_close(const Tensor& found, const Floats& expected, double tolerance = 1e-5) { CHECK(largest_difference(found.to_vector<float>(), expected) <= tolerance); }

std::shared_ptr<LoraLinear> layer_of(bool transposed, const LoraLayerOptions& options, bool with_bias = true, DType dtype = DType::f32) {
  const Tensor bias = with_bias ? to_dtype(from_vector(Floats{.5F, -.5F, 1.F}, {3}), dtype) : Tensor();
  std::shared_ptr<LinearLike> base;
  if (transposed) base = std::make_shared<Conv1D>(to_dtype(matrix({1, 3, 5, 2, 4, 6}, 2, 3), dtype), bias);
  else base = std::make_shared<Linear>(to_dtype(matrix({1, 2, 3, 4, 5, 6}, 3, 2), dtype), bias);
  auto layer = std::make_shared<LoraLinear>(base);
  layer->add_adapter("a", options, RandomKey{1, 0});
  layer->set_active({"a"});
  return layer;
}

void set_golden(LoraLinear& layer, const std::string& name = "a") {
  layer.lora_A->at(name).set(matrix({1, -1, 2, 0}, 2, 2));
  layer.lora_B->at(name).set(matrix({1, 0, 0, 1, 1, 1}, 3, 2));
}

LoraLayerOptions options_of(std::int64_t r, double alpha) {
  LoraLayerOptions options;
  options.r = r;
  options.alpha = alpha;
  return options;
}

LoraConfig config_of(ModuleSelection targets) {
  LoraConfig config;
  config.r = 4;
  config.target_modules = std::move(targets);
  config.init_lora_weights = false;
  return config;
}

/// All parameters of adapters away from their starts.
void randomize(PeftModel& peft, std::uint64_t seed) {
  for (const auto& [path, layer] : peft.lora().lora_layers())
    for (const std::string& name : layer->adapters())
      for (const auto& [key, slot] : layer->adapter_parameters(name)) {
        const bool trained = slot->tensor.requires_grad(), magnitude = key == "lora_magnitude_vector";
        slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{seed, 0}.fold(path).fold(name).fold(key), magnitude ? 0.5 : -0.3, magnitude ? 1.5 : 0.3, slot->tensor.dtype());
        slot->tensor.set_requires_grad(trained);
      }
}

}  // namespace

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

TEST_CASE("PiSSA and OLoRA: golden products and residuals, in both layouts") {
  const Floats pissa_rest{-.35662913F, .28153586F, -.09719658F, .07673097F, .16223431F, -.12807655F}, olora_rest{-1, -.514287F, -3, -3.54285908F, -5, -6.57143211F};
  for (const bool transposed : {false, true})
    for (const auto& [name, rest] : {std::pair{"pissa", pissa_rest}, {"pissa_niter_8", pissa_rest}, {"olora", olora_rest}}) {
      INFO(name);
      LoraLayerOptions options = options_of(1, 2);
      options.init = std::string(name);
      const auto layer = layer_of(transposed, options);
      const Tensor w = layer->weight().get(), delta = layer->get_delta_weight("a");
      check_close(transposed ? contiguous(transpose(w)) : w, rest);
      check_close(add(w, delta), transposed ? Floats{1, 3, 5, 2, 4, 6} : Floats{1, 2, 3, 4, 5, 6});
      check_close(layer->forward(matrix({1, 2}, 1, 2), {}), {5.5F, 10.5F, 18});
      if (std::string(name) == "pissa" && !transposed) {
        const Floats a = layer->lora_A->at("a").get().to_vector<float>();
        check_close(abs(layer->lora_A->at("a").get()), {1.35226345F, 1.71293402F});
        CHECK(a[0] * a[1] > 0);
        check_close(abs(layer->lora_B->at("a").get()), {.50161421F, 1.14518976F, 1.788766F});
      }
    }
  LoraLayerOptions large = options_of(3, 2);
  large.init = std::string("pissa");
  CHECK(contains(error_of<ConfigError>([&] { layer_of(false, large); }), "r 3 is larger than the 2"));
}

TEST_CASE("starts are distributed as they say (Kolmogorov-Smirnov)") {
  // Largest distance of the empirical distribution from F, times sqrt(n): above 1.36 in one of twenty samples.
  const auto distance = [](const Tensor& t, const auto& f) {
    std::vector<double> values = t.to_vector<double>();
    std::sort(values.begin(), values.end());
    const double n = static_cast<double>(values.size());
    double largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double at = f(values[i]);
      largest = std::max({largest, std::fabs(at - static_cast<double>(i) / n), std::fabs(static_cast<double>(i + 1) / n - at)});
    }
    return largest * std::sqrt(n);
  };
  const auto uniform = [](double bound) { return [bound](double v) { return std::clamp((v + bound) / (2 * bound), 0.0, 1.0); }; };
  const auto normal = [](double deviation) { return [deviation](double v) { return 0.5 * std::erfc(-v / (deviation * std::sqrt(2.0))); }; };
  const auto factors = [](const LoraInit& init, bool embedding = false, bool bias = false) { return initial_factors(init, 16, 300, 200, embedding, bias, DType::f32, Device{}, RandomKey{4, 0}); };
  using Way = LoraInit::Way;
  const double by_in = 1 / std::sqrt(300.0), by_r = 0.25;
  CHECK(distance(factors({Way::kaiming}).a, uniform(by_in)) < 1.36);
  CHECK(max(abs(factors({Way::kaiming}, false, true).b)).item() == 0);
  CHECK(max(abs(factors({Way::kaiming}, false, true).bias)).item() == 0);
  CHECK(distance(factors({Way::gaussian}).a, normal(1.0 / 16)) < 1.36);
  CHECK(distance(factors({Way::uniform}).a, uniform(by_in)) < 1.36);
  CHECK(distance(factors({Way::uniform}).b, uniform(by_r)) < 1.36);
  CHECK(distance(factors({Way::uniform}, false, true).bias, uniform(by_r)) < 1.36);
  CHECK(distance(factors({Way::uniform}).b, uniform(by_r * 1.1)) > 1.36);  // another bound would be seen
  for (const Way way : {Way::kaiming, Way::gaussian, Way::pissa}) {
    CHECK(max(abs(factors({way}, true).a)).item() == 0);
    CHECK(distance(factors({way}, true).b, normal(1.0)) < 1.36);
  }
  CHECK(distance(factors({Way::uniform}, true).a, normal(1.0)) < 1.36);
}

TEST_CASE("orthogonal: both factors are there and their product is nothing") {
  LoraConfig config = config_of({"q_proj"});
  config.init_lora_weights = std::string("orthogonal");
  auto peft = get_peft_model(tiny_llama(), config);
  CHECK(largest_difference(logits_of(peft), logits_of(*tiny_llama())) < 1e-5);
  const LoraLayer& layer = *peft.lora().lora_layers()[0].second;
  CHECK(max(abs(layer.lora_A->at("default").get())).item() > 0.01);
  CHECK(max(abs(layer.lora_B->at("default").get())).item() > 0.01);
  CHECK(max(abs(layer.get_delta_weight("default"))).item() < 1e-6);
}

TEST_CASE("adapters that change the base: loaded with their own, converted to plain ones for the untouched base, and undone on failure") {
  for (const char* init : {"pissa", "olora"}) {
    INFO(init);
    const TemporaryFolder folder;
    LoraConfig config = config_of({"q_proj", "down_proj"});
    config.init_lora_weights = std::string(init);
    config.rank_pattern = {{"down_proj", 2}};
    const auto base = tiny_llama();
    const std::vector<float> plain = logits_of(*base);
    auto peft = get_peft_model(base, config);
    CHECK(largest_difference(logits_of(peft), plain) < 1e-4);
    peft.save_pretrained(folder.file("initial"));
    randomize(peft, 4);
    const std::vector<float> trained = logits_of(peft);
    peft.save_pretrained(folder.file("trained"));
    CHECK(largest_difference(logits_of(PeftModel::from_pretrained(tiny_llama(), folder.file("trained"))), trained) < 1e-4);
    peft.save_pretrained(folder.file("plain"), {}, {.path_initial_model_for_weight_conversion = folder.file("initial")});
    auto converted = PeftModel::from_pretrained(tiny_llama(), folder.file("plain"));
    CHECK(largest_difference(logits_of(converted), trained) < 1e-3);
    const auto& written = std::get<LoraConfig>(converted.peft_config("default"));
    CHECK(written.r == 8);
    CHECK(written.lora_alpha == 16);
    CHECK(std::get<bool>(written.init_lora_weights));
    CHECK(converted.lora().lora_layers()[1].second->r("default") == 4);
    CHECK(std::get<LoraConfig>(peft.peft_config("default")).r == 4);  // what is in memory stays

    const auto fresh = tiny_llama();
    const auto before = values_of(*fresh);
    std::vector<NamedTensor> tensors;
    {
      const SafetensorsFile file(folder.file("trained/adapter_model.safetensors"));
      for (const std::string& name : file.names()) tensors.emplace_back(name, clone(file.tensor(name)));
    }
    tensors.pop_back();
    save_safetensors(folder.file("trained/adapter_model.safetensors"), tensors);
    CHECK_THROWS_AS(PeftModel::from_pretrained(fresh, folder.file("trained")), NameError);
    CHECK(values_of(*fresh) == before);
    LoraConfig broken = config;
    broken.r = 1000;
    CHECK_THROWS_AS(get_peft_model(fresh, broken), ConfigError);
    CHECK(values_of(*fresh) == before);
  }
  const TemporaryFolder folder;
  auto plain = get_peft_model(tiny_llama(), config_of({"q_proj"}));
  plain.save_pretrained(folder.path());
  CHECK(contains(error_of<ConfigError>([&] { plain.save_pretrained(folder.file("x"), {}, {.path_initial_model_for_weight_conversion = folder.path()}); }), "pissa"));
}

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
    const Tensor loss = detail::chunked_cross_entropy(hidden, targets, count, 5, {&w, 1}, [&](const Tensor& rows, std::uint64_t chunk) {
      CHECK(chunk == static_cast<std::uint64_t>(calls++));
      return linear(rows, w);
    });
    CHECK(calls == 3);
    const Tensor expected = linear_cross_entropy(hidden, w, {}, targets, -100, count);
    CHECK(loss.item() == doctest::Approx(expected.item()).epsilon(1e-5));
    const std::vector<Tensor> inputs{hidden, w}, a = grad({&loss, 1}, inputs), b = grad({&expected, 1}, inputs);
    for (std::size_t i = 0; i < 2; ++i) CHECK(largest_difference(a[i].to_vector<float>(), b[i].to_vector<float>()) < 1e-5);
    NoGrad no_grad;
    CHECK(detail::chunked_cross_entropy(hidden, targets, count, 5, {}, [&](const Tensor& rows, std::uint64_t) { return linear(rows, w); }).item() ==
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
