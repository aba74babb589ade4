// Models made from configurations: cached, packed and padded forward passes agree, settings that are not supported are refused, folders round-trip.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>

#include "nn/generation.h"
#include "nn/kv_cache.h"
#include "nn/models/model.h"
#include "tests/decoder_configs.h"
#include "tests/temporary_folder.h"

using namespace cambium;
using namespace cambium::test;

namespace {

std::shared_ptr<PretrainedModel> make(const std::string& config, DType dtype = DType::f32) { return AutoModelForCausalLM::from_config(config, RandomKey{7, 0}, {.dtype = dtype}); }

Tensor ids(const std::vector<std::int64_t>& values, std::int64_t rows = 1) { return from_vector(values, {rows, static_cast<std::int64_t>(values.size()) / rows}); }

Tensor logits_of(const PretrainedModel& model, const Tensor& tokens) {
  ModelInput input;
  input.input_ids = tokens;
  return model.forward(input).logits;
}

double difference(const Tensor& a, const Tensor& b) { return max(abs(sub(a, b))).item(); }

constexpr double kTolerance = 2e-5;  // sums of 16 to 64 float32 products of size 10 in another order

}  // namespace

TEST_CASE("token by token with a cache gives the same logits") {
  NoGrad no_grad;
  for (const std::string& config : decoder_configs()) {
    const auto model = make(config);
    const std::vector<std::int64_t> text{3, 14, 15, 9, 26, 5, 35, 8};
    const Tensor whole = logits_of(*model, ids(text));
    const auto cache = model->make_cache(1, 8);
    for (const auto& [first, last] : {std::pair<std::int64_t, std::int64_t>{0, 3}, {3, 4}, {4, 7}, {7, 8}}) {
      ModelInput input;
      input.input_ids = ids({text.begin() + first, text.begin() + last});
      input.cache = cache.get();
      CHECK(difference(model->forward(input).logits, slice(whole, 1, first, last)) <= kTolerance);
    }
    CHECK(cache->length() == 8);
    ModelInput more;
    more.input_ids = ids({1});
    more.cache = cache.get();
    CHECK_THROWS_AS(model->forward(more), StateError);
    CHECK(cache->length() == 8);
    cache->truncate(3);
    EnableGrad recording;
    CHECK_THROWS_WITH_AS(model->forward(more), doctest::Contains("NoGrad"), StateError);
  }
}

