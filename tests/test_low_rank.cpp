// Low-rank algebra: the route over QR against a dense decomposition, randomised decomposition, clamping, quantiles.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "kernels/parallel.h"
#include "peft/low_rank.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

double norm_of(const Tensor& x) { return std::sqrt(sum(mul(to_dtype(x, DType::f64), to_dtype(x, DType::f64))).item()); }

Tensor product(const Tensor& b, const Tensor& a) { return matmul(to_dtype(b, DType::f64), to_dtype(a, DType::f64)); }

/// A pair of factors of one of several kinds: ordinary, rank-deficient, with repeated singular values, with one part of weight zero, very different sizes.
struct Case { Tensor b, a; };
Case random_case(int seed) {
  const RandomKey key{static_cast<std::uint64_t>(seed), 7};
  const auto pick = [&](const char* what, std::int64_t low, std::int64_t high) { return random_integers({1}, key.fold(what), low, high).to_vector<std::int64_t>()[0]; };
  const std::int64_t m = pick("m", 1, 70), n = pick("n", 1, 70), r = seed % 9 == 0 ? 1 : pick("r", 1, 40);
  Tensor b = random_normal({m, r}, key.fold("b")), a = random_normal({r, n}, key.fold("a"));
  switch (seed % 6) {
    case 1:  // the same column twice
      if (r > 1) b = cat({slice(b, 1, 0, 1), slice(b, 1, 0, r - 1)}, 1);
      break;
    case 2: {  // orthonormal factors: all singular values are one
      b = qr(b).q;
      a = transpose(qr(contiguous(transpose(a))).q);
      const std::int64_t k = std::min(b.size(1), a.size(0));
      b = contiguous(slice(b, 1, 0, k));
      a = contiguous(slice(a, 0, 0, k));
      break;
    }
    case 3:  // a source of weight zero
      if (r > 1) a = cat({zeros({r / 2, n}), slice(a, 0, r / 2)}, 0);
      break;
    case 4:  // sizes over eight orders of magnitude
      a = mul(a, reshape(exp(mul(to_dtype(arange(r), DType::f32), -18.0 / static_cast<double>(r))), {r, 1}));
      break;
    default: break;
  }
  return {b, a};
}

}  // namespace

TEST_CASE("200 cases: the truncated product over QR is that of the dense decomposition") {
  int compared = 0, by_norm = 0;
  for (int seed = 0; seed < 200; ++seed) {
    const Case c = random_case(seed);
    const Tensor dense = product(c.b, c.a);
    const SvdResult full = svd(dense), quick = svd_of_product(c.b, c.a);
    const std::vector<double> s = full.s.to_vector<double>();
    const double whole = norm_of(dense), largest = s[0];
    // Ranks below, at and above what there is.
    for (const std::int64_t rank : {std::int64_t{1}, (c.a.size(0) + 1) / 2, c.a.size(0), std::min(c.b.size(0), c.a.size(1)) + 3}) {
      const LowRankFactors factors = truncate(quick, rank);
      CHECK(factors.a.shape() == Shape{rank, c.a.size(1)});
      CHECK(factors.b.shape() == Shape{c.b.size(0), rank});
      const Tensor found = product(factors.b, factors.a);
      const auto at = static_cast<std::size_t>(rank);
      const bool clear_cut = at >= s.size() || s[at - 1] - s[at] > 1e-3 * largest;
      const std::int64_t kept = std::min<std::int64_t>(rank, full.s.size(0));
      const Tensor best = matmul(mul(slice(full.u, 1, 0, kept), slice(full.s, 0, 0, kept)), slice(full.vt, 0, 0, kept));
      if (clear_cut) {
        ++compared;
        CHECK(norm_of(sub(found, best)) <= 1e-5 * whole);
      } else {
        ++by_norm;
        CHECK(std::fabs(norm_of(sub(found, dense)) - norm_of(sub(best, dense))) <= 1e-5 * whole);
      }
    }
    CHECK(all_finite(quick.u));
    const std::vector<double> values = quick.s.to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::fabs(values[i] - s[i]) <= 1e-12 * (largest + 1e-300));
  }
  CHECK(compared > 300);
  CHECK(by_norm > 20);
}

