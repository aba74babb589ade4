// Combining adapters: golden vectors, releases with their mistakes, preconditions, roll-back, other ranks, differences.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "peft/extract.h"
#include "peft/peft_model.h"
#include "peft/pruning.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Floats = std::vector<float>;

Tensor matrix(const Floats& values, std::int64_t rows, std::int64_t columns) { return from_vector(values, {rows, columns}); }

bool near(const Tensor& found, const Floats& expected, double tolerance = 1e-5) { return largest_difference(found.to_vector<float>(), expected) <= tolerance; }

std::vector<CombineSource> golden_sources(double first, double second) {
  return {{matrix({1, -1, 2, 0}, 2, 2), matrix({1, 0, 0, 1, 1, 1}, 3, 2), 2.0, first}, {matrix({0, 1, 1, 3}, 2, 2), matrix({2, 1, 1, 0, 0, -1}, 3, 2), 1.0, second}};
}

CombinedLayer combined(const std::string& type, double first, double second, std::int64_t rank = 2, CombineOptions options = {}) {
  options.combination_type = type;
  return combine_layer(golden_sources(first, second), options, rank, {});
}

Tensor delta(const CombinedLayer& layer) { return matmul(layer.factors.b, layer.factors.a); }

LoraConfig config_of(ModuleSelection targets, std::int64_t r = 4, double alpha = 8) {
  LoraConfig config;
  config.r = r;
  config.lora_alpha = alpha;
  config.target_modules = std::move(targets);
  return config;
}

void randomize(PeftModel& peft, std::uint64_t seed) {
  for (const auto& [path, layer] : peft.lora().lora_layers())
    for (const std::string& name : layer->adapters())
      layer->lora_B->at(name).set(random_uniform(layer->lora_B->at(name).get().shape(), RandomKey{seed, 0}.fold(path).fold(name), -0.3, 0.3));
}


struct Two {
  PeftModel peft;
  Two(const LoraConfig& a, const LoraConfig& b) : peft(get_peft_model(tiny_llama(), a, {.adapter_name = "a"})) {
    peft.add_adapter("b", b);
    randomize(peft, 3);
  }
  Tensor delta(const std::string& path, const std::string& adapter) const { return peft.get_delta_weight(path, adapter); }
};

const std::string kQ = "model.layers.0.self_attn.q_proj", kV = "model.layers.1.self_attn.v_proj";

}  // namespace

TEST_CASE("golden vectors") {
  const CombinedLayer cat = combined("cat", 0.5, 2.0, 4);
  CHECK(near(cat.factors.a, {1, -1, 2, 0, 0, 2, 2, 6}));
  CHECK(near(cat.factors.b, {1, 0, 2, 1, 0, 1, 1, 0, 1, 1, 0, -1}));
  CHECK(near(delta(cat), {3, 9, 2, 2, 1, -7}));
  CHECK(near(combined("cat", 0.5, 2.0, 5).factors.a, {1, -1, 2, 0, 0, 2, 2, 6, 0, 0}));

  const CombinedLayer linear = combined("linear", 0.5, 2.0);
  CHECK(near(linear.factors.a, {1, .41421354F, 3.41421366F, 4.2426405F}));
  CHECK(near(linear.factors.b, {3.82842708F, 1.41421354F, 1.41421354F, 1, 1, -.41421354F}));
  CHECK(near(delta(linear), {8.65685463F, 7.58578587F, 4.82842731F, 4.82842684F, -.41421351F, -1.3431456F}));
  const CombinedLayer negative = combined("linear", 0.5, -2.0);
  CHECK(near(negative.factors.a, {1, -2.41421366F, .58578646F, -4.2426405F}));
  CHECK(near(negative.factors.b, {3.82842708F, 1.41421354F, 1.41421354F, 1, 1, -.41421354F}));

  CHECK(near(delta(combined("svd", 0.5, 2.0)), {3, 9, 2, 2, 1, -7}));
  CHECK(near(delta(combined("svd", 0.5, 2.0, 7)), {3, 9, 2, 2, 1, -7}));  // more than a 3 x 2 matrix has
  CHECK(near(delta(combined("svd", 0.5, 2.0, 2, {.compat = MergeCompat::peft_0_21})), {3, 9, 2, 2, 1, -7}));
  CHECK(near(delta(combined("svd", 0.5, 2.0, 2, {.compat = MergeCompat::peft_0_9_to_0_20})), {4, 8, 4, 2, 4, -8}));
  CHECK(near(delta(combined("svd", 0.5, 2.0, 2, {.compat = MergeCompat::peft_0_7})), {3, 9, 2, 2, 1, -7}));
  CHECK(near(delta(combined("svd", 0.5, 2.0, 2, {.svd_clamp = 1.0, .compat = MergeCompat::peft_0_4})), {3, 9, 2, 2, 1, -7}));
  // ties_svd at density .5 meets equal magnitudes at the border, of which torch kept these; the weights count the scaling twice.
  CHECK(near(elect_and_average({matrix({0, -2, 4, 0, 6, 0}, 3, 2), matrix({0, 5, 0, 0, -1, -3}, 3, 2)}, {1.0, 2.0}, "total"), {0, 10, 4, 0, 6, -6}));
}

