// Normalisation and softmax of rows: float64 against definitions and finite differences, vector code against float64, same bits for any threads.
#include <doctest/doctest.h>

#include "kernels/cpu/cpu.h"
#include "tests/dense_array.h"

using namespace cambium;
using namespace cambium::kernels;
using cambium::test::difference;
using Array = cambium::test::DenseArray;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kEpsilon = 1e-5;

struct Norm {
  bool layer;
  Array x, gamma, beta, g;
  bool affine = true;
  Norm(bool is_layer, DType dtype, std::int64_t rows, std::int64_t n) : layer(is_layer) {
    x = Array::random(dtype, {rows, n}, 1, 2.0);
    gamma = Array::random(dtype, {n}, 2);
    beta = Array::random(dtype, {n}, 3);
    g = Array::random(dtype, {rows, n}, 4);
  }
  Norm to(DType dtype) const {
    Norm p = *this;
    for (Array* a : {&p.x, &p.gamma, &p.beta, &p.g}) *a = a->to(dtype);
    return p;
  }
  struct Result { Array y, mean, rstd, dx, dgamma, dbeta; };
  Result run() {
    Context c;
    const DType dtype = x.dtype(), statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
    const std::int64_t rows = x.shape()[0], n = x.shape()[1];
    Result r{x, Array(statistics, {rows}), Array(statistics, {rows}), x, Array(dtype, {n}), Array(dtype, {n})};
    const Strided vgamma = affine ? gamma.view() : Strided{}, vbeta = affine ? beta.view() : Strided{};
    if (layer) {
      cpu::layer_norm_forward(c, r.y.view(), r.mean.view(), r.rstd.view(), x.view(), vgamma, vbeta, kEpsilon);
      cpu::layer_norm_backward(c, r.dx.view(), r.dgamma.view(), r.dbeta.view(), g.view(), x.view(), r.mean.view(), r.rstd.view(), vgamma);
    } else {
      cpu::rms_norm_forward(c, r.y.view(), r.rstd.view(), x.view(), vgamma, kEpsilon);
      cpu::rms_norm_backward(c, r.dx.view(), r.dgamma.view(), g.view(), x.view(), r.rstd.view(), vgamma);
    }
    return r;
  }
};

double dot(const Array& a, const Array& b) {
  const std::vector<double> x = a.values(), y = b.values();
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

template <class Loss>
void check_gradient(Array& x, const Array& dx, Loss&& loss) {
  const std::vector<double> values = x.values(), found = dx.values();
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::vector<double> moved = values;
    moved[i] = values[i] + 1e-5;
    x.set(moved);
    const double up = loss();
    moved[i] = values[i] - 1e-5;
    x.set(moved);
    const double down = loss();
    x.set(values);
    CHECK(found[i] == doctest::Approx((up - down) / 2e-5).epsilon(1e-6).scale(1));
  }
}

}  // namespace

TEST_CASE("norms in float64: values by definition, gradients by finite differences") {
  for (const bool layer : {true, false}) {
    CAPTURE(layer);
    Norm p(layer, DType::f64, 3, 5);
    const Norm::Result r = p.run();
    const std::vector<double> x = p.x.values(), y = r.y.values(), gamma = p.gamma.values(), beta = p.beta.values();
    for (std::size_t row = 0; row < 3; ++row) {
      double mean = 0, variance = 0;
      for (std::size_t i = 0; i < 5; ++i) mean += layer ? x[row * 5 + i] / 5 : 0;
      for (std::size_t i = 0; i < 5; ++i) variance += (x[row * 5 + i] - mean) * (x[row * 5 + i] - mean) / 5;
      for (std::size_t i = 0; i < 5; ++i)
        CHECK(y[row * 5 + i] == doctest::Approx((x[row * 5 + i] - mean) / std::sqrt(variance + kEpsilon) * gamma[i] + (layer ? beta[i] : 0)).epsilon(1e-12));
    }
    const auto loss = [&] { return dot(p.run().y, p.g); };
    check_gradient(p.x, r.dx, loss);
    check_gradient(p.gamma, r.dgamma, loss);
    if (layer) check_gradient(p.beta, r.dbeta, loss);
  }
}

TEST_CASE("vector norms agree with float64") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const bool layer : {true, false})
        for (const bool affine : {true, false})
          for (const std::int64_t n : {1, 3, 16, 33, 63, 64, 65, 100, 768, 2049})
            for (const std::int64_t rows : {1, 2, 33, 100}) {
              if (n * rows > 80000) continue;
              CAPTURE(dtype); CAPTURE(layer); CAPTURE(affine); CAPTURE(n); CAPTURE(rows);
              Norm p(layer, dtype, rows, n), exact = p.to(DType::f64);
              p.affine = exact.affine = affine;
              const Norm::Result r = p.run(), e = exact.run();
              // One row of a single entry has rstd 1/sqrt(epsilon) = 316 in a layer norm: errors of x - mean are that much larger.
              const double u = test::rounding(dtype), grow = n == 1 ? 400 : 1;
              CHECK(difference(r.y, e.y) < 2e-6 * grow + 2 * u);
              CHECK(difference(r.rstd, e.rstd) < 1e-6);
              CHECK(difference(r.dx, e.dx) < 4e-6 * grow + 2 * u);
              // Sums of `rows` terms of size 1: rounding of each sum, then of the result.
              CHECK(difference(r.dgamma, e.dgamma) < 5e-6 * grow + 2 * u);
              if (layer) CHECK(difference(r.dbeta, e.dbeta) < 5e-6 + 2 * u);
            }
  });
}

