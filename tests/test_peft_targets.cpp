// Which modules an adapter goes to: lists, patterns, layers, exclusions, all-linear, defaults, and what is said when nothing matches.
#include <doctest/doctest.h>

#include "peft/peft_model.h"
#include "peft/targets.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

using Names = std::vector<std::string>;

LoraConfig config_of(ModuleSelection targets) {
  LoraConfig config;
  config.r = 2;
  config.target_modules = std::move(targets);
  return config;
}

Names adapted(const std::shared_ptr<PretrainedModel>& base, const LoraConfig& config) {
  auto peft = get_peft_model(base, config);
  Names out;
  for (const auto& [path, layer] : peft.base_model->adapter_layers()) out.push_back(path);
  peft.unload();
  return out;
}

}  // namespace

TEST_CASE("one path against lists, patterns and layers, as PEFT decides") {
  struct Row {
    std::string path;
    ModuleSelection targets;
    std::optional<std::vector<std::int64_t>> layers;
    std::optional<Names> pattern;
    bool match;
  };
  using Layers = std::vector<std::int64_t>;
  const Row rows[] = {
      {"", ModuleSelection(Names{}), {}, {}, false},
      {"", ModuleSelection(Names{"foo"}), {}, {}, false},
      {"foo", ModuleSelection(Names{}), {}, {}, false},
      {"foo", {"foo"}, {}, {}, true},
      {"foo", {"bar"}, {}, {}, false},
      {"foo", {"foo", "bar"}, {}, {}, true},
      {"foo", {"f"}, {}, {}, false},
      {"foo.bar", {"foo"}, {}, {}, false},
      {"foo.bar", {"bar"}, {}, {}, true},
      {"foo.bar", {"foo.bar"}, {}, {}, true},
      {"foo.bar", {"bar.foo"}, {}, {}, false},
      {"foobar", {"bar"}, {}, {}, false},
      {"foo.b.r", {"b.r"}, {}, {}, true},
      {"foo.bxr", {"b.r"}, {}, {}, false},
      {"foobar", ".*oba.*", {}, {}, true},
      {"foobar", "oba", {}, {}, false},
      {"foo.bar", ".*\\.bar", {}, {}, true},
      {"foo.bar.baz", ".*\\.bar", {}, {}, false},
      {"foo.bar", "(?i)FOO\\.BAR", {}, {}, true},
      {"foo.bar", "(?P<x>foo)\\.(?!baz).*", {}, {}, true},
      {"foo.bar.1.baz", {"baz"}, Layers{1}, Names{"bar"}, true},
      {"foo.bar.1.baz", {"baz"}, Layers{0, 1, 2}, Names{"bar"}, true},
      {"foo.bar.10.baz", {"baz"}, Layers{0}, Names{"bar"}, false},
      {"foo.bar.1.baz", {"baz"}, Layers{0}, Names{"bar"}, false},
      {"foo.whatever.1.baz", {"baz"}, Layers{1}, Names{""}, true},
      {"foo.whatever.1.baz", {"baz"}, Layers{1}, Names{}, true},
      {"foo.whatever.1.baz", {"baz"}, Layers{1}, {}, true},
      {"foo.whatever.1.baz", {"baz"}, Layers{0}, {}, false},
      {"foo.bar.1.baz", {"baz"}, Layers{1}, Names{"foo"}, false},
      {"foo.bar.1.baz", {"baz"}, Layers{1}, Names{"baz"}, false},
      {"bar.1.baz", {"baz"}, Layers{1}, Names{"bar"}, false},
      {"foo.bar.001.baz", {"baz"}, Layers{1}, Names{"bar"}, true},
      {"foo.bar.1.spam.2.baz", {"baz"}, Layers{1}, Names{"bar"}, true},
      {"foo.bar.2.spam.1.baz", {"baz"}, Layers{1}, Names{"bar"}, false},
      {"blocks.1.weight", {"weight"}, Layers{1}, Names{"blocks"}, false},
      {"blocks.1.bias", {"weight"}, Layers{1}, Names{"blocks"}, false},
      {"mlp.blocks.1.weight", {"weight"}, Layers{1}, Names{"blocks"}, true},
      {"mlp.blocks.1.bias", {"weight"}, Layers{1}, Names{"blocks"}, false},
      {"mlp.blocks.1.weight", {"weight"}, Layers{1}, Names{"layers", "blocks"}, true},
      {"mlp.blocks.1.weight", {"weight"}, Layers{1}, Names{"bl.cks"}, true},  // an entry is a regular expression
      {"mlp.blocks.1.weight", {"mlp.blocks.1.weight"}, Layers{0}, Names{"blocks"}, true},  // an exact path passes the layer filter
      {"h.0.attn", {"attn"}, Layers{0}, {}, true},
      {"a.h.0.attn", {"attn"}, Layers{1}, {}, false},
      {"foo.bar.baz", {"baz"}, Layers{1}, {}, false},
      {"foo.bar.baz", {"baz"}, Layers{}, {}, true},
  };
  for (const Row& row : rows) {
    INFO(row.path);
    const bool no_index = row.path == "h.0.attn";  // one component before the number: it is no layer
    CHECK((TargetMatcher(row.targets, {}, row.layers, row.pattern).match(row.path) == TargetMatcher::Result::yes) == (row.match && !no_index));
  }
  CHECK_THROWS_AS(TargetMatcher("(", {}, {}, {}).match("a"), ConfigError);
}

