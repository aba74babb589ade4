// Attention on CUDA, with multiply-adds and on tensor cores, against the CPU's in float64.
#include "kernels/cuda/attention_route.h"
#include "tests/cuda/device_calls.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;
using cuda::AttentionRoute;

namespace {

enum class Bias { none, full, per_key, per_head, transposed };

struct Case {
  const char* name;
  std::int64_t B = 1, Tq = 1, Tk = 1, H = 1, G = 1, D = 8;
  bool causal = false;
  std::int64_t window = 0;
  Bias bias = Bias::none;
  bool key_mask = false;
  std::vector<double> starts{};
  bool by_head = false;  // q, k, v, out and gradients lie as (B, H, T, D)
  int odd = 0;           // elements between rows, so that neither packs nor pairs are aligned
};

// Tiles are 64 rows and keys, 32 in float64, 32 and 16 in some of the kernels on tensor cores; heads of up to 64, 128, 256 entries take different kernels.
std::vector<Case> cases() {
  return {
      {.name = "one key"},
      {.name = "plain", .B = 2, .Tq = 5, .Tk = 7, .H = 2, .G = 2, .D = 8},
      {.name = "odd head size, two tiles", .Tq = 70, .Tk = 70, .H = 2, .G = 1, .D = 10, .causal = true},
      {.name = "head size 64, by head", .B = 2, .Tq = 66, .Tk = 66, .H = 2, .G = 2, .D = 64, .causal = true, .by_head = true},
      {.name = "groups of 3", .Tq = 47, .Tk = 47, .H = 6, .G = 2, .D = 16, .causal = true},
      {.name = "head size 80 with window", .Tq = 130, .Tk = 130, .H = 2, .G = 1, .D = 80, .causal = true, .window = 37},
      {.name = "head size 128", .Tq = 20, .Tk = 70, .H = 1, .G = 1, .D = 128},
      {.name = "head size 200", .Tq = 33, .Tk = 40, .H = 2, .G = 1, .D = 200, .causal = true},
      {.name = "head size 256, all tiles whole", .Tq = 64, .Tk = 64, .H = 1, .G = 1, .D = 256},
      {.name = "head size 300", .Tq = 5, .Tk = 9, .H = 1, .G = 1, .D = 300},
      {.name = "window of 1", .Tq = 70, .Tk = 70, .D = 16, .causal = true, .window = 1},
      {.name = "window without causality", .Tq = 40, .Tk = 90, .D = 16, .window = 20},
      {.name = "cache", .B = 2, .Tq = 3, .Tk = 200, .H = 4, .G = 2, .D = 32, .causal = true},
      {.name = "decoding step in parts", .B = 2, .Tq = 1, .Tk = 600, .H = 6, .G = 2, .D = 24, .causal = true},
      {.name = "decoding step in parts with window", .Tq = 1, .Tk = 700, .H = 2, .G = 2, .D = 16, .causal = true, .window = 100},
      {.name = "decoding step in parts, key mask, parts that see nothing", .B = 2, .Tq = 2, .Tk = 520, .H = 2, .G = 1, .D = 9, .causal = true, .key_mask = true},
      {.name = "more queries than keys: some see nothing", .Tq = 90, .Tk = 20, .D = 8, .causal = true},
      {.name = "full bias", .B = 2, .Tq = 67, .Tk = 35, .H = 2, .G = 2, .D = 16, .bias = Bias::full},
      {.name = "alibi in groups", .B = 2, .Tq = 35, .Tk = 35, .H = 4, .G = 2, .D = 16, .causal = true, .bias = Bias::per_key},
      {.name = "relative bias and key mask", .B = 2, .Tq = 37, .Tk = 41, .H = 2, .G = 2, .D = 16, .bias = Bias::per_head, .key_mask = true},
      {.name = "relative bias, transposed", .Tq = 37, .Tk = 41, .H = 2, .G = 1, .D = 16, .bias = Bias::transposed},
      {.name = "packed", .Tq = 100, .Tk = 100, .H = 2, .G = 1, .D = 16, .causal = true, .starts = {0, 3, 3, 70, 100}},
      {.name = "packed, both ways, with window and positions outside", .Tq = 80, .Tk = 80, .H = 2, .G = 2, .D = 8, .window = 9, .starts = {2, 40, 75}},
      {.name = "rows at odd addresses", .B = 2, .Tq = 20, .Tk = 33, .H = 2, .G = 1, .D = 16, .causal = true, .odd = 3},
      {.name = "no keys", .Tq = 3, .Tk = 0, .D = 16},
      {.name = "no queries", .Tq = 0, .Tk = 3, .D = 16},
  };
}

// (B, T, heads, D) in whatever order of memory the case asks for.
Shape memory_of(const Case& c, std::int64_t T, std::int64_t heads) {
  return c.by_head ? Shape{c.B, heads, T, c.D + c.odd} : Shape{c.B, T, heads, c.D + c.odd};
}
Strided seen_as(const Case& c, Strided s) {
  if (c.by_head) {
    std::swap(s.shape[1], s.shape[2]);
    std::swap(s.strides[1], s.strides[2]);
  }
  s.shape[3] = c.D;
  return s;
}

struct Problem {
  Case c;
  Arrays ins;  // q, k, v, g, bias, mask, starts, and for the backward out and lse

