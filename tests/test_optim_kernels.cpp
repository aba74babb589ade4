// Optimizer steps, dropout, rotary embedding, gated and pointwise functions: vector code against float64 and scalar code.
#include <doctest/doctest.h>

#include "kernels/cpu/cpu.h"
#include "kernels/philox.h"
#include "kernels/pointwise.h"
#include "tests/dense_array.h"

using namespace cambium;
using namespace cambium::kernels;
using cambium::test::difference;
using Array = cambium::test::DenseArray;

namespace {

// torch.optim.AdamW and SGD, one entry at a time in double.
struct Reference {
  double p, m = 0, v = 0;
  void adamw(double g, const AdamWOptions& o) {
    const double t = static_cast<double>(o.step);
    p *= 1 - o.learning_rate * o.weight_decay;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    p -= o.learning_rate / (1 - std::pow(o.beta1, t)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(o.beta2, t)) + o.epsilon);
  }
  void sgd(double g, const SgdOptions& o) {
    g += o.weight_decay * p;
    if (o.momentum != 0) {
      m = o.first_step ? g : o.momentum * m + (1 - o.dampening) * g;
      g = o.nesterov ? g + o.momentum * m : m;
    }
    p -= o.learning_rate * g;
  }
};

struct Type { DType parameter, gradient; };
constexpr Type kTypes[] = {{DType::f64, DType::f64}, {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}, {DType::f16, DType::f16}};

}  // namespace

TEST_CASE("AdamW and SGD follow torch's formulas over several steps and tensors") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const Type type : kTypes)
      for (const int variant : {0, 1, 2, 3}) {
        CAPTURE(type.parameter); CAPTURE(variant);
        const DType state = type.parameter == DType::f64 ? DType::f64 : DType::f32;
        std::vector<Array> p, g, m, v;
        std::vector<std::vector<Reference>> references;
        for (const std::int64_t n : {1, 5, 40, 20000}) {
          p.push_back(Array::random(type.parameter, {n}, 1));
          g.push_back(Array(type.gradient, {n}));
          m.push_back(Array(state, {n}));
          v.push_back(Array(state, {n}));
          references.emplace_back();
          for (const double x : p.back().values()) references.back().push_back({x});
        }
        Context c;
        for (int step = 1; step <= 4; ++step) {
          std::vector<OptimizerTensor> tensors;
          const AdamWOptions adamw{.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1, .step = step};
          const SgdOptions sgd{.learning_rate = 0.05, .momentum = variant == 1 ? 0.0 : 0.9, .dampening = variant == 2 ? 0.1 : 0.0, .weight_decay = 0.01,
                               .nesterov = variant == 3, .first_step = step == 1};
          for (std::size_t k = 0; k < p.size(); ++k) {
            g[k] = Array::random(type.gradient, g[k].shape(), static_cast<unsigned>(100 * step) + static_cast<unsigned>(k));
            const std::vector<double> gradient = g[k].values();
            for (std::size_t i = 0; i < gradient.size(); ++i) {
              if (variant == 0) references[k][i].adamw(gradient[i], adamw);
              else references[k][i].sgd(gradient[i], sgd);
            }
            tensors.push_back({p[k].view(), g[k].view(), variant == 1 ? Strided{} : m[k].view(), variant == 0 ? v[k].view() : Strided{}});
          }
          if (variant == 0) cpu::adamw(c, tensors.data(), static_cast<int>(tensors.size()), adamw);
          else cpu::sgd(c, tensors.data(), static_cast<int>(tensors.size()), sgd);
        }
        for (std::size_t k = 0; k < p.size(); ++k) {
          std::vector<double> expected;
          for (const Reference& r : references[k]) expected.push_back(r.p);
          // The parameter is rounded once per step.
          CHECK(difference(p[k].values(), expected) < 8 * test::rounding(type.parameter) + (state == DType::f32 ? 2e-6 : 0));
        }
      }
  });
}