TEST_CASE("releases before 0.9") {
  const CombinedLayer seven = combined("linear", 0.25, 4.0, 2, {.compat = MergeCompat::peft_0_7});
  CHECK(near(seven.factors.a, {1, 1, 4, 6}));               // .5 * 2 * A1 + 2 * 1 * A2
  CHECK(near(seven.factors.b, {4.5F, 2, 2, .5F, .5F, -1.5F}));  // .5 B1 + 2 B2
  const CombinedLayer four = combined("linear", 0.25, -4.0, 2, {.compat = MergeCompat::peft_0_4});
  CHECK(near(four.factors.a, {.5F, -4.5F, -3, -12}));
  CHECK(near(four.factors.b, {3, 1, 1, 1, 1, 0}));
  CHECK(contains(error_of<ConfigError>([] { combined("linear", 0.25, -4.0, 2, {.compat = MergeCompat::peft_0_7}); }), "negative"));
  CHECK(contains(error_of<ConfigError>([] { combined("ties", 1, 1, 2, {.density = 0.5, .compat = MergeCompat::peft_0_7}); }), "0.9"));
  // 0.4 always clamps.
  CHECK_FALSE(near(delta(combined("svd", 0.5, 2.0, 2, {.compat = MergeCompat::peft_0_4})), {3, 9, 2, 2, 1, -7}, 1e-4));
  CHECK(parse_merge_compat("peft_0_9_to_0_20") == MergeCompat::peft_0_9_to_0_20);
  CHECK(contains(error_of<ConfigError>([] { parse_merge_compat("peft_1"); }), "peft_0_21"));
}

TEST_CASE("pruning, voting and sums") {
  const Tensor t1 = from_vector(Floats{3, -1, 2, -4, .5F, -.2F}, {6}), t2 = from_vector(Floats{-2, -3, 1, 4, .1F, .3F}, {6});
  const std::vector<double> w{0.5, 2.0};
  CHECK(near(magnitude_prune(t1, 0.5), {3, 0, 2, -4, 0, 0}));
  CHECK(near(magnitude_prune(t2, 0.5), {-2, -3, 0, 4, 0, 0}));
  for (const char* method : {"total", "frequency"})
    CHECK(near(elect_and_average({magnitude_prune(t1, 0.5), magnitude_prune(t2, 0.5)}, w, method), {1.5F, -6, 1, 8, 0, 0}));
  CHECK(near(elect_and_average({t1, t2}, w, "total"), {1.5F, -3.25F, 1.5F, 8, .225F, .6F}));
  CHECK(near(task_arithmetic({magnitude_prune(t1, 0.5), magnitude_prune(t2, 0.5)}, w), {-2.5F, -6, 1, 6, 0, 0}));
  CHECK(near(task_arithmetic({t1, t2}, w), {-2.5F, -6.5F, 3, 6, .45F, .5F}));
  // int(density * count): the product in double, cut.
  const Tensor hundred = add(to_dtype(arange(100), DType::f32), 1.0);
  CHECK(sum(not_equal(magnitude_prune(hundred, 0.29), 0.0)).item() == 28);
  CHECK(sum(not_equal(magnitude_prune(ones({10}), 0.7), 0.0)).item() == 7);  // all equal: exactly as many
  CHECK(sum(not_equal(magnitude_prune(hundred, 0.0), 0.0)).item() == 0);
  CHECK(near(magnitude_prune(t1, 1.5), t1.to_vector<float>()));
  CHECK(contains(error_of<ConfigError>([&] { magnitude_prune(t1, -0.1); }), "density"));
  CHECK(contains(error_of<ConfigError>([&] { random_prune(t1, 0.0, {}); }), "density"));
  CHECK(contains(error_of<ConfigError>([&] { elect_and_average({t1, t2}, w, "most"); }), "majority_sign_method"));

  const Tensor kept = random_prune(ones({20000}), 0.25, {5, 0});
  CHECK(sum(kept).item() / 20000 == doctest::Approx(1.0).epsilon(0.04));
  CHECK(max(kept).item() == 4.0);
  CHECK(random_prune(ones({200}), 0.25, {5, 0}).to_vector<float>() == random_prune(ones({200}), 0.25, {5, 0}).to_vector<float>());
  CHECK(random_prune(ones({200}), 0.25, {5, 0}).to_vector<float>() != random_prune(ones({200}), 0.25, {6, 0}).to_vector<float>());
}

