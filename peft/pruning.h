// Sparsifying and voting on weights of several adapters: magnitude and random pruning, task arithmetic, TIES.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/ops.h"

namespace cambium {

/// Keeps the int(density * count) entries of largest size and makes the others zero; of equals at the border the first ones stay. density >= 1 keeps all.
/// ConfigError for a negative density.
Tensor magnitude_prune(const Tensor& x, double density);
/// Keeps each entry with probability `density` and divides by it (DARE, Yu et al. 2023, arXiv 2311.03099). density >= 1 keeps all; ConfigError unless it is positive.
Tensor random_prune(const Tensor& x, double density, RandomKey key);
/// Sum of weights[i] * parts[i].
Tensor task_arithmetic(const std::vector<Tensor>& parts, const std::vector<double>& weights);
/// TIES (Yadav et al. 2023, arXiv 2306.01708) on parts that are pruned already: per entry a sign is elected, "total": that of the sum, "frequency": that of the sum of signs, zero counts as
/// positive; the weighted entries that have it are averaged. Weights have no vote. ConfigError for another method.
Tensor elect_and_average(const std::vector<Tensor>& parts, const std::vector<double>& weights, const std::string& majority_sign_method);

}  // namespace cambium