TEST_CASE("dropout keeps what the counter says, on every instruction set, and scales it") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (const std::int64_t n : {1, 3, 4, 63, 64, 65, 1000, 40001})
        for (const double p : {0.0, 0.1, 0.5, 1.0}) {
          CAPTURE(dtype); CAPTURE(n); CAPTURE(p);
          const std::uint64_t seed = 0x123456789abcdefULL, offset = 0xfedcba9876543210ULL;
          Array x = Array::random(dtype, {n}, 3), out = x;
          Context c;
          cpu::dropout(c, out.view(), x.view(), p, seed, offset);
          const std::vector<double> from = x.values(), to = out.values();
          std::int64_t wrong = 0;
          for (std::int64_t i = 0; i < n; ++i) {
            const std::uint32_t word = philox(seed, offset, static_cast<std::uint64_t>(i / 4)).word[i % 4];
            const bool kept = uniform_of(word) >= static_cast<float>(p);
            const double expected = kept ? from[static_cast<std::size_t>(i)] / (1 - p) : 0.0, found = to[static_cast<std::size_t>(i)];
            wrong += !(std::fabs(found - expected) <= 2 * test::rounding(dtype) * std::fabs(expected) + 1e-7 * std::fabs(expected) + 1e-7);
          }
          CHECK(wrong == 0);
        }
  });
}

TEST_CASE("rotary embedding rotates by position times frequency, also far out, and back") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
      for (const bool interleaved : {false, true})
        for (const std::int64_t pairs : {1, 3, 4, 8, 32, 37}) {
          CAPTURE(dtype); CAPTURE(interleaved); CAPTURE(pairs);
          const std::int64_t B = 2, T = 5, H = 3, D = 2 * pairs + 2;
          Array x = Array::random(dtype, {B, T, H, D}, 1), out = x, back = x;
          Array positions(DType::i64, {1, T}, {0, 1, 77, 131071, 3000000});
          std::vector<double> f(static_cast<std::size_t>(pairs));
          for (std::size_t j = 0; j < f.size(); ++j) f[j] = std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(pairs));
          Array frequencies(DType::f32, {pairs}, f);
          Strided at = positions.view();
          at.shape[0] = B;
          at.strides[0] = 0;
          Context c;
          cpu::rotary(c, out.view(), x.view(), at, frequencies.view(), 1.5, interleaved, false);
          const std::vector<double> from = x.values(), found = out.values(), exact = frequencies.values(), pos = positions.values();
          std::vector<double> expected = from;
          for (std::int64_t b = 0; b < B; ++b)
            for (std::int64_t t = 0; t < T; ++t)
              for (std::int64_t h = 0; h < H; ++h)
                for (std::int64_t j = 0; j < pairs; ++j) {
                  const auto base = static_cast<std::size_t>(((b * T + t) * H + h) * D);
                  const std::size_t first = base + static_cast<std::size_t>(interleaved ? 2 * j : j), second = base + static_cast<std::size_t>(interleaved ? 2 * j + 1 : j + pairs);
                  const double angle = pos[static_cast<std::size_t>(t)] * exact[static_cast<std::size_t>(j)];
                  expected[first] = 1.5 * (from[first] * std::cos(angle) - from[second] * std::sin(angle));
                  expected[second] = 1.5 * (from[second] * std::cos(angle) + from[first] * std::sin(angle));
                }
          CHECK(difference(found, expected) < 5e-7 + 2 * test::rounding(dtype));
          cpu::rotary(c, back.view(), out.view(), at, frequencies.view(), 1 / 1.5, interleaved, true);
          CHECK(difference(back, x) < 1e-6 + 6 * test::rounding(dtype));
          Array in_place = x;
          cpu::rotary(c, in_place.view(), in_place.view(), at, frequencies.view(), 1.5, interleaved, false);
          CHECK(in_place.bytes() == out.bytes());
        }
  });
}