TEST_CASE("options are checked against each other") {
  const auto error = [](CombineOptions o) { return error_of<ConfigError>([&] { check_combination(o); }); };
  CHECK(contains(error({.combination_type = "average"}), "magnitude_prune_svd"));
  CHECK(contains(error({.combination_type = "linear", .svd_rank = 4}), "svd_rank"));
  CHECK(contains(error({.combination_type = "cat", .svd_clamp = 0.9}), "svd_clamp"));
  CHECK(contains(error({.combination_type = "svd", .density = 0.5}), "density"));
  CHECK(contains(error({.combination_type = "ties"}), "needs one"));
  CHECK(contains(error({.combination_type = "magnitude_prune", .density = 0.5, .majority_sign_method = "total"}), "majority_sign_method"));
  CHECK(contains(error({.combination_type = "ties", .density = 0.5, .majority_sign_method = "most"}), "frequency"));
  CHECK(contains(error({.combination_type = "ties", .density = -0.5}), "density"));
  CHECK(contains(error({.combination_type = "dare_ties", .density = 0.0}), "positive"));
  CHECK(contains(error({.combination_type = "svd", .svd_rank = 0}), "positive rank"));
  CHECK(contains(error({.combination_type = "svd", .svd_clamp = 1.5}), "quantile"));
  CHECK(error({.combination_type = "dare_ties_svd", .svd_rank = 3, .svd_full_matrices = false, .density = 0.5, .majority_sign_method = "frequency"}).empty());
}

TEST_CASE("layers that do not fit") {
  std::vector<CombineSource> sources = golden_sources(1, 1);
  const auto error = [&](const char* type) {
    std::string text = error_of<ConfigError>([&] { combine_layer(sources, {.combination_type = type}, 4, {}, "q_proj"); });
    return text;
  };
  sources[1].a = matrix({1, 2}, 1, 2);
  sources[1].b = matrix({1, 2, 3}, 3, 1);
  CHECK(contains(error("linear"), "q_proj: linear: the adapters' ranks differ: 2 and 1"));
  CHECK(error("cat").empty());
  CHECK(error("svd").empty());
  sources[1].a = matrix({1, 2, 3}, 1, 3);
  CHECK(contains(error_of<ShapeError>([&] { combine_layer(sources, {}, 2, {}); }), "different sizes"));
  sources = golden_sources(std::numeric_limits<double>::infinity(), 1);
  CHECK(contains(error("svd"), "finite"));
  sources = golden_sources(1, 1);
  sources[0].b = full({3, 2}, std::numeric_limits<double>::quiet_NaN());
  CHECK(contains(error_of<StateError>([&] { combine_layer(sources, {.combination_type = "linear"}, 2, {}); }), "NaN"));
}