TEST_CASE("exclusions win") {
  using R = TargetMatcher::Result;
  CHECK(TargetMatcher({"q"}, {"0.q"}, {}, {}).match("a.0.q") == R::excluded);
  CHECK(TargetMatcher({"q"}, {"0.q"}, {}, {}).match("a.10.q") == R::yes);
  CHECK(TargetMatcher({"q"}, ".*0.*", {}, {}).match("a.10.q") == R::excluded);
  CHECK(TargetMatcher({"a.0.q"}, {"a.0.q"}, {}, {}).match("a.0.q") == R::excluded);
  CHECK(TargetMatcher({"q"}, {"v", "q"}, {}, {}).unused_exclusions({"a.q", "a.k"}) == Names{"v"});
  CHECK(TargetMatcher({"q"}, "x.*", {}, {}).unused_exclusions({"a.q"}) == Names{"x.*"});
}

TEST_CASE("layer numbers and pattern lookups") {
  CHECK(layer_index("model.layers.3.mlp", {}) == 3);
  CHECK_FALSE(layer_index("layers.3.mlp", {}).has_value());
  CHECK_FALSE(layer_index("model.layers.3", {}).has_value());
  CHECK(layer_index("model.layers.3.experts.5.up", {}) == 3);
  CHECK(layer_index("model.layers.3.experts.5.up", {"experts"}) == 5);
  CHECK_FALSE(layer_index("model.layers.99999999999999999999.up", {}).has_value());
  const std::vector<std::pair<std::string, std::int64_t>> ranks = {{"^a.q", 1}, {"b.q", 2}, {"q", 3}, {"[kv]", 4}};
  const auto rank = [&](const std::string& path) { const auto* found = find_pattern(ranks, path); return found ? found->second : 0; };
  CHECK(rank("a.q") == 1);
  CHECK(rank("x.a.q") == 3);
  CHECK(rank("x.b.q") == 2);
  CHECK(rank("x.bb.q") == 3);
  CHECK(rank("xq") == 0);
  CHECK(rank("x.v") == 4);
  CHECK(rank("x.v.y") == 0);
}