TEST_CASE("gated activations agree with float64") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const UnaryFunction f : {UnaryFunction::silu, UnaryFunction::gelu_tanh, UnaryFunction::gelu_erf, UnaryFunction::relu})
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
        for (const std::int64_t n : {1, 15, 16, 33, 20001}) {
          CAPTURE(static_cast<int>(f)); CAPTURE(dtype); CAPTURE(n);
          Array gate = Array::random(dtype, {n}, 1, 3.0), up = Array::random(dtype, {n}, 2), g = Array::random(dtype, {n}, 3), out = up, dgate = up, dup = up;
          Array eg = gate.to(DType::f64), eu = up.to(DType::f64), ee = g.to(DType::f64), eout = eu, edgate = eu, edup = eu, only = up;
          Context c;
          cpu::gated(c, f, out.view(), gate.view(), up.view());
          cpu::gated(c, f, eout.view(), eg.view(), eu.view());
          CHECK(difference(out, eout) < 2e-6 + test::rounding(dtype) * 2);
          cpu::gated_backward(c, f, dgate.view(), dup.view(), g.view(), gate.view(), up.view());
          cpu::gated_backward(c, f, edgate.view(), edup.view(), ee.view(), eg.view(), eu.view());
          CHECK(difference(dgate, edgate) < 3e-6 + test::rounding(dtype) * 2);
          CHECK(difference(dup, edup) < 2e-6 + test::rounding(dtype) * 2);
          cpu::gated_backward(c, f, only.view(), {}, g.view(), gate.view(), up.view());
          CHECK(only.bytes() == dgate.bytes());
        }
  });
}

TEST_CASE("pointwise functions and derivatives in float agree with double") {
  constexpr UnaryFunction kFunctions[] = {
#define CAMBIUM_ROW(name, needs, value, derivative) UnaryFunction::name,
      CAMBIUM_UNARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  };
  test::for_each_isa([&](const std::string& isa) {
    CAPTURE(isa);
    for (const UnaryFunction f : kFunctions)
      for (const std::int64_t n : {1, 17, 1003}) {
        if (f == UnaryFunction::round) continue;  // of a float and of the same double: equal, but so are all its neighbours' jumps
        CAPTURE(static_cast<int>(f)); CAPTURE(n);
        std::vector<double> values = Array::random(DType::f32, {n}, 7, 2.0).values();
        const bool positive = f == UnaryFunction::log || f == UnaryFunction::sqrt || f == UnaryFunction::rsqrt || f == UnaryFunction::log1p || f == UnaryFunction::pow_scalar ||
                              f == UnaryFunction::reciprocal || f == UnaryFunction::rdiv_scalar;
        for (double& v : values) v = positive ? std::fabs(v) + 0.1 : v;
        Array x(DType::f32, {n}, values), y = x, g = Array::random(DType::f32, {n}, 8), dx = x;
        Array ex = x.to(DType::f64), ey = ex, eg = g.to(DType::f64), edx = ex;
        Context c;
        cpu::unary(c, f, y.view(), x.view(), 0.5, 1.5);
        cpu::unary(c, f, ey.view(), ex.view(), 0.5, 1.5);
        CHECK(difference(y, ey) < 1e-6);
        const bool output = needs_of(f) == Needs::output;
        Array rounded = (output ? y : x).to(DType::f64);
        cpu::unary_backward(c, f, dx.view(), g.view(), output ? y.view() : x.view(), 0.5, 1.5);
        cpu::unary_backward(c, f, edx.view(), eg.view(), rounded.view(), 0.5, 1.5);
        CHECK(difference(dx, edx) < 3e-6);
      }
    for (const BinaryFunction f : {BinaryFunction::add, BinaryFunction::sub, BinaryFunction::mul, BinaryFunction::div, BinaryFunction::maximum, BinaryFunction::minimum}) {
      CAPTURE(static_cast<int>(f));
      const std::int64_t rows = 3, n = 37;
      Array a = Array::random(DType::f32, {rows, n}, 1), b = Array::random(DType::f32, {n}, 2), out = a;
      Array ea = a.to(DType::f64), eb = b.to(DType::f64), eout = ea;
      const auto broadcast = [&](Array& row) {
        Strided s = row.view();
        s.rank = 2;
        s.shape[0] = rows, s.shape[1] = n, s.strides[0] = 0, s.strides[1] = 1;
        return s;
      };
      Context c;
      cpu::binary(c, f, out.view(), a.view(), broadcast(b));
      cpu::binary(c, f, eout.view(), ea.view(), broadcast(eb));
      CHECK(difference(out, eout) < 1e-6);
      Array nan(DType::f32, {20}, std::vector<double>(20, std::nan(""))), one(DType::f32, {20}, std::vector<double>(20, 1.0)), result = one;
      cpu::binary(c, f, result.view(), nan.view(), one.view());
      for (const double v : result.values()) CHECK(std::isnan(v));
      cpu::binary(c, f, result.view(), one.view(), nan.view());
      for (const double v : result.values()) CHECK(std::isnan(v));
    }
  });
}