TEST_CASE("errors that are reported are those that were made") {
  for (const char* type : {"svd", "ties_svd", "linear", "magnitude_prune"}) {
    CombineOptions o;
    o.combination_type = type;
    o.measure_error = true;
    if (check_combination({.combination_type = type, .density = std::string(type).find("svd") == 0 || type == std::string("linear") ? std::optional<double>() : 0.5}).prunes()) o.density = 0.5;
    std::vector<CombineSource> sources;
    for (std::uint64_t i = 0; i < 2; ++i) sources.push_back({random_normal({6, 30}, {i, 1}), random_normal({20, 6}, {i, 2}), 0.7, i == 0 ? 1.0 : -0.4});
    const CombinedLayer layer = combine_layer(sources, o, 6, {});
    std::vector<Tensor> deltas;
    for (const CombineSource& s : sources) {
      const Tensor d = mul(matmul(s.b, s.a), s.scaling);
      deltas.push_back(o.density ? magnitude_prune(d, 0.5) : d);
    }
    const std::vector<double> w{1.0, -0.4};
    const Tensor dense = std::string(type) == "ties_svd" ? elect_and_average(deltas, w, "total") : task_arithmetic(deltas, w);
    const auto norm_of = [](const Tensor& x) { return std::sqrt(sum(mul(x, x)).item()); };
    CHECK(layer.error.value() == doctest::Approx(norm_of(sub(dense, delta(layer))) / norm_of(dense)).epsilon(1e-4));
  }
  CombineOptions clamped;
  clamped.svd_clamp = 0.8;
  const CombinedLayer layer = combine_layer(golden_sources(0.5, 2.0), clamped, 2, {});
  const Tensor dense = matrix({3, 9, 2, 2, 1, -7}, 3, 2);
  CHECK(layer.error.value() == doctest::Approx(std::sqrt(sum(mul(sub(dense, delta(layer)), sub(dense, delta(layer)))).item() / sum(mul(dense, dense)).item())).epsilon(1e-4));
}

TEST_CASE("a model's adapters: exact sums, several active ones are their cat, weights of either sign") {
  Two two(config_of({"q_proj", "v_proj"}), config_of({"v_proj", "up_proj"}, 4, 6));
  PeftModel& peft = two.peft;
  const CombinationReport report = peft.add_weighted_adapter({"a", "b"}, {1.0, 1.0}, "sum", "cat");
  CHECK(report.rank == 8);
  CHECK(report.modules.size() == 6);
  CHECK(peft.active_adapters() == std::vector<std::string>{"a"});
  for (const auto& [name, slot] : peft.trainable_parameters()) CHECK_FALSE(contains(name, ".sum."));
  peft.set_adapter(std::vector<std::string>{"a", "b"});
  const std::vector<float> both = logits_of(peft);
  peft.set_adapter("sum");
  CHECK(largest_difference(logits_of(peft), both) < 1e-5);

  peft.add_weighted_adapter({"a", "b"}, {0.7, -0.3}, "svd", CombineOptions{.svd_rank = 8});
  CHECK(near(two.delta(kV, "svd"), add(mul(two.delta(kV, "a"), 0.7), mul(two.delta(kV, "b"), -0.3)).to_vector<float>()));
  // A module that only one source has gets just its share.
  CHECK(near(two.delta(kQ, "svd"), mul(two.delta(kQ, "a"), 0.7).to_vector<float>()));
  peft.add_weighted_adapter({"a"}, {-1.5}, "single");
  CHECK(near(two.delta(kQ, "single"), mul(two.delta(kQ, "a"), -1.5).to_vector<float>()));
  peft.add_weighted_adapter({"a", "a"}, {1.0, -1.0}, "nothing", "linear");
  CHECK(near(two.delta(kQ, "nothing"), zeros({16, 16}).to_vector<float>(), 1e-6));
  // What a layer's scaling is now counts.
  for (const auto& [path, layer] : peft.lora().lora_layers()) layer->set_scale("a", 2.0);
  peft.add_weighted_adapter({"a"}, {-0.75}, "scaled");
  CHECK(near(two.delta(kQ, "scaled"), two.delta(kQ, "single").to_vector<float>()));
}

TEST_CASE("rslora in the first source: corrected, or as PEFT 0.21 has it") {
  LoraConfig first = config_of({"q_proj"});
  first.use_rslora = true;
  Two two(first, config_of({"q_proj"}));
  const CombineOptions peft_0_21{.svd_rank = 4, .compat = MergeCompat::peft_0_21};
  two.peft.add_weighted_adapter({"a", "b"}, {1.0, 1.0}, "ours", CombineOptions{.svd_rank = 4});
  two.peft.add_weighted_adapter({"a", "b"}, {1.0, 1.0}, "theirs", peft_0_21);
  two.peft.add_weighted_adapter({"b", "a"}, {1.0, 1.0}, "other order", peft_0_21);
  const std::vector<float> ours = two.delta(kQ, "ours").to_vector<float>();
  CHECK(near(two.delta(kQ, "theirs"), mul(two.delta(kQ, "ours"), 2.0).to_vector<float>()));
  CHECK(near(two.delta(kQ, "other order"), ours));
}

