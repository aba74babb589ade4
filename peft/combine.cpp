// Configurations and modules of several adapters into one.
#include "peft/combine.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "peft/combine_ia3.h"
#include "peft/file_keys.h"
#include "peft/lora_model.h"
#include "peft/save_load.h"

namespace cambium {

namespace {

std::int64_t rank_of(const LoraConfig& config) {
  std::int64_t rank = config.r;
  for (const auto& [key, value] : config.rank_pattern) rank = std::max(rank, value);
  return rank;
}

void check_source(const LoraAdapter& source) {
  for (const LoraAdapter::Part& part : source.parts) {
    check<ConfigError>(!part.magnitude.defined(), source.where, ": '", part.path, "' is adapted by DoRA, whose magnitudes cannot be added up: merge it into the model instead");
    check<ConfigError>(!part.bias.defined(), source.where, ": '", part.path, "' has a lora_bias, which the combination types do not define: merge it into the model instead");
  }
  check<ConfigError>(source.config.bias == "none", source.where, ": it trains biases of the base (bias = ", source.config.bias, "), of which a model can hold only one adapter's");
  for (const auto& [key, tensor] : source.others)
    check<ConfigError>(key.find("trainable_tokens_delta") == std::string::npos, source.where, ": '", key, "': replaced rows of an embedding cannot be combined: merge it into the model instead");
}

bool same_filters(const LoraConfig& a, const LoraConfig& b) {
  return a.exclude_modules == b.exclude_modules && a.layers_to_transform == b.layers_to_transform && a.layers_pattern == b.layers_pattern;
}

/// All targets together. Where lists and patterns or different filters of layers meet, no list of endings says the same: then the modules are named one by one.
void unite_targets(const std::vector<LoraAdapter>& sources, bool corrected, LoraConfig& config) {
  const auto all_of = [&](auto&& holds) { return std::all_of(sources.begin(), sources.end(), holds); };
  const bool lists = all_of([](const LoraAdapter& s) { return s.config.target_modules.is_list(); });
  const bool patterns = all_of([](const LoraAdapter& s) { return s.config.target_modules.is_pattern(); });
  const bool filters = all_of([&](const LoraAdapter& s) { return same_filters(s.config, sources.front().config); });
  check<ConfigError>(corrected || lists || patterns, "add_weighted_adapter: some adapters name target_modules by a list, others by a pattern: this release of PEFT cannot unite them");
  if (lists && (filters || !corrected)) {
    std::set<std::string> names;
    for (const LoraAdapter& s : sources) names.insert(s.config.target_modules.names().begin(), s.config.target_modules.names().end());
    config.target_modules = std::vector<std::string>(names.begin(), names.end());
  } else if (patterns && (filters || !corrected)) {
    std::vector<std::string> seen;
    std::string all;
    for (const LoraAdapter& s : sources) {
      const std::string& pattern = s.config.target_modules.pattern();
      if (std::find(seen.begin(), seen.end(), pattern) != seen.end()) continue;
      seen.push_back(pattern);
      all += (all.empty() ? "(" : "|(") + pattern + ")";
    }
    config.target_modules = seen.size() == 1 ? seen.front() : all;
  } else {
    std::set<std::string> paths;
    for (const LoraAdapter& s : sources)
      for (const LoraAdapter::Part& part : s.parts) paths.insert(part.path);
    config.target_modules = std::vector<std::string>(paths.begin(), paths.end());
    config.exclude_modules = ModuleSelection();
    config.layers_to_transform.reset();
    config.layers_pattern.reset();
  }
}

LoraConfig combined_config(const std::vector<LoraAdapter>& sources, std::int64_t rank, MergeCompat compat) {
  LoraConfig config = sources.front().config;
  config.r = rank;
  config.lora_alpha = static_cast<double>(rank);
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  config.init_lora_weights = true;
  config.inference_mode = true;
  if (compat == MergeCompat::corrected) config.use_rslora = false;
  unite_targets(sources, compat == MergeCompat::corrected, config);
  std::vector<std::string> copies;
  for (const LoraAdapter& s : sources)
    for (const std::string& name : s.config.modules_to_save.value_or(std::vector<std::string>{}))
      if (std::find(copies.begin(), copies.end(), name) == copies.end()) copies.push_back(name);
  if (!copies.empty()) config.modules_to_save = copies;
  return config;
}

/// Copies of modules go over from the one source that has them; base weights of embeddings are the same in all.
std::vector<NamedTensor> combined_others(const std::vector<LoraAdapter>& sources) {
  std::vector<NamedTensor> out;
  std::map<std::string, std::string> holders;
  for (const LoraAdapter& s : sources)
    for (const auto& [key, tensor] : s.others) {
      const auto [at, is_new] = holders.emplace(key, s.where);
      if (is_new) out.emplace_back(key, tensor);
      else
        check<ConfigError>(key.ends_with(".base_layer.weight"), "add_weighted_adapter: ", at->second, " and ", s.where, " both have their own copy of '", key.substr(0, key.rfind('.')),
                           "' (modules_to_save): trained copies cannot be combined");
    }
  return out;
}

}  // namespace

double CombinationReport::largest_error() const {
  double largest = 0.0;
  for (const CombinedModule& module : modules) largest = std::max(largest, module.error.value_or(0.0));
  return largest;
}

LoraAdapter combine_adapters(const std::vector<LoraAdapter>& sources, const std::vector<double>& weights, const CombineOptions& given, CombinationReport* report,
                             const CombinationProgress& progress) {
  check<ConfigError>(!sources.empty(), "add_weighted_adapter: name at least one adapter");
  check<ConfigError>(sources.size() == weights.size(), "add_weighted_adapter: ", sources.size(), " adapters but ", weights.size(), " weights: give one for each");
  CombineOptions options = given;
  CombinationMethod method = check_combination(options);
  const bool corrected = options.compat == MergeCompat::corrected;
  // One source needs no decomposition. PEFT does that whatever was asked for; we keep what changes the result.
  if (sources.size() == 1 && (!corrected || (!method.prunes() && !options.svd_rank && !options.svd_clamp))) {
    options = CombineOptions{.combination_type = "linear", .compat = options.compat, .measure_error = options.measure_error};
    method = check_combination(options);
  }
  std::int64_t largest = 0, sum = 0;
  for (const LoraAdapter& s : sources) {
    check_source(s);
    largest = std::max(largest, rank_of(s.config));
    sum += rank_of(s.config);
    check<ConfigError>(method.any_ranks() || rank_of(s.config) == rank_of(sources.front().config), "add_weighted_adapter: ", options.combination_type, ": the adapters' ranks differ (",
                       rank_of(sources.front().config), " and ", rank_of(s.config), "): use cat or a type that ends in svd");
  }
  const std::int64_t rank = method.kind == CombinationMethod::Kind::cat ? sum : options.svd_rank.value_or(largest);

  LoraAdapter out;
  out.where = "combined adapter";
  out.config = combined_config(sources, rank, options.compat);
  out.others = combined_others(sources);
  std::vector<std::string> paths;
  std::map<std::string, std::vector<std::pair<const LoraAdapter::Part*, double>>> by_path;
  for (std::size_t i = 0; i < sources.size(); ++i)
    for (const LoraAdapter::Part& part : sources[i].parts) {
      auto& here = by_path[part.path];
      if (here.empty()) paths.push_back(part.path);
      check<ConfigError>(here.empty() || here.front().first->embedding == part.embedding, part.path, ": one adapter takes it for an embedding, another for a matrix: they are not of one base model");
      here.emplace_back(&part, weights[i]);
    }
  if (report) *report = {rank, {}};
  for (const std::string& path : paths) {
    std::vector<CombineSource> layer;
    CombinedModule row{path, {}, rank, {}, {}};
    for (const auto& [part, weight] : by_path.at(path)) {
      layer.push_back({part->a, part->b, part->scaling, weight});
      row.source_ranks.push_back(part->a.size(0));
    }
    CombinedLayer combined = combine_layer(layer, options, rank, options.key.fold(path), path);
    row.route = combined.route;
    row.error = combined.error;
    const double scaling = out.config.use_rslora ? std::sqrt(static_cast<double>(rank)) : 1.0;
    out.parts.push_back({path, by_path.at(path).front().first->embedding, scaling, combined.factors.a, combined.factors.b, {}, {}});
    if (report) report->modules.push_back(std::move(row));
    if (progress) progress(out.parts.size(), paths.size(), path);
  }
  return out;
}

LoraAdapter subtract_adapters(const LoraAdapter& a, const LoraAdapter& b) { return combine_adapters({a, b}, {1.0, -1.0}, {.combination_type = "cat"}); }

LoraAdapter resize_adapter(const LoraAdapter& adapter, const ResizeOptions& options, CombinationReport* report, const CombinationProgress& progress) {
  NoGrad no_grad;
  check<ConfigError>(options.rank.has_value() != options.energy.has_value(), "resize: give either a rank or the energy to keep");
  check<ConfigError>(!options.rank || *options.rank > 0, "resize: expected a positive rank, found ", options.rank.value_or(0));
  check<ConfigError>(!options.energy || (*options.energy > 0.0 && *options.energy <= 1.0), "resize: expected an energy above 0 and at most 1, found ", options.energy.value_or(0.0));
  check_source(adapter);
  LoraAdapter out = adapter;
  out.parts.clear();
  out.config.rank_pattern.clear();
  out.config.alpha_pattern.clear();
  out.config.use_rslora = false;
  out.config.init_lora_weights = true;
  if (report) *report = {};
  std::map<std::int64_t, std::size_t> counts;
  for (const LoraAdapter::Part& part : adapter.parts) {
    const SvdResult svd = svd_of_product(mul(to_dtype(part.b, DType::f64), part.scaling), part.a);
    const std::int64_t rank = options.rank ? *options.rank : rank_for_energy(svd.s, *options.energy);
    LowRankFactors factors = truncate(svd, rank);
    const std::vector<double> s = svd.s.to_vector<double>();
    double all = 0.0, lost = 0.0;
    for (std::size_t i = 0; i < s.size(); ++i) (i < static_cast<std::size_t>(rank) ? all : lost) += s[i] * s[i];
    all += lost;
    out.parts.push_back({part.path, part.embedding, 1.0, factors.a, factors.b, {}, {}});
    ++counts[rank];
    if (report) report->modules.push_back({part.path, {part.a.size(0)}, rank, "low-rank", all > 0.0 ? std::sqrt(lost / all) : 0.0});
    if (progress) progress(out.parts.size(), adapter.parts.size(), part.path);
  }
  const auto common = std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) { return x.second < y.second; });
  out.config.r = common->first;
  out.config.lora_alpha = static_cast<double>(common->first);
  for (const LoraAdapter::Part& part : out.parts)
    if (const std::int64_t rank = part.a.size(0); rank != out.config.r) {
      out.config.rank_pattern.emplace_back(pattern_of(part.path), rank);
      out.config.alpha_pattern.emplace_back(pattern_of(part.path), static_cast<double>(rank));
    }
  if (report) report->rank = out.config.r;
  return out;
}

