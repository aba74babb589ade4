// Attention: the plain code against its definition and finite differences, the tiled code against the plain one.
#include <doctest/doctest.h>

#include <functional>

#include "kernels/cpu/attention_plain.h"
#include "kernels/cpu/cpu.h"
#include "tests/dense_array.h"

using namespace cambium;
using namespace cambium::kernels;
using cambium::test::difference;
using Array = cambium::test::DenseArray;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Case {
  std::string name;
  std::int64_t B = 1, Tq = 1, Tk = 1, H = 1, G = 1, D = 8;
  bool causal = false;
  std::int64_t window = 0;
  int bias = 0;                        // 0 none, 1 full, 2 per head and key, 3 per head, query and key, 4 the same with queries next to each other
  bool key_mask = false;
  std::vector<std::int64_t> starts{};
};

struct Problem {
  Case c;
  Array q, k, v, g, bias, mask, starts;
  AttentionOptions options;
  double scale = 0.3;

  Problem(const Case& c_, DType dtype, unsigned seed) : c(c_) {
    q = Array::random(dtype, {c.B, c.Tq, c.H, c.D}, seed);
    k = Array::random(dtype, {c.B, c.Tk, c.G, c.D}, seed + 1);
    v = Array::random(dtype, {c.B, c.Tk, c.G, c.D}, seed + 2);
    g = Array::random(dtype, {c.B, c.Tq, c.H, c.D}, seed + 3);
    if (c.bias == 4) bias = Array::random(dtype, {1, c.H, c.Tk, c.Tq}, seed + 4);
    else if (c.bias) bias = Array::random(dtype, {c.bias == 1 ? c.B : 1, c.H, c.bias == 2 ? 1 : c.Tq, c.Tk}, seed + 4);
    if (c.key_mask) {
      std::vector<double> allowed(static_cast<std::size_t>(c.B * c.Tk), 1.0);
      for (std::int64_t b = 0; b < c.B; ++b)
        for (std::int64_t j = 0; j < c.Tk; ++j) allowed[static_cast<std::size_t>(b * c.Tk + j)] = (j * 7 + b) % 5 != 0 && j < c.Tk - b * 9;
      mask = Array(DType::boolean, {c.B, c.Tk}, allowed);
    }
    if (!c.starts.empty()) starts = Array(DType::i32, {static_cast<std::int64_t>(c.starts.size())}, std::vector<double>(c.starts.begin(), c.starts.end()));
  }
  // The same numbers in another type.
  Problem to(DType dtype) const {
    Problem p = *this;
    for (Array* a : {&p.q, &p.k, &p.v, &p.g}) *a = a->to(dtype);
    if (c.bias) p.bias = p.bias.to(dtype);
    return p;
  }
  AttentionOptions attention_options() {
    AttentionOptions o;
    o.scale = scale;
    o.causal = c.causal;
    o.window = c.window;
    if (c.bias) {
      o.bias = bias.view();
      if (c.bias != 1) o.bias.strides[0] = 0;
      if (c.bias == 2) o.bias.strides[2] = 0;
      o.bias.shape[0] = c.B;
      o.bias.shape[2] = c.Tq;
      if (c.bias == 4) {
        std::swap(o.bias.strides[2], o.bias.strides[3]);
        o.bias.shape[3] = c.Tk;
      }
    }
    if (c.key_mask) o.key_mask = mask.view();
    if (!c.starts.empty()) o.starts = starts.view();
    return o;
  }
};

struct Result { Array out, lse, dq, dk, dv; };

Result run(Problem& p) {
  const DType dtype = p.q.dtype(), statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
  const Case& c = p.c;
  Result r{Array(dtype, p.q.shape()), Array(statistics, {c.B, c.H, c.Tq}), Array(dtype, p.q.shape()), Array(dtype, p.k.shape()), Array(dtype, p.v.shape())};
  Context context;
  cpu::attention_forward(context, r.out.view(), r.lse.view(), p.q.view(), p.k.view(), p.v.view(), p.attention_options());
  cpu::attention_backward(context, r.dq.view(), r.dk.view(), r.dv.view(), p.g.view(), r.out.view(), r.lse.view(), p.q.view(), p.k.view(), p.v.view(), p.attention_options());
  return r;
}