TEST_CASE("ranks: requested, added up, refused") {
  LoraConfig patterned = config_of({"q_proj", "v_proj"}, 2);
  patterned.rank_pattern = {{"v_proj", 5}};
  Two two(config_of({"q_proj"}, 4), patterned);
  PeftModel& peft = two.peft;
  const auto rank_of = [&](const char* name) { return std::get<LoraConfig>(peft.peft_config(name)).r; };
  CHECK(peft.add_weighted_adapter({"a", "b"}, {1, 1}, "cat", "cat").rank == 9);
  CHECK(rank_of("cat") == 9);
  peft.add_weighted_adapter({"a", "b"}, {1, 1}, "svd");
  CHECK(rank_of("svd") == 5);
  peft.add_weighted_adapter({"a", "b"}, {1, 1}, "large", CombineOptions{.svd_rank = 40});  // more than the matrices have
  CHECK(rank_of("large") == 40);
  CHECK(near(two.delta(kQ, "large"), two.delta(kQ, "cat").to_vector<float>()));
  const std::vector<std::string> before = peft.adapters();
  CHECK(contains(error_of<ConfigError>([&] { peft.add_weighted_adapter({"a", "b"}, {1, 1}, "linear", "linear"); }), "ranks differ (4 and 5)"));
  CHECK(peft.adapters() == before);
}

TEST_CASE("a single source") {
  Two two(config_of({"q_proj"}), config_of({"q_proj"}));
  PeftModel& peft = two.peft;
  CHECK(peft.add_weighted_adapter({"a"}, {1.0}, "same", "svd").modules[0].route == "factors");
  // A smaller rank that was asked for is not forgotten, and pruning prunes; PEFT takes linear whatever was asked for.
  CHECK(peft.add_weighted_adapter({"a"}, {1.0}, "small", CombineOptions{.svd_rank = 2}).rank == 2);
  CHECK(peft.add_weighted_adapter({"a"}, {1.0}, "theirs", CombineOptions{.svd_rank = 2, .compat = MergeCompat::peft_0_21}).rank == 4);
  peft.add_weighted_adapter({"a"}, {1.0}, "pruned", CombineOptions{.combination_type = "magnitude_prune", .density = 0.5});
  CHECK_FALSE(near(two.delta(kQ, "pruned"), two.delta(kQ, "a").to_vector<float>(), 1e-3));
}

TEST_CASE("targets are united; what cannot be said by endings is named one by one") {
  LoraConfig first = config_of({"q_proj"});
  first.layers_to_transform = std::vector<std::int64_t>{0};
  Two two(first, config_of(".*layers\\.1.*v_proj"));
  two.peft.add_weighted_adapter({"a", "b"}, {1.0, 1.0}, "both", "cat");
  const auto& config = std::get<LoraConfig>(two.peft.peft_config("both"));
  CHECK(config.target_modules.names() == std::vector<std::string>{kQ, kV});
  CHECK_FALSE(config.layers_to_transform.has_value());
  CHECK(near(two.delta(kV, "both"), two.delta(kV, "b").to_vector<float>()));
  CHECK(contains(error_of<ConfigError>([&] { two.peft.add_weighted_adapter({"a", "b"}, {1, 1}, "x", CombineOptions{.compat = MergeCompat::peft_0_21}); }), "list"));

  Two patterns(config_of(".*0.*q_proj"), config_of(".*v_proj"));
  patterns.peft.add_weighted_adapter({"a", "b"}, {1.0, 1.0}, "both", "cat");
  CHECK(std::get<LoraConfig>(patterns.peft.peft_config("both")).target_modules.pattern() == "(.*0.*q_proj)|(.*v_proj)");
}

