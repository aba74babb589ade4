// Where LoRA starts: distributions, orthogonal factors, and those that take their part out of the base.
#include "tests/lora_layers.h"

#include <algorithm>
#include <cmath>

#include "peft/lora_init.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"

using namespace cambium;
using namespace cambium::test;

TEST_CASE("PiSSA and OLoRA: golden products and residuals, in both layouts") {
  const Floats pissa_rest{-.35662913F, .28153586F, -.09719658F, .07673097F, .16223431F, -.12807655F}, olora_rest{-1, -.514287F, -3, -3.54285908F, -5, -6.57143211F};
  for (const bool transposed : {false, true})
    for (const auto& row : {std::pair{"pissa", pissa_rest}, {"pissa_niter_8", pissa_rest}, {"olora", olora_rest}}) {
      const char* name = row.first;
      const Floats& rest = row.second;
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