double ModuleSpectrum::norm() const {
  double sum = 0.0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum);
}

std::int64_t ModuleSpectrum::rank_keeping(double energy) const { return rank_for_energy(from_vector(values, {static_cast<std::int64_t>(values.size())}), energy); }

std::vector<ModuleSpectrum> spectrum(const LoraAdapter& adapter) {
  NoGrad no_grad;
  std::vector<ModuleSpectrum> out;
  for (const LoraAdapter::Part& part : adapter.parts)
    out.push_back({part.path, part.a.size(0), svd_of_product(mul(to_dtype(part.b, DType::f64), part.scaling), part.a).s.to_vector<double>()});
  return out;
}

namespace {

CombinationReport add_weighted_ia3(Tuner& tuner, const std::vector<std::string>& adapters, const std::vector<double>& weights, const std::string& name, const CombineOptions& options) {
  const CombineOptions plain;
  check<ConfigError>((options.combination_type == plain.combination_type || options.combination_type == "linear") && !options.svd_rank && !options.svd_clamp && !options.density &&
                         !options.majority_sign_method, "add_weighted_adapter: vectors of IA3 are added up: combination types and their options are for LoRA");
  std::vector<Ia3Adapter> sources;
  for (const std::string& adapter : adapters) {
    std::vector<NamedTensor> tensors;
    for (const auto& [key, slot] : tuner.adapter_state(adapter)) tensors.emplace_back(key, detach(slot->tensor));
    sources.push_back(make_ia3_adapter(std::get<IA3Config>(tuner.config(adapter)), tensors, "adapter '" + adapter + "'"));
  }
  const Ia3Adapter combined = combine_ia3_adapters(sources, weights);
  add_adapter_with_state(tuner, name, combined.config, file_tensors(combined));
  CombinationReport report;
  for (const auto& [path, l] : combined.vectors) report.modules.push_back({path, {}, 1, "sum", 0.0});
  return report;
}

}  // namespace

CombinationReport add_weighted_adapter(Tuner& tuner, const std::vector<std::string>& adapters, const std::vector<double>& weights, const std::string& name, const CombineOptions& options) {
  check<NameError>(!tuner.has_adapter(name), "add_weighted_adapter: there is an adapter '", name, "' already: choose another name");
  if (!adapters.empty() && std::holds_alternative<IA3Config>(tuner.config(adapters.front()))) return add_weighted_ia3(tuner, adapters, weights, name, options);
  std::vector<LoraAdapter> sources;
  for (const std::string& adapter : adapters) sources.push_back(lora_adapter_of(tuner, adapter));
  CombinationReport report;
  const LoraAdapter combined = combine_adapters(sources, weights, options, &report);
  add_to_model(tuner, name, combined);
  return report;
}

}  // namespace cambium