TEST_CASE("packed and padded rows are what each is alone") {
  for (const std::string& config : decoder_configs()) {
    const auto model = make(config);
    const std::vector<std::int64_t> a{3, 14, 15, 9, 26}, b{5, 35, 8};
    ModelInput alone_a, alone_b, packed, padded;
    alone_a.input_ids = alone_a.labels = ids(a);
    alone_b.input_ids = alone_b.labels = ids(b);
    const ModelOutput first = model->forward(alone_a), second = model->forward(alone_b);

    std::vector<std::int64_t> both = a;
    both.insert(both.end(), b.begin(), b.end());
    packed.input_ids = packed.labels = ids(both);
    packed.starts = from_vector(std::vector<std::int32_t>{0, 5, 8}, {3});
    const ModelOutput together = model->forward(packed);
    CHECK(difference(slice(together.logits, 1, 0, 5), first.logits) <= kTolerance);
    CHECK(difference(slice(together.logits, 1, 5, 8), second.logits) <= kTolerance);
    CHECK(together.labelled == 6);
    CHECK(std::fabs(together.loss.item() - (4 * first.loss.item() + 2 * second.loss.item()) / 6) <= kTolerance);
    packed.want_logits = false;
    CHECK(std::fabs(model->forward(packed).loss.item() - together.loss.item()) <= kTolerance);

    padded.input_ids = ids({3, 14, 15, 9, 26, 0, 0, 5, 35, 8}, 2);
    padded.attention_mask = ids({1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, 2);
    padded.position_ids = ids({0, 1, 2, 3, 4, 0, 0, 0, 1, 2}, 2);
    CHECK(difference(slice(slice(model->forward(padded).logits, 0, 1), 1, 2), second.logits) <= kTolerance);
    padded.input_ids = ids({3, 14, 15, 9, 26, 5, 35, 8, 0, 0}, 2);
    padded.attention_mask = ids({1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2);
    padded.position_ids = Tensor();
    CHECK(difference(slice(slice(model->forward(padded).logits, 0, 1), 1, 0, 3), second.logits) <= kTolerance);
  }
}

TEST_CASE("a prompt computed once stands before all rows as if it were repeated in each") {
  for (const std::string& config : decoder_configs()) {
    INFO(config);
    for (const DType dtype : {DType::f32, DType::f64}) {
      const auto model = make(config, dtype);
      const std::vector<std::int64_t> prompt{7, 8, 9}, a{3, 14, 15, 9, 26}, b{5, 35, 8, 1, 2};
      const auto after = [&](const std::vector<std::int64_t>& row) {
        std::vector<std::int64_t> out = prompt;
        out.insert(out.end(), row.begin(), row.end());
        return out;
      };
      const Tensor table = model->named_parameters().front().second->tensor;
      const Tensor embeds = detach(embedding(ids(prompt), table)).set_requires_grad(true), upstream = random_normal({2, 5, 50}, RandomKey{3, 0}, 0.0, 1.0, dtype);

      // Whole rows, every one with its own copy of the prompt's embeddings.
      ModelInput whole;
      whole.inputs_embeds = cat({broadcast_to(embeds, {2, 3, 16}), embedding(ids({3, 14, 15, 9, 26, 5, 35, 8, 1, 2}, 2), table)}, 1);
      const Tensor expected = slice(model->forward(whole).logits, 1, 3);
      const Tensor expected_gradient = grad(sum(mul(expected, upstream)), embeds);

      ModelInput first, second;
      first.inputs_embeds = embeds;
      first.want_past = true;
      first.want_logits = false;
      const Past past = model->forward(first).past;
      CHECK(past.length() == 3);
      second.input_ids = ids({3, 14, 15, 9, 26, 5, 35, 8, 1, 2}, 2);
      second.past = &past;
      const Tensor found = model->forward(second).logits;
      CHECK(difference(found, expected) <= kTolerance);
      // Both sum some hundred products in another order: as many roundings of the largest gradient at most, which float64 asks for in earnest.
      CHECK(difference(grad(sum(mul(found, upstream)), embeds), expected_gradient) <= 256 * (dtype == DType::f64 ? 0x1p-53 : 0x1p-24) * amax(abs(expected_gradient)).item());

      NoGrad no_grad;
      const auto cache = model->make_cache(2, 5);
      for (const auto& [from, to] : {std::pair<std::int64_t, std::int64_t>{0, 3}, {3, 4}, {4, 5}}) {
        ModelInput part = second;
        part.input_ids = slice(second.input_ids, 1, from, to);
        part.cache = cache.get();
        CHECK(difference(model->forward(part).logits, slice(expected, 1, from, to)) <= kTolerance);
      }
      ModelInput packed = second;
      packed.input_ids = reshape(second.input_ids, {1, 10});
      packed.starts = from_vector(std::vector<std::int32_t>{0, 5, 10}, {3});
      CHECK(difference(reshape(model->forward(packed).logits, {2, 5, 50}), expected) <= kTolerance);

      // Padding between the past and the text takes places of a window, as in the reference.
      if (config.find("sliding_window") != std::string::npos) continue;
      ModelInput padded = second;
      padded.input_ids = ids({3, 14, 15, 9, 26, 0, 0, 5, 35, 8}, 2);
      padded.attention_mask = ids({1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, 2);
      padded.position_ids = ids({3, 4, 5, 6, 7, 3, 3, 3, 4, 5}, 2);
      CHECK(difference(slice(slice(model->forward(padded).logits, 0, 1), 1, 2), slice(slice(expected, 0, 1), 1, 0, 3)) <= kTolerance);

      GenerationOptions options;
      options.max_new_tokens = 5;
      options.eos_token_ids = std::vector<std::int64_t>();
      const auto text_a = generate(*model, after(a), options), text_b = generate(*model, after({5, 35, 8}), options);
      options.past = &past;
      for (const bool cached : {true, false}) {
        options.use_cache = cached;
        const auto rows = generate(*model, ids({3, 14, 15, 9, 26, 0, 0, 5, 35, 8}, 2), ids({1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, 2), options);
        CHECK(rows[0] == text_a);
        CHECK(rows[1] == text_b);
      }
    }
  }
}

TEST_CASE("pasts that do not fit, and inputs that a decoder has no use for, are refused by name") {
  const auto model = make(gpt2_config());
  const auto refused = [&](const char* words, auto change) {
    ModelInput input;
    input.input_ids = ids({1, 2, 3, 4}, 2);
    change(input);
    CHECK_THROWS_WITH_AS(model->forward(input), doctest::Contains(words), Error);
  };
  refused("token_type_ids", [](ModelInput& x) { x.token_type_ids = ids({0, 0, 0, 0}, 2); });
  refused("encoder_output", [](ModelInput& x) { x.encoder_output = ones({2, 2, 16}); });
  refused("decoder_input_ids", [](ModelInput& x) { x.decoder_input_ids = ids({0, 0}, 2); });
  refused("start_positions", [](ModelInput& x) { x.start_positions = from_vector(std::vector<std::int64_t>{0, 0}, {2}); });
  refused("one row of tokens", [](ModelInput& x) { x.want_past = true; });
  Past past;
  refused("a past of 2 layers, found 0", [&](ModelInput& x) { x.past = &past; });
  past.layers.resize(2);
  refused("past of layer 0: expected keys and values (0, heads, head size), found none", [&](ModelInput& x) { x.past = &past; });
  past.layers = {{ones({3, 4, 4}), ones({3, 4, 4})}, {ones({2, 4, 4}), ones({2, 4, 4})}};
  refused("past of layer 1", [&](ModelInput& x) { x.past = &past; });
  past.layers[1] = {ones({3, 4, 4}), ones({3, 4, 4})};
  refused("a past is made of one row", [&](ModelInput& x) {
    x.input_ids = ids({1, 2});
    x.past = &past;
    x.want_past = true;
  });
}

TEST_CASE("batched generation with left padding gives what each row gives alone, with and without cache") {
  for (const std::string& config : decoder_configs()) {
    const auto model = make(config);
    GenerationOptions options;
    options.max_new_tokens = 6;
    for (const bool sampled : {false, true}) {
      options.sampling.do_sample = sampled;
      options.sampling.top_k = 20;
      options.key = RandomKey{5, 0};
      options.use_cache = true;
      const auto rows = generate(*model, ids({3, 14, 15, 9, 0, 0, 5, 35}, 2), ids({1, 1, 1, 1, 0, 0, 1, 1}, 2), options);
      CHECK(rows[0] == generate(*model, std::vector<std::int64_t>{3, 14, 15, 9}, options));
      if (!sampled) CHECK(rows[1] == generate(*model, std::vector<std::int64_t>{5, 35}, options));
      options.use_cache = false;
      CHECK(rows == generate(*model, ids({3, 14, 15, 9, 0, 0, 5, 35}, 2), ids({1, 1, 1, 1, 0, 0, 1, 1}, 2), options));
    }
  }
}

TEST_CASE("generation ends at an end token, calls back, and refuses right padding") {
  const auto model = make(gpt2_config());
  GenerationOptions options;
  options.max_new_tokens = 10;
  options.eos_token_ids = std::vector<std::int64_t>();
  const auto all = generate(*model, std::vector<std::int64_t>{1, 2, 3}, options);
  REQUIRE(all.size() == 10);
  options.eos_token_ids = {all[4]};
  const auto ended = generate(*model, std::vector<std::int64_t>{1, 2, 3}, options);
  CHECK(ended.back() == all[4]);
  CHECK(ended.size() <= 5);
  options.eos_token_ids = std::vector<std::int64_t>();
  int called = 0;
  options.on_token = [&](std::int64_t, std::int64_t) { return ++called < 3; };
  CHECK(generate(*model, std::vector<std::int64_t>{1, 2, 3}, options).size() == 3);
  CHECK_THROWS_AS(generate(*model, ids({1, 2, 3}), ids({1, 1, 0}), options), ShapeError);
  options.sampling.temperature = 0.0;
  CHECK_THROWS_WITH_AS(generate(*model, std::vector<std::int64_t>{1}, options), doctest::Contains("temperature"), ConfigError);
}

TEST_CASE("sampling keeps what transformers keeps") {
  const std::vector<float> logits{0.0F, 1.0F, 2.0F, 3.0F};
  const auto tokens = [&](const SamplingOptions& o, std::vector<std::int64_t> seen = {}) {
    std::vector<std::int64_t> out;
    for (const Candidate& c : sampling_candidates(logits, seen, o)) out.push_back(c.token);
    return out;
  };
  CHECK(tokens({}) == std::vector<std::int64_t>{3, 2, 1, 0});
  CHECK(tokens({.top_k = 2}) == std::vector<std::int64_t>{3, 2});
  // Probabilities 0.644, 0.237, 0.087, 0.032.
  CHECK(tokens({.top_p = 0.6}) == std::vector<std::int64_t>{3});
  CHECK(tokens({.top_p = 0.7}) == std::vector<std::int64_t>{3, 2});
  CHECK(tokens({.min_p = 0.2}) == std::vector<std::int64_t>{3, 2});
  CHECK(tokens({.repetition_penalty = 4.0}, {3}) == std::vector<std::int64_t>{2, 1, 3, 0});
  CHECK(sampling_candidates(logits, {}, {.temperature = 0.5})[0].probability == doctest::Approx(1.0 / (1.0 + std::exp(-2.0) + std::exp(-4.0) + std::exp(-6.0))));
  CHECK(sample_token(logits, {}, {}, {}) == 3);
  CHECK_THROWS_AS(sample_token(std::vector<float>{1.0F, NAN}, {}, {}, {}), StateError);
}

TEST_CASE("a model survives its folder, in one file and in shards") {
  NoGrad no_grad;
  for (const std::string& config : decoder_configs())
    for (const std::int64_t shard : {std::int64_t{1} << 40, std::int64_t{4000}}) {
      const test::TemporaryFolder folder;
      const auto model = make(config);
      save_pretrained(*model, folder.path(), shard);
      const auto again = AutoModelForCausalLM::from_pretrained(folder.path());
      CHECK(difference(logits_of(*again, ids({1, 2, 3, 4})), logits_of(*model, ids({1, 2, 3, 4}))) == 0.0);
      CHECK_FALSE(again->named_parameters().front().second->tensor.requires_grad());
      const auto narrow = AutoModelForCausalLM::from_pretrained(folder.path(), {.dtype = DType::bf16});
      CHECK(narrow->named_parameters().back().second->tensor.dtype() == DType::bf16);
    }
}

TEST_CASE("settings that would change the maths are refused by name") {
  const auto refused = [](const std::string& config, const char* word) { CHECK_THROWS_WITH_AS(make(config), doctest::Contains(word), ConfigError); };
  refused(llama_config("llama", R"(, "rope_scaling": {"rope_type": "yarn", "factor": 2.0})"), "yarn");
  refused(llama_config("llama", R"(, "hidden_act": "mish")"), "mish");
  refused(llama_config("qwen2", R"(, "layer_types": ["chunked_attention", "full_attention"])"), "chunked_attention");
  refused(llama_config("mamba"), "mamba");
  refused(llama_config("llama", R"(, "quantization_config": {"bits": 4})"), "quantization_config");
  refused(llama_config("llama", R"(, "head_dim": 0)"), "head_dim");
  refused(llama_config("llama", R"(, "rms_norm_eps": "small")"), "rms_norm_eps");
  refused(gpt2_config(R"(, "add_cross_attention": true)"), "add_cross_attention");
  refused(R"({"model_type": "gpt2", "vocab_size": 50})", "hidden_size");
  CHECK_THROWS_AS(AutoModelForCausalLM::from_pretrained("/nowhere/at/all"), FileError);
  const auto model = make(gpt2_config());
  CHECK_THROWS_WITH_AS(logits_of(*model, ids(std::vector<std::int64_t>(33, 1))), doctest::Contains("32"), ShapeError);
  CHECK_THROWS_AS(logits_of(*model, ids({50})), Error);
}
