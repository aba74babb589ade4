// QR and singular values on the device: the factors multiply back, are orthonormal and ordered, and damaged input is an error.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::test;

namespace {

const std::pair<std::int64_t, std::int64_t> kSizes[] = {{1, 1}, {5, 5}, {40, 7}, {7, 40}, {1, 9}, {9, 1}, {70, 64}, {0, 3}};

// a (M, K) diag(s) b (K, N) in double.
std::vector<double> product(const Array& a, const Array& b, const Array* s = nullptr) {
  const std::int64_t M = a.shape()[0], K = a.shape()[1], N = b.shape()[1];
  std::vector<double> result(static_cast<std::size_t>(M * N));
  for (std::int64_t i = 0; i < M; ++i)
    for (std::int64_t k = 0; k < K; ++k)
      for (std::int64_t j = 0; j < N; ++j) result[static_cast<std::size_t>(i * N + j)] += a[i * K + k] * (s ? (*s)[k] : 1) * b[k * N + j];
  return result;
}

// Greatest entry of |AT A - 1|.
double orthonormality(const Array& a, bool columns) {
  const std::int64_t rows = a.shape()[0], n = a.shape()[1], vectors = columns ? n : rows, length = columns ? rows : n;
  double worst = 0;
  for (std::int64_t i = 0; i < vectors; ++i)
    for (std::int64_t j = 0; j < vectors; ++j) {
      double sum = i == j ? -1 : 0;
      for (std::int64_t k = 0; k < length; ++k) sum += columns ? a[k * n + i] * a[k * n + j] : a[i * n + k] * a[j * n + k];
      worst = std::max(worst, std::fabs(sum));
    }
  return worst;
}

double bound_of(DType dtype) { return 200 * (dtype == DType::f64 ? 0x1p-52 : 0x1p-23); }  // as for LAPACK in tests/test_kernels_linalg.cpp

}  // namespace

TEST_CASE("qr") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto& [M, N] : kSizes) {
      const std::int64_t K = std::min(M, N);
      Array x(dtype, {M, N});
      x.random(1);
      const DeviceArray given(x), q_there(Array(dtype, {M, K})), r_there(Array(dtype, {K, N}));
      kernels::cuda::table().qr(gpu(), q_there, r_there, given);
      const Array q = q_there.fetch(), r = r_there.fetch();
      const std::vector<double> back = product(q, r), before = x.values();
      for (std::size_t i = 0; i < back.size(); ++i) REQUIRE(std::fabs(back[i] - before[i]) <= bound_of(dtype));
      CHECK(given.fetch().bytes() == x.bytes());
      CHECK(orthonormality(q, true) < bound_of(dtype));
      for (std::int64_t i = 0; i < K; ++i)
        for (std::int64_t j = 0; j < i; ++j) CHECK(r[i * N + j] == 0);
      CHECK(q.gaps_untouched());
      CHECK(r.gaps_untouched());
    }
}

TEST_CASE("svd") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto& [M, N] : kSizes) {
      const std::int64_t K = std::min(M, N);
      Array x(dtype, {M, N}), s_host(dtype, {K});
      x.random(2);
      const DeviceArray given(x), u_there(Array(dtype, {M, K})), s_there(s_host), vt_there(Array(dtype, {K, N}));
      kernels::cuda::table().svd(gpu(), u_there, s_there, vt_there, given);
      const Array u = u_there.fetch(), s = s_there.fetch(), vt = vt_there.fetch();
      const std::vector<double> back = product(u, vt, &s), before = x.values();
      const double scale = K > 0 ? std::max(1.0, s[0]) : 1.0;
      for (std::size_t i = 0; i < back.size(); ++i) REQUIRE(std::fabs(back[i] - before[i]) <= bound_of(dtype) * scale);
      CHECK(orthonormality(u, true) < bound_of(dtype));
      CHECK(orthonormality(vt, false) < bound_of(dtype));
      for (std::int64_t k = 0; k < K; ++k) CHECK((s[k] >= 0 && (k == 0 || s[k] <= s[k - 1])));
      CHECK(given.fetch().bytes() == x.bytes());
      CHECK(u.gaps_untouched());
      CHECK(vt.gaps_untouched());
    }
}

TEST_CASE("NaN and other types are errors") {
  Array x(DType::f32, {3, 4});
  x.random(3);
  x.set(5, std::numeric_limits<double>::quiet_NaN());
  const DeviceArray given(x), q(Array(DType::f32, {3, 3})), r(Array(DType::f32, {3, 4})), s(Array(DType::f32, {3}));
  CHECK_THROWS_WITH_AS(kernels::cuda::table().qr(gpu(), q, r, given), "qr: expected finite numbers, found NaN or infinity in a matrix of 3 x 4: check the weights that it is made of", Error);
  CHECK_THROWS_WITH_AS(kernels::cuda::table().svd(gpu(), q, s, r, given), "svd: expected finite numbers, found NaN or infinity in a matrix of 3 x 4: check the weights that it is made of", Error);
  const DeviceArray half(Array(DType::bf16, {3, 4}));
  CHECK_THROWS_AS(kernels::cuda::table().qr(gpu(), q, r, half), DTypeError);
}