// The definition, written once more and without any structure.
std::vector<double> defined_output(Problem& p) {
  const Case& c = p.c;
  const std::vector<double> q = p.q.values(), k = p.k.values(), v = p.v.values(), bias = p.bias.values(), mask = p.mask.values();
  std::vector<double> out(q.size(), 0.0);
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const auto sequence_of = [&](std::int64_t i) {
    std::int64_t s = 0;
    while (s + 1 < static_cast<std::int64_t>(c.starts.size()) && i >= c.starts[at(s + 1)]) ++s;
    return s;
  };
  for (std::int64_t b = 0; b < c.B; ++b)
    for (std::int64_t h = 0; h < c.H; ++h)
      for (std::int64_t i = 0; i < c.Tq; ++i) {
        const std::int64_t kh = h / (c.H / c.G), position = i + c.Tk - c.Tq;
        std::vector<double> weight(at(c.Tk));
        double total = 0;
        for (std::int64_t j = 0; j < c.Tk; ++j) {
          double s = 0;
          for (std::int64_t d = 0; d < c.D; ++d) s += q[at(((b * c.Tq + i) * c.H + h) * c.D + d)] * k[at(((b * c.Tk + j) * c.G + kh) * c.D + d)];
          s *= p.scale;
          if (c.bias == 1) s += bias[at(((b * c.H + h) * c.Tq + i) * c.Tk + j)];
          if (c.bias == 2) s += bias[at(h * c.Tk + j)];
          if (c.bias == 4) s += bias[at((h * c.Tk + j) * c.Tq + i)];
          if (c.bias == 3) s += bias[at((h * c.Tq + i) * c.Tk + j)];
          const bool allowed = !(c.causal && j > position) && !(c.window > 0 && j <= position - c.window) && !(c.key_mask && mask[at(b * c.Tk + j)] == 0) &&
                               !(!c.starts.empty() && sequence_of(i) != sequence_of(j));
          weight[at(j)] = allowed ? std::exp(s) : 0;
          total += weight[at(j)];
        }
        for (std::int64_t j = 0; total > 0 && j < c.Tk; ++j)
          for (std::int64_t d = 0; d < c.D; ++d)
            out[at(((b * c.Tq + i) * c.H + h) * c.D + d)] += weight[at(j)] / total * v[at(((b * c.Tk + j) * c.G + kh) * c.D + d)];
      }
  return out;
}

std::vector<Case> cases() {
  return {
      {.name = "one key"},
      {.name = "plain", .B = 2, .Tq = 5, .Tk = 7, .H = 2, .G = 2, .D = 8},
      {.name = "odd head size", .B = 1, .Tq = 70, .Tk = 70, .H = 2, .G = 1, .D = 10, .causal = true},
      {.name = "head size 12, groups of 4", .B = 2, .Tq = 33, .Tk = 33, .H = 4, .G = 1, .D = 12, .causal = true},
      {.name = "head size 64", .B = 2, .Tq = 130, .Tk = 130, .H = 2, .G = 2, .D = 64, .causal = true},
      {.name = "groups of 3", .B = 1, .Tq = 140, .Tk = 140, .H = 6, .G = 2, .D = 64, .causal = true},
      {.name = "head size 96", .B = 1, .Tq = 65, .Tk = 65, .H = 1, .G = 1, .D = 96},
      {.name = "head size 80 with window", .B = 1, .Tq = 200, .Tk = 200, .H = 2, .G = 1, .D = 80, .causal = true, .window = 37},
      {.name = "window of 1", .B = 1, .Tq = 70, .Tk = 70, .H = 1, .G = 1, .D = 16, .causal = true, .window = 1},
      {.name = "window without causality", .B = 1, .Tq = 70, .Tk = 70, .H = 1, .G = 1, .D = 16, .window = 20},
      {.name = "cache", .B = 2, .Tq = 3, .Tk = 200, .H = 4, .G = 2, .D = 32, .causal = true},
      {.name = "decoding step in parts", .B = 2, .Tq = 1, .Tk = 1300, .H = 6, .G = 2, .D = 64, .causal = true},
      {.name = "decoding step with window", .B = 1, .Tq = 1, .Tk = 1100, .H = 2, .G = 2, .D = 16, .causal = true, .window = 100},
      {.name = "decoding step with key mask", .B = 2, .Tq = 2, .Tk = 700, .H = 2, .G = 1, .D = 24, .causal = true, .key_mask = true},
      {.name = "decoding step of odd size with bias", .B = 1, .Tq = 2, .Tk = 131, .H = 4, .G = 2, .D = 70, .causal = true, .bias = 1},
      {.name = "decoding step of many keys and a wide head", .B = 1, .Tq = 1, .Tk = 530, .H = 1, .G = 1, .D = 130, .causal = true, .bias = 2},
      {.name = "more queries than keys", .B = 1, .Tq = 90, .Tk = 20, .H = 1, .G = 1, .D = 8, .causal = true},
      {.name = "full bias", .B = 2, .Tq = 67, .Tk = 70, .H = 2, .G = 2, .D = 16, .bias = 1},
      {.name = "alibi", .B = 2, .Tq = 67, .Tk = 67, .H = 4, .G = 4, .D = 16, .causal = true, .bias = 2},
      {.name = "alibi in groups", .B = 1, .Tq = 35, .Tk = 35, .H = 4, .G = 2, .D = 16, .causal = true, .bias = 2},
      {.name = "relative bias, transposed", .B = 2, .Tq = 77, .Tk = 71, .H = 2, .G = 2, .D = 16, .bias = 4},
      {.name = "relative bias, transposed, causal in groups", .B = 1, .Tq = 40, .Tk = 71, .H = 4, .G = 2, .D = 16, .causal = true, .bias = 4},
      {.name = "relative bias", .B = 2, .Tq = 40, .Tk = 71, .H = 2, .G = 2, .D = 16, .bias = 3},
      {.name = "key mask", .B = 3, .Tq = 66, .Tk = 90, .H = 2, .G = 1, .D = 16, .key_mask = true},
      {.name = "key mask and causal", .B = 2, .Tq = 66, .Tk = 66, .H = 2, .G = 1, .D = 16, .causal = true, .key_mask = true},
      {.name = "long keys cut for the backward", .B = 1, .Tq = 80, .Tk = 600, .H = 2, .G = 1, .D = 16, .causal = true},
      {.name = "packed", .B = 1, .Tq = 150, .Tk = 150, .H = 2, .G = 1, .D = 16, .causal = true, .starts = {0, 3, 3, 80, 149, 150}},
      {.name = "packed with window", .B = 1, .Tq = 150, .Tk = 150, .H = 4, .G = 2, .D = 32, .causal = true, .window = 9, .starts = {0, 70, 150}},
      {.name = "packed, both directions, bias", .B = 1, .Tq = 90, .Tk = 90, .H = 2, .G = 2, .D = 8, .bias = 1, .starts = {0, 31, 90}},
  };
}

}  // namespace

