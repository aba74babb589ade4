// QR and singular values: the factors multiply back, are orthonormal and ordered, and damaged input is an error.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "kernel_arrays.h"
#include "kernels/cpu/one_openblas_thread.h"

using namespace cambium;
using namespace cambium::test;

namespace {

const std::pair<std::int64_t, std::int64_t> kSizes[] = {{1, 1}, {5, 5}, {40, 7}, {7, 40}, {1, 9}, {9, 1}, {130, 64}};

// a (M, K) diag(s) b (K, N) in double.
std::vector<double> product(const Array& a, const Array& b, const Array* s = nullptr) {
  const std::int64_t M = a.shape()[0], K = a.shape()[1], N = b.shape()[1];
  std::vector<double> result(static_cast<std::size_t>(M * N));
  for (std::int64_t i = 0; i < M; ++i)
    for (std::int64_t k = 0; k < K; ++k)
      for (std::int64_t j = 0; j < N; ++j) result[static_cast<std::size_t>(i * N + j)] += a[i * K + k] * (s ? (*s)[k] : 1) * b[k * N + j];
  return result;
}

// Greatest entry of |AT A - 1| for columns, |A AT - 1| for rows.
double orthonormality(const Array& a, bool columns) {
  const std::int64_t rows = a.shape()[0], n = a.shape()[1], vectors = columns ? n : rows, length = columns ? rows : n;
  double worst = 0;
  for (std::int64_t i = 0; i < vectors; ++i) {
    for (std::int64_t j = 0; j < vectors; ++j) {
      double sum = i == j ? -1 : 0;
      for (std::int64_t k = 0; k < length; ++k) sum += columns ? a[k * n + i] * a[k * n + j] : a[i * n + k] * a[j * n + k];
      worst = std::max(worst, std::fabs(sum));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("qr") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [M, N] : kSizes) {
      const std::int64_t K = std::min(M, N);
      Array x(dtype, {M, N}), q(dtype, {M, K}), r(dtype, {K, N});
      x.random(1);
      const std::vector<double> before = x.values();
      table().qr(cpu(), q, r, x);
      const double bound = 200 * epsilon(dtype);
      const std::vector<double> back = product(q, r);
      for (std::size_t i = 0; i < back.size(); ++i) REQUIRE(close(back[i], before[i], 0, bound));
      CHECK(x.values() == before);
      CHECK(orthonormality(q, true) < bound);
      for (std::int64_t i = 0; i < K; ++i)
        for (std::int64_t j = 0; j < i; ++j) CHECK(r[i * N + j] == 0);
      CHECK(q.gaps_untouched());
      CHECK(r.gaps_untouched());
    }
  }
}

TEST_CASE("svd") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [M, N] : kSizes) {
      const std::int64_t K = std::min(M, N);
      Array x(dtype, {M, N}), u(dtype, {M, K}), s(dtype, {K}), vt(dtype, {K, N});
      x.random(2);
      const std::vector<double> before = x.values();
      table().svd(cpu(), u, s, vt, x);
      const double bound = 200 * epsilon(dtype);
      const std::vector<double> back = product(u, vt, &s);
      for (std::size_t i = 0; i < back.size(); ++i) REQUIRE(close(back[i], before[i], 0, bound));
      CHECK(x.values() == before);
      CHECK(orthonormality(u, true) < bound);
      CHECK(orthonormality(vt, false) < bound);
      for (std::int64_t i = 0; i + 1 < K; ++i) CHECK(s[i] >= s[i + 1]);
      CHECK(s[K - 1] >= 0);
      CHECK(u.gaps_untouched());
      CHECK(vt.gaps_untouched());
    }
  }
}

TEST_CASE("singular values of a matrix of low rank") {
  Array a(DType::f64, {30, 2}), b(DType::f64, {2, 20}), x(DType::f64, {30, 20}), u(DType::f64, {30, 20}), s(DType::f64, {20}), vt(DType::f64, {20, 20});
  a.random(3);
  b.random(4);
  const std::vector<double> values = product(a, b);
  x.generate([&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; });
  table().svd(cpu(), u, s, vt, x);
  CHECK(s[1] > 1);
  CHECK(s[2] < 1e-13 * s[0]);
}

TEST_CASE("empty matrices, other types and NaN") {
  Array empty(DType::f32, {0, 3}), q(DType::f32, {0, 0}), r(DType::f32, {0, 3}), s(DType::f32, {0});
  table().qr(cpu(), q, r, empty);
  table().svd(cpu(), q, s, r, empty);
  Array x(DType::f32, {2, 2}), u(DType::f32, {2, 2}), values(DType::f32, {2}), vt(DType::f32, {2, 2});
  x.random(1);
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    x.set(3, bad);
    CHECK_THROWS_WITH_AS(table().svd(cpu(), u, values, vt, x),
                         "svd: expected finite numbers, found NaN or infinity in a matrix of 2 x 2: check the weights that it is made of", Error);
    CHECK_THROWS_AS(table().qr(cpu(), u, vt, x), Error);
  }
  const Array half(DType::bf16, {2, 2});
  CHECK_THROWS_AS(table().qr(cpu(), half, half, half), DTypeError);
}

TEST_CASE("OpenBLAS' own threads: one while any scope lives, the host program's number afterwards") {
  if (openblas_set_num_threads_local) return;  // a setting of each thread: scopes do not meet
  const int host = openblas_get_num_threads();
  openblas_set_num_threads(2);
  auto first = std::make_unique<kernels::cpu::OneOpenblasThread>(), second = std::make_unique<kernels::cpu::OneOpenblasThread>();
  CHECK(openblas_get_num_threads() == 1);
  first.reset();  // host threads end in any order
  CHECK(openblas_get_num_threads() == 1);
  second.reset();
  CHECK(openblas_get_num_threads() == 2);
  openblas_set_num_threads(host);
}
