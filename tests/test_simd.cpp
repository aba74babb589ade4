// Vector conversions and functions of every instruction set against the scalar types and against double precision.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/isa/elementwise.h"
#include "kernels/dtype.h"

using namespace cambium;
using namespace cambium::kernels::cpu;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
using FloatFunction = void (*)(float*, const float*, std::int64_t);

/// Distance of y from the exact value in units of the last place of the float nearest to it, subnormal floats included.
double ulps(float y, double exact) {
  const float nearest = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(y) ? 0 : 1e30;
  if (std::isinf(nearest)) return y == nearest || std::fabs(y) > 3.4e38F ? 0 : 1e30;
  if (!std::isfinite(y)) return 1e30;
  const double spacing = std::ldexp(1.0, std::max(std::ilogb(std::max(std::fabs(exact), 1e-300)), -126) - 23);
  return std::fabs(static_cast<double>(y) - exact) / spacing;
}

/// Floats spread evenly over all bit patterns, and specials.
std::vector<float> samples() {
  std::vector<float> x = {0.0F, -0.0F, kInf, -kInf, std::nanf(""), 1.0F, -1.0F, 1e-45F, -1e-45F, 1.1754944e-38F, 3.4028235e38F, -3.4028235e38F,
                          0.625F, 0.9277F, 88.72283F, 88.72284F, -87.33655F, -103.97208F, -103.98F};
  for (std::uint32_t u = 0; u < 0xffff0000U; u += 9973) x.push_back(std::bit_cast<float>(u));
  for (int i = -120000; i <= 120000; ++i) x.push_back(static_cast<float>(i) * 0.000917F);
  return x;
}

double worst(FloatFunction f, double (*exact)(double), double absolute = 0) {
  static const std::vector<float> x = samples();
  std::vector<float> y(x.size());
  f(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = exact(static_cast<double>(x[i]));
    if (absolute > 0 && std::fabs(static_cast<double>(y[i]) - e) <= absolute * std::fabs(static_cast<double>(x[i]))) continue;
    const double u = ulps(y[i], e);
    if (u > 1e6) MESSAGE("x = ", x[i], " y = ", y[i], " exact = ", e);
    most = std::max(most, u);
  }
  return most;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double gelu_erf(double x) { return x == -HUGE_VAL ? std::nan("") : 0.5 * x * std::erfc(-x * 0.70710678118654752); }
double gelu_tanh(double x) {
  const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  return x * sigmoid(2 * u);
}

template <class F>
void for_each_isa(F f) {
  for (const Isa set : supported_isas()) {
    const UseIsa use(set);
    INFO("instruction set ", std::string(isa_name(set)));
    f(*isa().elementwise);
  }
}

}  // namespace

TEST_CASE("functions agree with double precision within their stated bounds") {
  for_each_isa([](const ElementwiseTable& t) {
    const double e = worst(t.exp, std::exp), l = worst(t.log, std::log), h = worst(t.tanh, std::tanh), r = worst(t.erf, std::erf);
    const double s = worst(t.sigmoid, sigmoid), si = worst(t.silu, silu, 2e-45);  // a subnormal sigmoid has few bits
    const double ge = worst(t.gelu_erf, gelu_erf, 2e-7), gt = worst(t.gelu_tanh, gelu_tanh, 2e-7);
    MESSAGE(std::string(isa_name(active_isa())), " max ulp: exp ", e, " log ", l, " tanh ", h, " erf ", r, " sigmoid ", s, " silu ", si, " gelu_erf ", ge, " gelu_tanh ", gt);
    CHECK(e < 2.0);
    CHECK(l < 2.0);
    CHECK(h < 2.5);
    CHECK(r < 2.5);
    CHECK(s < 3.0);
    CHECK(si < 4.0);
    CHECK(ge < 4.0);
    CHECK(gt < 6.0);
  });
}