  Problem(const Case& c_, DType dtype) : c(c_) {
    const auto normal = [&](const Shape& shape, unsigned seed) { return Array(dtype, shape).random(seed, -1.7, 1.7); };  // of variance 1
    for (const std::int64_t i : {0, 1, 2, 3}) {
      const bool of_queries = i == 0 || i == 3;
      ins.push_back(normal(memory_of(c, of_queries ? c.Tq : c.Tk, of_queries ? c.H : c.G), static_cast<unsigned>(10 + i)));
    }
    const Shape bias_shape = c.bias == Bias::transposed ? Shape{1, c.H, c.Tk, c.Tq} : Shape{c.bias == Bias::full ? c.B : 1, c.H, c.bias == Bias::per_key ? 1 : c.Tq, c.Tk};
    ins.push_back(c.bias == Bias::none ? Array(dtype, {1}) : normal(bias_shape, 20));
    ins.push_back(Array(DType::boolean, {c.B, c.Tk}).generate([&](std::int64_t i) { return i % c.Tk % 5 != 0 && (i / c.Tk == 0 || i % c.Tk < 4) ? 1.0 : 0.0; }));
    ins.push_back(Array(DType::i32, {static_cast<std::int64_t>(c.starts.size())}).generate([&](std::int64_t i) { return c.starts[static_cast<std::size_t>(i)]; }));
  }
  AttentionOptions options(const Views& in) const {
    AttentionOptions o;
    o.scale = 1.0 / std::sqrt(static_cast<double>(c.D));
    o.causal = c.causal;
    o.window = c.window;
    if (c.bias != Bias::none) {
      o.bias = in[4];
      if (c.bias == Bias::transposed) std::swap(o.bias.strides[2], o.bias.strides[3]);
      if (c.bias != Bias::full) o.bias.strides[0] = 0;
      if (c.bias == Bias::per_key) o.bias.strides[2] = 0;
      o.bias.shape[0] = c.B;
      o.bias.shape[2] = c.Tq;
      o.bias.shape[3] = c.Tk;
    }
    if (c.key_mask) o.key_mask = in[5];
    if (!c.starts.empty()) o.starts = in[6];
    return o;
  }
  Arrays forward_outs(DType dtype) const { return {Array(dtype, memory_of(c, c.Tq, c.H)), Array(sum_type(dtype), {c.B, c.H, c.Tq})}; }
  auto forward(bool wants_lse = true) const {
    return [this, wants_lse](const Kernels& k, Context& context, const Views& out, const Views& in) {
      k.attention_forward(context, seen_as(c, out[0]), wants_lse ? out[1] : Strided{}, seen_as(c, in[0]), seen_as(c, in[1]), seen_as(c, in[2]), options(in));
    };
  }
  Arrays backward_outs(DType dtype) const { return {Array(dtype, memory_of(c, c.Tq, c.H)), Array(dtype, memory_of(c, c.Tk, c.G)), Array(dtype, memory_of(c, c.Tk, c.G))}; }
  auto backward(int wanted = 7) const {
    return [this, wanted](const Kernels& k, Context& context, const Views& out, const Views& in) {
      const auto asked = [&](int i) { return wanted >> i & 1 ? seen_as(c, out[static_cast<std::size_t>(i)]) : Strided{}; };
      k.attention_backward(context, asked(0), asked(1), asked(2), seen_as(c, in[3]), seen_as(c, in[7]), in[8], seen_as(c, in[0]), seen_as(c, in[1]), seen_as(c, in[2]), options(in));
    };
  }
};

// Largest |a - b| of what a case's views show, gaps aside, over the largest |b| or 1.
double distance(const Array& found, const Array& expected, std::int64_t last, std::int64_t shown) {
  double most = 0, size = 1;
  for (std::int64_t i = 0; i < expected.count(); ++i) {
    if (i % last >= shown) continue;
    if (std::isinf(expected[i]) || std::isnan(found[i])) {
      if (found[i] != expected[i]) return INFINITY;
      continue;
    }
    most = std::max(most, std::fabs(found[i] - expected[i]));
    size = std::max(size, std::fabs(expected[i]));
  }
  return most / size;
}

// float32 and float64: a score is a chain of D products, exp of it errs by that (|score| is about 1 to 4), a result adds up to 700 terms whose weights sum to 1 in
// float. Measured against the largest result this stays below 40 spacings; in the gradients two such products follow each other.
// bfloat16 and float16: probabilities and dS are rounded before their product on tensor cores, half a spacing each; outputs once more. A result of n rounded terms
// of weights summing to w errs by at most w spacings / 2 of the largest value: 1 forward, and backward w is the number of queries that look at a key, but
// roundings there are independent, so that the sum's grows with its square root as the result's size does: 4 spacings cover both.
double bound(DType dtype, bool gradient) {
  if (dtype == DType::f64 || dtype == DType::f32) return (gradient ? 160 : 40) * epsilon(dtype);
  return (gradient ? 4 : 1.5) * epsilon(dtype);
}

void run_case(const Case& c, DType dtype) {
  CAPTURE(c.name);
  CAPTURE(dtype);
  Problem p(c, dtype);
  const std::int64_t last = c.D + c.odd;
  const Arrays in64 = in_float64(p.ins), expected = on_cpu(p.forward_outs(DType::f64), in64, p.forward());
  const Arrays found = on_device(p.forward_outs(dtype), p.ins, p.forward());
  CHECK(distance(found[0], expected[0], last, c.D) <= bound(dtype, false));
  CHECK(distance(found[1], expected[1], 1, 1) <= 40 * sum_epsilon(dtype));

  // Both backwards start from the same numbers, rounded as the device's forward would.
  p.ins.push_back(converted(expected[0], dtype));
  p.ins.push_back(converted(expected[1], sum_type(dtype)));
  const Arrays gradients = on_cpu(p.backward_outs(DType::f64), in_float64(p.ins), p.backward());
  const Arrays found_gradients = on_device(p.backward_outs(dtype), p.ins, p.backward());
  for (std::size_t i = 0; i < 3; ++i) {
    CAPTURE(i);
    CHECK(distance(found_gradients[i], gradients[i], last, c.D) <= bound(dtype, true));
  }
}

struct Route {
  explicit Route(AttentionRoute route) { cuda::use_attention_route(route); }
  ~Route() { cuda::use_attention_route(AttentionRoute::automatic); }
  Route(const Route&) = delete;
  Route& operator=(const Route&) = delete;
};

}  // namespace