TEST_CASE("all-linear: full paths below twenty, shortest endings from twenty on") {
  LoraConfig config = config_of("All-Linear");
  const Names expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  {
    auto peft = get_peft_model(tiny_llama(2), config);
    const auto& targets = std::get<LoraConfig>(peft.peft_config("default")).target_modules;
    CHECK(targets.names().size() == 14);
    CHECK(std::find(targets.names().begin(), targets.names().end(), "model.layers.1.self_attn.q_proj") != targets.names().end());
    CHECK(peft.base_model->adapter_layers().size() == 14);
  }
  {
    auto peft = get_peft_model(tiny_llama(3), config);  // 21
    Names targets = std::get<LoraConfig>(peft.peft_config("default")).target_modules.names();
    std::sort(targets.begin(), targets.end());
    Names sorted = expected;
    std::sort(sorted.begin(), sorted.end());
    CHECK(targets == sorted);
    CHECK(peft.base_model->adapter_layers().size() == 21);
    // A second adapter finds the wrapped layers once each, and nothing inside them.
    LoraConfig again = config;
    peft.add_adapter("second", again);
    CHECK(peft.base_model->adapter_layers().size() == 21);
    Names second = std::get<LoraConfig>(peft.peft_config("second")).target_modules.names();
    std::sort(second.begin(), second.end());
    CHECK(second == sorted);
  }
  CHECK(adapted(tiny_gpt2(), config).size() == 8);  // without lm_head
  config.exclude_modules = {"layers.0.mlp.up_proj", "o_proj"};
  CHECK(adapted(tiny_llama(2), config).size() == 11);
}

TEST_CASE("shortest endings") {
  CHECK(minimal_suffixes({"a.0.q", "a.1.q"}, {"a.0.v"}) == Names{"q"});
  CHECK(minimal_suffixes({"a.0.q", "a.1.q"}, {"b.q"}) == Names{"0.q", "1.q"});
  CHECK(minimal_suffixes({"m.attn.c_proj", "m.mlp.c_fc"}, {"m.mlp.c_proj"}) == Names{"attn.c_proj", "c_fc"});
}

TEST_CASE("defaults by architecture") {
  CHECK(*default_lora_targets("llama") == ModuleSelection{"q_proj", "v_proj"});
  CHECK(*default_lora_targets("gpt2") == ModuleSelection{"c_attn"});
  CHECK(*default_lora_targets("t5") == ModuleSelection{"q", "v"});
  CHECK(*default_lora_targets("bert") == ModuleSelection{"query", "value"});
  CHECK_FALSE(default_lora_targets("nothing").has_value());
  CHECK(adapted(tiny_llama(), LoraConfig{}) == Names{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"});
  CHECK(adapted(tiny_gpt2(), LoraConfig{}) == Names{"transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"});
}

TEST_CASE("targets in a real tree") {
  CHECK(adapted(tiny_llama(), config_of(".*\\.layers\\.1\\.(self_attn\\.[kv]_proj|mlp\\.up_proj)")) ==
        Names{"model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj"});
  LoraConfig config = config_of({"q_proj"});
  config.layers_to_transform = std::vector<std::int64_t>{1};
  CHECK(adapted(tiny_llama(), config) == Names{"model.layers.1.self_attn.q_proj"});
  config.layers_pattern = Names{"layers"};
  CHECK(adapted(tiny_llama(), config) == Names{"model.layers.1.self_attn.q_proj"});
  LoraConfig kept = config_of({"lm_head", "q_proj"});
  kept.modules_to_save = Names{"lm_head"};  // what is trained in full gets no adapter
  CHECK(adapted(tiny_llama(), kept).size() == 2);
}

TEST_CASE("nothing matched: one line that says what was asked for") {
  const auto base = tiny_llama();
  const auto refused = [&](const LoraConfig& config) { return error_of<ConfigError>([&] { get_peft_model(base, config); }); };
  CHECK(contains(refused(config_of({"query", "value"})), "target_modules query, value"));
  CHECK(contains(refused(config_of(".*query")), "target_modules '.*query'"));
  LoraConfig layers = config_of({"q_proj"});
  layers.layers_to_transform = std::vector<std::int64_t>{7};
  CHECK(contains(refused(layers), "layers_to_transform"));
  layers.layers_pattern = Names{"blocks"};
  CHECK(contains(refused(layers), "blocks"));
  LoraConfig excluded = config_of({"q_proj"});
  excluded.exclude_modules = {"q_proj"};
  CHECK(contains(refused(excluded), "excluded"));
  CHECK(contains(refused(config_of(ModuleSelection(Names{}))), "none"));
  CHECK(contains(refused(config_of("(")), "("));
  CHECK(contains(refused(config_of({"self_attn"})), "self_attn"));
  CHECK(base->parent() == nullptr);
}