TEST_CASE("what is refused leaves the model as it was") {
  Two two(config_of({"q_proj", "v_proj"}), config_of({"q_proj"}));
  PeftModel& peft = two.peft;
  const auto before = values_of(peft);
  const auto refused = [&](auto&& action, const char* text) {
    const std::string error = error_of<Error>(action);
    CHECK_MESSAGE(contains(error, text), error);
    CHECK(values_of(peft) == before);
    CHECK(peft.adapters() == std::vector<std::string>{"a", "b"});
  };
  refused([&] { peft.add_weighted_adapter({"a", "b"}, {1, 1}, "b"); }, "already");
  refused([&] { peft.add_weighted_adapter({"a", "c"}, {1, 1}, "x"); }, "no adapter 'c'");
  refused([&] { peft.add_weighted_adapter({"a", "b"}, {1}, "x"); }, "one for each");
  refused([&] { peft.add_weighted_adapter({}, {}, "x"); }, "at least one");
  refused([&] { peft.add_weighted_adapter({"a", "b"}, {1, 1}, "x.y"); }, "dot");
  refused([&] { peft.add_weighted_adapter({"a", "b"}, {1, std::nan("")}, "x"); }, "finite");
  refused([&] { peft.add_weighted_adapter({"a", "b"}, {1, 1}, "x", "mean"); }, "combination_type");
}

TEST_CASE("copies of modules: from the one source that has them, never two") {
  LoraConfig with_head = config_of({"q_proj"});
  with_head.modules_to_save = {"lm_head"};
  {
    Two two(config_of({"q_proj"}), with_head);
    ModulesToSave* head = two.peft.base_model->saved_modules().front().second;
    dynamic_cast<LinearLike&>(*head->copy_of("b")).weight().set(random_normal({40, 16}, {9, 0}));
    two.peft.add_weighted_adapter({"a", "b"}, {1, 1}, "both", "cat");
    CHECK(dynamic_cast<LinearLike&>(*head->copy_of("both")).weight().get().to_vector<float>() == dynamic_cast<LinearLike&>(*head->copy_of("b")).weight().get().to_vector<float>());
  }
  Two two(with_head, with_head);
  CHECK(contains(error_of<ConfigError>([&] { two.peft.add_weighted_adapter({"a", "b"}, {1, 1}, "both"); }), "lm_head"));
  CHECK(two.peft.adapters().size() == 2);
}

TEST_CASE("folders: combined without a model as with one; other ranks, differences, spectra") {
  Two two(config_of({"q_proj", "v_proj"}), config_of({"v_proj"}, 2));
  const TemporaryFolder folder;
  two.peft.save_pretrained(folder.path());
  const LoraAdapter a = read_lora_adapter(folder.file("a")), b = read_lora_adapter(folder.file("b"));
  CHECK(a.parts.size() == 4);
  CHECK(a.parts[0].path == kQ);
  CHECK(a.parts[0].scaling == 2.0);
  write_lora_adapter(combine_adapters({a, b}, {0.5, 2.0}), folder.file("c"));
  two.peft.add_weighted_adapter({"a", "b"}, {0.5, 2.0}, "model");
  two.peft.load_adapter(folder.file("c"), "file");
  CHECK(two.delta(kV, "file").to_vector<float>() == two.delta(kV, "model").to_vector<float>());

  // The difference to itself is nothing; a smaller one is the best of its rank.
  two.peft.load_adapter([&] { write_lora_adapter(subtract_adapters(a, b), folder.file("d")); return folder.file("d"); }(), "difference");
  CHECK(near(two.delta(kV, "difference"), sub(two.delta(kV, "a"), two.delta(kV, "b")).to_vector<float>()));
  CombinationReport report;
  write_lora_adapter(resize_adapter(a, {.energy = 0.8}, &report), folder.file("e"));
  const LoraAdapter small = read_lora_adapter(folder.file("e"));
  const std::vector<ModuleSpectrum> spectra = spectrum(a), kept = spectrum(small);
  for (std::size_t i = 0; i < spectra.size(); ++i) {
    CHECK(spectra[i].values.size() == 4);
    CHECK(kept[i].rank == spectra[i].rank_keeping(0.8));
    CHECK(kept[i].norm() * kept[i].norm() >= 0.8 * spectra[i].norm() * spectra[i].norm() - 1e-9);
    CHECK(report.modules[i].error.value() == doctest::Approx(std::sqrt(1.0 - std::pow(kept[i].norm() / spectra[i].norm(), 2.0))).epsilon(1e-4));
  }
  two.peft.load_adapter(folder.file("e"), "small");  // its patterns give every module its own rank
  CHECK(resize_adapter(a, {.rank = 9}).parts[0].a.size(0) == 9);
  CHECK(contains(error_of<ConfigError>([&] { resize_adapter(a, {}); }), "either"));
  CHECK(contains(error_of<ConfigError>([&] { resize_adapter(a, {.rank = 2, .energy = 0.5}); }), "either"));
}

