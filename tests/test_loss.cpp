// Cross entropy: float64 against its definition and finite differences, vector code against float64, special rows.
#include <doctest/doctest.h>

#include "kernels/cpu/cpu.h"
#include "tests/dense_array.h"

using namespace cambium;
using namespace cambium::kernels;
using cambium::test::difference;
using Array = cambium::test::DenseArray;

namespace {

constexpr std::int64_t kIgnore = -100;

struct Problem {
  Array logits, targets, weights, g;
  double smoothing = 0;
  bool weighted = false;
  Problem(DType dtype, std::int64_t rows, std::int64_t n) {
    const DType statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
    logits = Array::random(dtype, {rows, n}, 1, 3.0);
    std::vector<double> t(static_cast<std::size_t>(rows));
    for (std::int64_t r = 0; r < rows; ++r) t[static_cast<std::size_t>(r)] = static_cast<double>(r % 3 == 1 ? kIgnore : (r * 7919) % n);
    targets = Array(DType::i64, {rows}, t);
    std::vector<double> w(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.25 * static_cast<double>(i % 5);
    weights = Array(dtype, {n}, w);
    g = Array::random(statistics, {rows}, 2);
  }
  Problem to(DType dtype) const {
    Problem p = *this;
    p.logits = logits.to(dtype);
    p.weights = weights.to(dtype);
    p.g = g.to(dtype == DType::f64 ? DType::f64 : DType::f32);
    return p;
  }
  struct Result { Array loss, lse, dlogits; };
  Result run(bool in_place = false) {
    Context c;
    Result r{g, g, logits};
    cpu::cross_entropy_forward(c, r.loss.view(), r.lse.view(), logits.view(), targets.view(), weighted ? weights.view() : Strided{}, kIgnore, smoothing);
    Array other = logits;
    cpu::cross_entropy_backward(c, r.dlogits.view(), g.view(), in_place ? r.dlogits.view() : other.view(), r.lse.view(), targets.view(),
                                weighted ? weights.view() : Strided{}, kIgnore, smoothing);
    return r;
  }
};

}  // namespace

TEST_CASE("cross entropy in float64: by definition and finite differences") {
  for (const bool weighted : {false, true})
    for (const double smoothing : {0.0, 0.1}) {
      CAPTURE(weighted); CAPTURE(smoothing);
      Problem p(DType::f64, 4, 6);
      p.weighted = weighted;
      p.smoothing = smoothing;
      const Problem::Result r = p.run();
      const auto defined = [&] {
        const std::vector<double> x = p.logits.values(), t = p.targets.values(), w = p.weights.values();
        std::vector<double> loss(4, 0.0);
        for (std::size_t row = 0; row < 4; ++row) {
          if (t[row] == kIgnore) continue;
          double total = 0;
          for (std::size_t i = 0; i < 6; ++i) total += std::exp(x[row * 6 + i]);
          for (std::size_t i = 0; i < 6; ++i) {
            const double nll = std::log(total) - x[row * 6 + i], weight = weighted ? w[i] : 1.0;
            loss[row] += weight * nll * ((static_cast<double>(i) == t[row] ? 1 - smoothing : 0.0) + smoothing / 6);
          }
        }
        return loss;
      };
      CHECK(difference(r.loss.values(), defined()) < 1e-13);
      const std::vector<double> values = p.logits.values(), found = r.dlogits.values(), g = p.g.values();
      for (std::size_t i = 0; i < values.size(); ++i) {
        double ends[2];
        for (int k = 0; k < 2; ++k) {
          std::vector<double> moved = values;
          moved[i] += k ? -1e-5 : 1e-5;
          p.logits.set(moved);
          ends[k] = 0;
          const std::vector<double> loss = defined();
          for (std::size_t row = 0; row < 4; ++row) ends[k] += loss[row] * g[row];
        }
        p.logits.set(values);
        CHECK(found[i] == doctest::Approx((ends[0] - ends[1]) / 2e-5).epsilon(1e-6).scale(1));
      }
    }
}

TEST_CASE("vector cross entropy agrees with float64, in place too, with the same bits for any number of threads") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const bool weighted : {false, true})
        for (const double smoothing : {0.0, 0.1})
          for (const std::int64_t n : {1, 2, 17, 64, 1001, 4096, 10007}) {
            CAPTURE(dtype); CAPTURE(weighted); CAPTURE(smoothing); CAPTURE(n);
            Problem p(dtype, 7, n);
            p.weighted = weighted;
            p.smoothing = smoothing;
            Problem exact = p.to(DType::f64);
            const Problem::Result r = p.run(), e = exact.run();
            // With smoothing, 4096 / 4 terms of one sign are added in a chain of floats (portable).
            CHECK(difference(r.loss, e.loss) < 5e-6);
            CHECK(difference(r.lse, e.lse) < 1e-6);
            CHECK(difference(r.dlogits, e.dlogits) < 3e-6 + 2 * test::rounding(dtype));
            CHECK(p.run(true).dlogits.bytes() == r.dlogits.bytes());
          }
    Problem p(DType::f32, 40, 5001);
    kernels::set_threads(1);
    const Problem::Result one = p.run();
    test::for_each_thread_count([&](int) {
      const Problem::Result r = p.run();
      CHECK(r.loss.bytes() == one.loss.bytes());
      CHECK(r.dlogits.bytes() == one.dlogits.bytes());
    });
  });
}

TEST_CASE("cross entropy of forbidden and huge logits") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::f64}) {
      Problem p(dtype, 1, 5000);
      std::vector<double> x(5000, -std::numeric_limits<double>::infinity());
      x[0] = 2;        // the target
      x[4999] = 2;
      p.logits.set(x);
      const Problem::Result r = p.run();
      CHECK(r.loss.values()[0] == doctest::Approx(std::log(2.0)).epsilon(1e-6));
      const double g = p.g.values()[0];
      CHECK(r.dlogits.values()[0] == doctest::Approx(-0.5 * g).epsilon(1e-6));
      CHECK(r.dlogits.values()[4999] == doctest::Approx(0.5 * g).epsilon(1e-6));
      CHECK(r.dlogits.values()[17] == 0.0);
      x[0] = 80000;
      p.logits.set(x);
      CHECK(p.run().loss.values()[0] == 0.0);
    }
  });
}