TEST_CASE("attention in float64 is what its definition says") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Problem p(c, DType::f64, 1);
    CHECK(difference(run(p).out.values(), defined_output(p)) < 1e-13);
  }
}

TEST_CASE("gradients of attention in float64 agree with finite differences") {
  for (const Case& c : {Case{.name = "groups, causal, window", .B = 1, .Tq = 4, .Tk = 5, .H = 4, .G = 2, .D = 3, .causal = true, .window = 3},
                        Case{.name = "bias and key mask", .B = 2, .Tq = 3, .Tk = 4, .H = 2, .G = 2, .D = 3, .bias = 1, .key_mask = true},
                        Case{.name = "packed", .B = 1, .Tq = 5, .Tk = 5, .H = 2, .G = 1, .D = 3, .causal = true, .starts = {0, 2, 5}}}) {
    CAPTURE(c.name);
    Problem p(c, DType::f64, 5);
    Result r = run(p);
    const auto loss = [&] {
      const std::vector<double> out = run(p).out.values(), g = p.g.values();
      double sum = 0;
      for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * g[i];
      return sum;
    };
    const auto check_gradient = [&](Array& x, const Array& dx) {
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
    };
    check_gradient(p.q, r.dq);
    check_gradient(p.k, r.dk);
    check_gradient(p.v, r.dv);
  }
}

TEST_CASE("tiled attention agrees with float64") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      CAPTURE(dtype);
      for (const Case& c : cases()) {
        CAPTURE(c.name);
        Problem p(c, dtype, 11), exact = p.to(DType::f64);
        Result r = run(p), e = run(exact);
        // Scores reach 12 here and carry errors of a few 12 * 2^-24, which the exponential passes on; the result is rounded once to the storage type, and the backward sees a rounded output.
        const double forward = 4e-6 + 2 * test::rounding(dtype), backward = 2e-5 + 8 * test::rounding(dtype);
        CHECK(difference(r.out, e.out) < forward);
        CHECK(difference(r.lse, e.lse) < 3e-6);
        CHECK(difference(r.dq, e.dq) < backward);
        CHECK(difference(r.dk, e.dk) < backward);
        CHECK(difference(r.dv, e.dv) < backward);
      }
    }
  });
}

TEST_CASE("attention gives the same bits for any number of threads") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Problem p(c, DType::f32, 3);
    kernels::set_threads(1);
    const Result one = run(p);
    test::for_each_thread_count([&](int threads) {
      CAPTURE(threads);
      const Result r = run(p);
      CHECK(r.out.bytes() == one.out.bytes());
      CHECK(r.lse.bytes() == one.lse.bytes());
      CHECK(r.dq.bytes() == one.dq.bytes());
      CHECK(r.dk.bytes() == one.dk.bytes());
      CHECK(r.dv.bytes() == one.dv.bytes());
    });
  }
}