TEST_CASE("exp in double") {
  std::vector<double> x = {0.0, -0.0, HUGE_VAL, -HUGE_VAL, std::nan(""), 709.78, 709.79, -708.4, -745.1, -745.2, 1e-300, 1e300, -1e300};
  for (int i = -75000; i <= 71000; ++i) x.push_back(i * 0.01003);
  for_each_isa([&](const ElementwiseTable& t) {
    std::vector<double> y(x.size());
    t.exp_double(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double e = std::exp(x[i]);
      INFO("exp(", x[i], ") = ", y[i], ", expected ", e);
      if (std::isnan(e)) CHECK(std::isnan(y[i]));
      else if (std::isinf(e)) CHECK(y[i] == e);
      else REQUIRE(std::fabs(y[i] - e) <= 5e-16 * e + 1e-323);
    }
  });
}

TEST_CASE("16-bit floats convert as the scalar types do") {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  const std::vector<float> x = samples();
  for_each_isa([&](const ElementwiseTable& t) {
    std::vector<float> wide(all.size());
    std::vector<std::uint16_t> back(all.size()), narrow(x.size());
    const auto compare = [&](auto tag, auto to_float, auto from_float) {
      using T = decltype(tag);
      to_float(wide.data(), all.data(), 65536);
      from_float(back.data(), wide.data(), 65536);
      from_float(narrow.data(), x.data(), static_cast<std::int64_t>(x.size()));
      int wrong = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        T h;
        h.bits = all[i];
        const float f = static_cast<float>(h);
        if (std::isnan(f)) { wrong += !std::isnan(wide[i]); continue; }
        wrong += std::bit_cast<std::uint32_t>(f) != std::bit_cast<std::uint32_t>(wide[i]) || back[i] != all[i];
      }
      CHECK(wrong == 0);
      for (std::size_t i = 0; i < x.size(); ++i) {
        T h;
        h.bits = narrow[i];
        if (std::isnan(x[i])) wrong += !std::isnan(static_cast<float>(h));
        else wrong += T(x[i]).bits != narrow[i];
      }
      CHECK(wrong == 0);
    };
    compare(bfloat16{}, t.bf16_to_float, t.float_to_bf16);
    compare(float16{}, t.f16_to_float, t.float_to_f16);
  });
}

TEST_CASE("tails touch nothing beyond their end") {
  for_each_isa([](const ElementwiseTable& t) {
    for (int n = 0; n <= 50; ++n) {
      std::vector<float> x(static_cast<std::size_t>(n), 0.5F), y(static_cast<std::size_t>(n) + 3, -7.0F);  // exact size: sanitizers see an overrun
      std::vector<std::uint16_t> h(static_cast<std::size_t>(n) + 3, 77);
      t.exp(y.data(), x.data(), n);
      t.float_to_bf16(h.data(), x.data(), n);
      for (int i = 0; i < n + 3; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (i < n) CHECK(y[at] == doctest::Approx(1.6487213F)); else CHECK(y[at] == -7.0F);
        CHECK(h[at] == (i < n ? bfloat16(0.5F).bits : 77));
      }
      std::vector<std::uint16_t> exact(static_cast<std::size_t>(n), bfloat16(2.0F).bits);
      t.bf16_to_float(y.data(), exact.data(), n);
      for (int i = 0; i < n; ++i) CHECK(y[static_cast<std::size_t>(i)] == 2.0F);
    }
  });
}

TEST_CASE("sets are chosen by name") {
  CHECK(supported_isas().front() == Isa::portable);
  for (const Isa set : supported_isas()) CHECK(parse_isa(isa_name(set)) == set);
  for (const Isa set : {Isa::portable, Isa::avx2, Isa::avx512})
    if (!isa_supported(set)) CHECK_THROWS_AS(parse_isa(isa_name(set)), DeviceError);
  CHECK_THROWS_WITH_AS(parse_isa("avx512bf16"), doctest::Contains("portable, avx2 or avx512, found avx512bf16"), ConfigError);
  const Isa before = active_isa();
  {
    const UseIsa use(Isa::portable);
    CHECK(active_isa() == Isa::portable);
    CHECK(isa().float_lanes == 4);
  }
  CHECK(active_isa() == before);
}