TEST_CASE("norms with large means and without parameters' gradients; same bits for any number of threads") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    Norm p(true, DType::f32, 100, 257);
    std::vector<double> shifted = p.x.values();
    for (double& x : shifted) x += 1000;
    p.x.set(shifted);
    Norm exact = p.to(DType::f64);
    CHECK(difference(p.run().y, exact.run().y) < 2e-3);  // inputs near 1000 are rounded to 3e-5; the mean takes part in every entry
    for (const bool layer : {true, false}) {
      Norm q(layer, DType::f32, 100, 257);
      kernels::set_threads(1);
      const Norm::Result one = q.run();
      Array dx = q.x;
      Context c;
      if (layer) cpu::layer_norm_backward(c, dx.view(), {}, {}, q.g.view(), q.x.view(), Array(one.mean).view(), Array(one.rstd).view(), q.gamma.view());
      else cpu::rms_norm_backward(c, dx.view(), {}, q.g.view(), q.x.view(), Array(one.rstd).view(), q.gamma.view());
      CHECK(dx.bytes() == one.dx.bytes());
      test::for_each_thread_count([&](int) {
        const Norm::Result r = q.run();
        CHECK(r.y.bytes() == one.y.bytes());
        CHECK(r.dx.bytes() == one.dx.bytes());
        CHECK(r.dgamma.bytes() == one.dgamma.bytes());
        CHECK(r.dbeta.bytes() == one.dbeta.bytes());
      });
    }
  });
}

TEST_CASE("softmax: float64 by definition and finite differences, vector code against it") {
  for (const bool logarithm : {false, true}) {
    Context c;
    Array x = Array::random(DType::f64, {3, 5}, 1, 2.0), g = Array::random(DType::f64, {3, 5}, 2), y = x, dx = x;
    cpu::softmax_forward(c, y.view(), x.view(), logarithm);
    double total = 0;
    for (std::size_t i = 0; i < 5; ++i) total += std::exp(x.values()[i]);
    for (std::size_t i = 0; i < 5; ++i)
      CHECK(y.values()[i] == doctest::Approx(logarithm ? x.values()[i] - std::log(total) : std::exp(x.values()[i]) / total).epsilon(1e-13));
    cpu::softmax_backward(c, dx.view(), g.view(), y.view(), logarithm);
    check_gradient(x, dx, [&] { Array out = x; cpu::softmax_forward(c, out.view(), x.view(), logarithm); return dot(out, g); });
  }
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const bool logarithm : {false, true})
        for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 64, 1000, 4095, 4097, 9000}) {
          CAPTURE(dtype); CAPTURE(logarithm); CAPTURE(n);
          Context c;
          Array x = Array::random(dtype, {3, n}, 5, 4.0), g = Array::random(dtype, {3, n}, 6), y = x, dx = x;
          Array ex = x.to(DType::f64), eg = g.to(DType::f64), ey = ex, edx = ex;
          cpu::softmax_forward(c, y.view(), x.view(), logarithm);
          cpu::softmax_forward(c, ey.view(), ex.view(), logarithm);
          CHECK(difference(y, ey) < 2e-6 + test::rounding(dtype) * 2);
          Array ry = y.to(DType::f64);
          cpu::softmax_backward(c, dx.view(), g.view(), y.view(), logarithm);
          cpu::softmax_backward(c, edx.view(), eg.view(), ry.view(), logarithm);
          // The log-softmax gradient multiplies an entry with the sum of g, about sqrt(n).
          CHECK(difference(dx, edx) < (4e-6 + 4e-7 * std::sqrt(static_cast<double>(n))) + test::rounding(dtype) * 2);
        }
  });
}

TEST_CASE("softmax of infinities: a masked row is NaN, masked entries are zero, large numbers stay finite") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
      for (const std::int64_t n : {5, 40, 5000}) {
        Context c;
        const auto un = static_cast<std::size_t>(n);
        std::vector<double> values(4 * un, -kInf);
        values[un + 1] = 3;                                                   // one allowed entry
        for (std::size_t i = 0; i < un; ++i) values[2 * un + i] = 1000.0 + static_cast<double>(i % 3);
        for (std::size_t i = 0; i < un; ++i) values[3 * un + i] = i == 2 ? std::nan("") : 0.0;
        Array x(dtype, {4, n}, values), y = x, l = x;
        cpu::softmax_forward(c, y.view(), x.view(), false);
        cpu::softmax_forward(c, l.view(), x.view(), true);
        const std::vector<double> v = y.values(), w = l.values();
        double sum = 0;
        for (std::size_t i = 0; i < un; ++i) {
          CHECK(std::isnan(v[i]));
          CHECK(std::isnan(w[i]));
          CHECK(v[un + i] == (i == 1 ? 1.0 : 0.0));
          CHECK(w[un + i] == (i == 1 ? 0.0 : -kInf));
          sum += v[2 * un + i];
          CHECK(std::isnan(v[3 * un + i]));
        }
        CHECK(sum == doctest::Approx(1).epsilon(dtype == DType::bf16 ? 1e-2 : 1e-5));
      }
  });
}