TEST_CASE("signs are fixed and results do not depend on the number of threads") {
  const Tensor b = random_normal({300, 24}, {1, 0}), a = random_normal({24, 210}, {2, 0});
  const int before = kernels::threads();
  kernels::set_threads(1);
  const SvdResult one = svd_of_product(b, a);
  kernels::set_threads(2);
  const SvdResult two = svd_of_product(b, a);
  kernels::set_threads(before);
  CHECK(one.u.to_vector<double>() == two.u.to_vector<double>());
  CHECK(one.vt.to_vector<double>() == two.vt.to_vector<double>());
  const std::vector<double> u = one.u.to_vector<double>();
  for (std::size_t k = 0; k < 24; ++k) {
    double best = 0.0;
    for (std::size_t i = 0; i < 300; ++i)
      if (std::fabs(u[i * 24 + k]) > std::fabs(best)) best = u[i * 24 + k];
    CHECK(best > 0.0);
  }
  // Orthonormal on both sides.
  CHECK(norm_of(sub(matmul(transpose(one.u), one.u), matmul(one.vt, transpose(one.vt)))) < 1e-12);
}

TEST_CASE("a randomised decomposition of a large matrix captures what the dense one does") {
  // Slowly falling singular values: the hard case for a random start.
  const std::int64_t m = 700, n = 600;
  const Tensor x = add(matmul(random_normal({m, 30}, {3, 0}), random_normal({30, n}, {4, 0})), mul(random_normal({m, n}, {5, 0}), 3.0));
  CHECK(prefers_randomised_svd(m, n, 16));
  CHECK_FALSE(prefers_randomised_svd(m, n, 300));
  CHECK_FALSE(prefers_randomised_svd(200, 4096, 4));
  const SvdResult dense = svd_of_matrix(x), quick = randomised_svd(x, 16, {6, 0});
  CHECK(quick.s.size(0) == 16);
  const double best = norm_of(sub(to_dtype(x, DType::f64), matmul(mul(slice(dense.u, 1, 0, 16), slice(dense.s, 0, 0, 16)), slice(dense.vt, 0, 0, 16))));
  const double found = norm_of(sub(to_dtype(x, DType::f64), matmul(mul(quick.u, quick.s), quick.vt)));
  CHECK(found <= best * 1.001);
  CHECK(randomised_svd(x, 16, {6, 0}).s.to_vector<double>() == quick.s.to_vector<double>());
}

TEST_CASE("quantiles and clamping") {
  std::vector<float> values{4, 1, 3, 2};
  CHECK(quantile(values, 0.9) == doctest::Approx(3.7));
  CHECK(quantile(values, 1.0) == 4.0);
  CHECK(quantile(values, 0.0) == 1.0);
  LowRankFactors factors{from_vector(std::vector<float>{1, -4}, {1, 2}), from_vector(std::vector<float>{3, 2}, {2, 1})};
  clamp_factors(factors, 0.5);  // of -4, 1, 2, 3: 1.5
  CHECK(factors.a.to_vector<float>() == std::vector<float>{1, -1.5});
  CHECK(factors.b.to_vector<float>() == std::vector<float>{1.5, 1.5});
  CHECK(contains(error_of<ConfigError>([&] { clamp_factors(factors, 1.5); }), "svd_clamp"));
  const Tensor s = from_vector(std::vector<double>{3, 2, 1, 0}, {4});
  CHECK(rank_for_energy(s, 1.0) == 3);
  CHECK(rank_for_energy(s, 0.9) == 2);
  CHECK(rank_for_energy(s, 0.1) == 1);
  CHECK(rank_for_energy(zeros({3}, DType::f64), 0.9) == 1);
  CHECK(contains(error_of<ConfigError>([&] { rank_for_energy(s, 0.0); }), "energy"));
}

TEST_CASE("what cannot be decomposed is refused") {
  const Tensor b = ones({4, 2}), a = ones({2, 3});
  CHECK(contains(error_of<ShapeError>([&] { svd_of_product(b, ones({3, 3})); }), "inner sizes"));
  CHECK(contains(error_of<Error>([&] { svd_of_product(full({4, 2}, std::numeric_limits<double>::quiet_NaN()), a); }), "NaN"));
  CHECK(contains(error_of<Error>([&] { svd_of_product(b, full({2, 3}, std::numeric_limits<double>::infinity())); }), "infinity"));
  CHECK(contains(error_of<ConfigError>([&] { truncate(svd_of_product(b, a), 0); }), "positive rank"));
  CHECK(contains(error_of<ShapeError>([&] { svd_of_matrix(zeros({0, 3})); }), "not empty"));
}
