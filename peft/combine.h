// Combining whole LoRA adapters: weighted sums, differences, other ranks, spectra; on adapters as data and on those of a model.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "peft/combine_layer.h"
#include "peft/lora_adapter.h"

namespace cambium {

/// What happened to one module.
struct CombinedModule {
  std::string path;
  std::vector<std::int64_t> source_ranks;
  std::int64_t rank = 0;
  std::string route;            ///< factors, low-rank, dense, randomised
  std::optional<double> error;  ///< relative Frobenius norm of what is missing; 1 - error² is the energy kept
};
struct CombinationReport {
  std::int64_t rank = 0;
  std::vector<CombinedModule> modules;
  double largest_error() const;
};
/// Called after each module: done, total, path. What it throws ends the work.
using CombinationProgress = std::function<void(std::size_t done, std::size_t total, const std::string& path)>;

/// PEFT's add_weighted_adapter on adapters as data. The new adapter has r = alpha, so its scaling is 1 (see MergeCompat), no patterns, and all modules that a source has. A single source with
/// `svd` and no rank, or with linear or cat, is taken over times its weight; the older releases do that whatever the type. ConfigError for DoRA, lora_bias, trained biases or replaced rows in a
/// source, for two sources with their own copy of one module, for weights that are not one per source.
LoraAdapter combine_adapters(const std::vector<LoraAdapter>& sources, const std::vector<double>& weights, const CombineOptions& options = {}, CombinationReport* report = nullptr,
                             const CombinationProgress& progress = {});

/// a - b, exact: the ranks add up. resize_adapter() makes it smaller.
LoraAdapter subtract_adapters(const LoraAdapter& a, const LoraAdapter& b);

/// One of the two.
struct ResizeOptions {
  std::optional<std::int64_t> rank;  ///< of every module
  std::optional<double> energy;      ///< share of the squared singular values to keep; the rank of each module follows
};
/// The closest adapter of other ranks. Modules whose rank is not the most common one get entries in rank_pattern and alpha_pattern.
LoraAdapter resize_adapter(const LoraAdapter& adapter, const ResizeOptions& options, CombinationReport* report = nullptr, const CombinationProgress& progress = {});

/// Singular values of one module's ΔW, descending, scaling included: min(out, in, r) of them.
struct ModuleSpectrum {
  std::string path;
  std::int64_t rank = 0;
  std::vector<double> values;
  double norm() const;                              ///< Frobenius
  std::int64_t rank_keeping(double energy) const;   ///< smallest rank that keeps this share of the squares
};
std::vector<ModuleSpectrum> spectrum(const LoraAdapter& adapter);

/// Combines adapters of a model, LoRA or IA3 (peft/combine_ia3.h: no options), into a new one, which is frozen and not active. NameError for an unknown source and for a name that is there. On any error the model is as it was.
CombinationReport add_weighted_adapter(Tuner& tuner, const std::vector<std::string>& adapters, const std::vector<double>& weights, const std::string& name, const CombineOptions& options = {});

}  // namespace cambium