TEST_CASE("a query that may attend to nothing gets zeros, no gradient and lse -inf") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::f64}) {
      Problem p({.name = "", .B = 1, .Tq = 70, .Tk = 65, .H = 2, .G = 1, .D = 8, .causal = true}, dtype, 9);  // the first 5 queries see no key
      const Result r = run(p);
      for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t i = 0; i < 6; ++i) CHECK((r.lse.values()[h * 70 + i] == -kInf) == (i < 5));
      for (std::size_t i = 0; i < 5 * 2 * 8; ++i) {
        CHECK(r.out.values()[i] == 0.0);
        CHECK(r.dq.values()[i] == 0.0);
      }
      for (const double d : r.dk.values()) CHECK(std::isfinite(d));
      Problem masked({.name = "", .B = 1, .Tq = 1, .Tk = 1030, .H = 2, .G = 1, .D = 8, .key_mask = true}, dtype, 9);
      masked.mask.set(std::vector<double>(1030, 0.0));
      const Result none = run(masked);
      for (const double o : none.out.values()) CHECK(o == 0.0);
      for (const double l : none.lse.values()) CHECK(l == -kInf);
      for (const double d : none.dv.values()) CHECK(d == 0.0);
    }
  });
}

TEST_CASE("attention reads fused projections and broadcast prefixes where they lie, and leaves out absent gradients") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    for (const std::int64_t D : {10, 16, 64}) {
      const std::int64_t B = 2, T = 70, H = 2;
      Array fused = Array::random(DType::f32, {B, T, 3, H, D}, 21);
      const std::vector<double> all = fused.values();
      Array parts[3];
      Strided views[3];
      for (std::int64_t s = 0; s < 3; ++s) {
        std::vector<double> values;
        for (std::int64_t row = 0; row < B * T; ++row)
          for (std::int64_t i = 0; i < H * D; ++i) values.push_back(all[static_cast<std::size_t>((row * 3 + s) * H * D + i)]);
        parts[s] = Array(DType::f32, {B, T, H, D}, values);
        views[s] = parts[s].view();
        views[s].data = fused.view().as<float>() + s * H * D;
        views[s].strides[1] *= 3;
        views[s].strides[0] *= 3;
      }
      views[1].strides[0] = views[2].strides[0] = 0;  // keys and values shared by the batch
      for (int s = 1; s < 3; ++s) {
        std::vector<double> values = parts[s].values();
        std::copy_n(values.begin(), T * H * D, values.begin() + T * H * D);
        parts[s].set(values);
      }
      Context context;
      AttentionOptions options{.scale = 0.25, .causal = true};
      Array out(DType::f32, {B, T, H, D}), lse(DType::f32, {B, H, T}), expected = out, expected_lse = lse, dq = out, dv = out, expected_dq = out, expected_dk = out, expected_dv = out;
      cpu::attention_forward(context, out.view(), lse.view(), views[0], views[1], views[2], options);
      cpu::attention_forward(context, expected.view(), {}, parts[0].view(), parts[1].view(), parts[2].view(), options);
      CHECK(out.bytes() == expected.bytes());
      Array g = Array::random(DType::f32, {B, T, H, D}, 22);
      cpu::attention_backward(context, dq.view(), {}, {}, g.view(), out.view(), lse.view(), views[0], views[1], views[2], options);
      cpu::attention_backward(context, {}, {}, dv.view(), g.view(), out.view(), lse.view(), views[0], views[1], views[2], options);
      cpu::attention_backward(context, expected_dq.view(), expected_dk.view(), expected_dv.view(), g.view(), out.view(), lse.view(), parts[0].view(), parts[1].view(), parts[2].view(), options);
      CHECK(dq.bytes() == expected_dq.bytes());
      CHECK(dv.bytes() == expected_dv.bytes());
    }
  });
}

TEST_CASE("large scores and additive masks of -inf and of the lowest float") {
  test::for_each_isa([](const std::string& isa) {
    CAPTURE(isa);
    const std::int64_t T = 70;
    Problem p({.name = "", .B = 1, .Tq = T, .Tk = T, .H = 1, .G = 1, .D = 8, .bias = 1}, DType::f32, 31);
    std::vector<double> bias(static_cast<std::size_t>(T * T));
    for (std::int64_t i = 0; i < T; ++i)
      for (std::int64_t j = 0; j < T; ++j) bias[static_cast<std::size_t>(i * T + j)] = j > i ? (i % 2 ? -kInf : -3.4028234663852886e38) : 0.0;
    p.bias.set(bias);
    p.scale = 40.0;  // scores of hundreds: e^score overflows
    Problem exact = p.to(DType::f64);
    const Result r = run(p), e = run(exact);
    CHECK(difference(r.out, e.out) < 2e-4);
    CHECK(difference(r.dv, e.dv) < 2e-3);
    for (const double d : r.dq.values()) CHECK(std::isfinite(d));
  });
}
