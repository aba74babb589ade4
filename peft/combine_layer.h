// Combining the low-rank factors that several adapters have for one layer: the eleven combination types, without names and models.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "peft/low_rank.h"

namespace cambium {

/// Whose arithmetic: our own, or that of a range of PEFT's releases with its known mistakes, so that published numbers can be matched.
enum class MergeCompat {
  corrected,        ///< each scaling counts once, the new adapter's scaling is 1, weights of either sign
  peft_0_21,        ///< the new adapter inherits use_rslora from the first source: its update is sqrt(rank) times too large
  peft_0_9_to_0_20, ///< as well, and svd types count each scaling twice
  peft_0_7,         ///< 0.7 and 0.8: linear with sqrt(w) s A and sqrt(w) B, no negative weights there; linear, cat and svd only
  peft_0_4,         ///< 0.4 to 0.6: linear with w s A and B; svd always clamped, at the 0.99 quantile unless told; linear, cat and svd only
};
std::string_view name_of(MergeCompat compat);
MergeCompat parse_merge_compat(std::string_view text);  ///< ConfigError listing the names

struct CombineOptions {
  /// linear, cat, svd, ties, dare_linear, dare_ties, magnitude_prune, or one of the last four with _svd: the type on whole deltas, then svd.
  std::string combination_type = "svd";
  std::optional<std::int64_t> svd_rank;  ///< of the types that end in svd; absent: the largest rank of the sources
  std::optional<double> svd_clamp;       ///< quantile to which the new factors' entries are limited
  bool svd_full_matrices = true;         ///< accepted for PEFT's sake: singular vectors that would be multiplied by zero are never made
  std::optional<double> density;         ///< share of entries kept; needed by ties, dare and magnitude_prune
  std::optional<std::string> majority_sign_method;  ///< of ties: total (default) or frequency
  MergeCompat compat = MergeCompat::corrected;
  RandomKey key{};             ///< of DARE's masks
  bool measure_error = false;  ///< of the types that work on factors, too: their error against the same combination of whole deltas, which are made for that
};

/// What a type does, told from its name.
struct CombinationMethod {
  enum class Kind { linear, cat, svd, ties, dare_linear, dare_ties, magnitude_prune } kind = Kind::svd;
  bool by_svd = false;  ///< ends in svd: any ranks go in, a chosen one comes out

  bool prunes() const { return kind != Kind::linear && kind != Kind::cat && kind != Kind::svd; }
  bool any_ranks() const { return by_svd || kind == Kind::cat; }
};
/// Reads and checks the options against each other: ConfigError for an unknown type, a missing density, options that the type has no use for, values out of range.
CombinationMethod check_combination(const CombineOptions& options);

/// One source: ΔW = scaling B A, a (r, in), b (out, r).
struct CombineSource {
  Tensor a, b;
  double scaling = 1.0, weight = 1.0;
};

struct CombinedLayer {
  LowRankFactors factors;          ///< float32, of the rank asked for, padded with zeros
  std::string route;               ///< factors, low-rank, dense or randomised
  std::optional<double> error;     ///< Frobenius norm of what is missing, relative to the combination of whole deltas
};

/// `where` names the layer in messages. ShapeError; ConfigError (unequal ranks of a type that needs equal ones; negative weights where a release could not take them); StateError for NaN.
CombinedLayer combine_layer(const std::vector<CombineSource>& sources, const CombineOptions& options, std::int64_t rank, RandomKey key, const std::string& where = "combining");

}  // namespace cambium