TEST_CASE("attention in float32") {
  for (const Case& c : cases()) run_case(c, DType::f32);
}

TEST_CASE("attention in float64") {
  for (const Case& c : cases()) run_case(c, DType::f64);
}

TEST_CASE("attention of 16-bit floats on tensor cores") {
  const Route route(AttentionRoute::tensor_cores);
  for (const Case& c : cases())
    for (const DType dtype : {DType::bf16, DType::f16}) run_case(c, dtype);
}

TEST_CASE("attention of 16-bit floats with multiply-adds") {
  const Route route(AttentionRoute::multiply_add);
  for (const Case& c : cases())
    if (c.Tk < 100) run_case(c, c.D % 16 == 0 ? DType::bf16 : DType::f16);
}

TEST_CASE("attention computes what is asked for and nothing else") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t D : {16, 72, 136}) {
      Problem p({.name = "", .Tq = 6, .Tk = 9, .H = 2, .G = 1, .D = D, .causal = true}, dtype);
      const Arrays all = on_device(p.forward_outs(dtype), p.ins, p.forward()), without = on_device(p.forward_outs(dtype), p.ins, p.forward(false));
      CHECK(without[0].bytes() == all[0].bytes());
      CHECK(without[1].bytes() == p.forward_outs(dtype)[1].bytes());
      p.ins.push_back(all[0]);
      p.ins.push_back(all[1]);
      const Arrays gradients = on_device(p.backward_outs(dtype), p.ins, p.backward());
      for (int wanted = 0; wanted < 7; ++wanted) {
        const Arrays some = on_device(p.backward_outs(dtype), p.ins, p.backward(wanted));
        for (std::size_t i = 0; i < 3; ++i) CHECK(some[i].bytes() == (wanted >> i & 1 ? gradients : p.backward_outs(dtype))[i].bytes());
      }
    }
  }
}
