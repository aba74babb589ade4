// Algebra of low-rank matrices: singular values of a product B A that is never made, truncation, and the dense and randomised routes for a matrix that is.
#pragma once

#include <cstdint>
#include <optional>

#include "autograd/ops.h"

namespace cambium {

/// x in float32, in which adapters are combined and merged.
inline Tensor wide(const Tensor& x) { return to_dtype(x, DType::f32); }

/// The singular value decomposition of B A, B (m, R) and A (R, n), float64: u (m, K), s (K) descending, vt (K, n), K = min(m, n, R). The m x n product is never made: both factors are
/// orthogonalised, then the small core is decomposed (Golub and Van Loan, Matrix Computations, 5.4). O((m + n) R²) time, below 8 (m + n) R floats of memory.
/// Factors that are moved in are freed as soon as they have been read.
/// `vectors`: only so many columns of u and rows of vt (0: all). Signs: the entry of largest size in each column of u is positive. ShapeError; Error for NaN or infinity.
SvdResult svd_of_product(Tensor b, Tensor a, std::int64_t vectors = 0);

/// The same of a matrix (m, n) that is there. All of its min(m, n) singular values.
SvdResult svd_of_matrix(const Tensor& matrix);

/// The `rank` largest by subspace iteration on a random start (Halko, Martinsson and Tropp 2011, arXiv 0909.4061), repeated until what is captured no longer grows. float32.
SvdResult randomised_svd(const Tensor& matrix, std::int64_t rank, RandomKey key);
/// Whether a matrix of this size is better served by randomised_svd(): by size alone, so that the same adapters always take the same route.
bool prefers_randomised_svd(std::int64_t m, std::int64_t n, std::int64_t rank);

/// Rank-r factors, B A close to the matrix: a (r, n), b (m, r). All singular values stand in b; what the matrix has no rank for is zero.
struct LowRankFactors {
  Tensor a, b;
};
LowRankFactors truncate(const SvdResult& svd, std::int64_t rank);

/// Limits the entries of both factors to ±h, h the q-quantile of all their (signed) entries together with linear interpolation. ConfigError unless 0 <= q <= 1.
void clamp_factors(LowRankFactors& factors, double q);
/// Linear interpolation between the neighbours of position q (count - 1), as torch.quantile has it.
double quantile(std::vector<float>& values, double q);

/// The smallest rank that keeps this share of the sum of the squared singular values; at least 1. ConfigError unless 0 < energy <= 1.
std::int64_t rank_for_energy(const Tensor& s, double energy);

}  // namespace cambium