TEST_CASE("keys of adapter files") {
  LoraConfig config = config_of({"q"}, 2);
  const Tensor a = ones({2, 3}), b = ones({4, 2});
  const LoraAdapter named = make_lora_adapter(config, {{"base_model.model.x.q.lora_A.default.weight", a}, {"x.q.lora_B.weight", b}, {"x.head.weight", b}}, "file");
  CHECK(named.parts[0].path == "x.q");
  CHECK(named.others[0].first == "x.head.weight");
  const LoraAdapter table = make_lora_adapter(config, {{"base_model.model.wte.lora_embedding_A", a}, {"base_model.model.wte.lora_embedding_B", b}}, "file");
  CHECK(table.parts[0].embedding);
  CHECK(file_tensors(table)[0].first == "base_model.model.wte.lora_embedding_A");
  CHECK(contains(error_of<NameError>([&] { make_lora_adapter(config, {{"x.q.lora_A.weight", a}}, "file"); }), "factor B"));
  CHECK(contains(error_of<ShapeError>([&] { make_lora_adapter(config, {{"x.q.lora_A.weight", a}, {"x.q.lora_B.weight", ones({4, 3})}}, "file"); }), "do not belong"));
  CHECK(contains(error_of<NameError>([&] { make_lora_adapter(config, {{"x.weight", a}}, "file"); }), "no LoRA factor"));
  // Numbers are numbers.
  const LoraAdapter many = make_lora_adapter(config, {{"l.10.q.lora_A.weight", a}, {"l.10.q.lora_B.weight", b}, {"l.2.q.lora_A.weight", a}, {"l.2.q.lora_B.weight", b}}, "file");
  CHECK(many.parts[0].path == "l.2.q");
}

TEST_CASE("an adapter extracted from two models is the one that was merged") {
  for (const bool gpt2 : {false, true}) {
    const TemporaryFolder folder;
    const auto base = [&] { return gpt2 ? tiny_gpt2() : tiny_llama(); };
    save_pretrained(*base(), folder.file("base"));
    PeftModel peft = get_peft_model(base(), gpt2 ? config_of({"c_attn", "c_proj"}, 3) : config_of({"q_proj", "down_proj"}, 3));
    randomize(peft, 8);
    const std::vector<float> expected = logits_of(peft);
    const std::shared_ptr<PretrainedModel> merged = peft.merge_and_unload();
    save_pretrained(*merged, folder.file("tuned"));
    ExtractReport report;
    const LoraAdapter found = extract_adapter(folder.file("base"), folder.file("tuned"), {.rank = 3}, &report);
    CHECK(found.parts.size() == (gpt2 ? 6 : 4));
    CHECK(report.left_over.empty());
    CHECK(report.modules.largest_error() < 1e-5);
    write_lora_adapter(found, folder.file("adapter"));
    PeftModel again = PeftModel::from_pretrained(base(), folder.file("adapter"));
    CHECK(largest_difference(logits_of(again), expected) < 1e-3);
    // A smaller rank says what it misses; what is not asked for is told.
    extract_adapter(folder.file("base"), folder.file("tuned"), {.rank = 1, .target_modules = {gpt2 ? "c_attn" : "q_proj"}}, &report);
    CHECK(report.modules.largest_error() > 0.01);
    CHECK(report.left_over.size() == (gpt2 ? 4 : 2));
    CHECK(contains(error_of<ConfigError>([&] { extract_adapter(folder.file("base"), folder.file("base")); }), "no matrix"));
    if (!gpt2) {
      save_pretrained(*tiny_llama(1), folder.file("other"));
      CHECK(contains(error_of<NameError>([&] { extract_adapter(folder.file("base"), folder.file("other")); }), "not of one model"));
    }
  }
}
