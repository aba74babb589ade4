// Layer and RMS norms and softmax on CUDA against the CPU's in float64, and in the same type.
#include "tests/cuda/device_calls.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

struct Norm {
  DType dtype;
  std::int64_t rows, n;
  bool gamma = true, beta = true;
};

// Around the lengths where a warp's registers, a block's registers and packs of 16 bytes end: see kKept in norm.cu.
std::vector<Norm> norms() {
  std::vector<Norm> all;
  for (const DType dtype : kFloats) {
    const std::int64_t pack = 16 / item_size(dtype), warp = 4 * 32 * pack, block = 4 * 256 * pack;
    all.push_back({dtype, 1, 1});
    all.push_back({dtype, 9, 7, true, false});
    all.push_back({dtype, 70, 5 * pack});
    all.push_back({dtype, 3, warp, false, false});
    all.push_back({dtype, 2, warp + pack});
    all.push_back({dtype, 3, 131, false, true});
    all.push_back({dtype, 2, block + 3 * pack});
    all.push_back({dtype, 1, 1027});
  }
  return all;
}

// Sums over a row go through four registers and trees of 8 levels; an element takes about ten more operations. rsqrt is 1 / sqrt, both rounded correctly.
constexpr double kRowRoundings = 24;

template <bool kCentred>
void forward_case(const Norm& c) {
  CAPTURE(c.dtype);
  CAPTURE(c.rows);
  CAPTURE(c.n);
  const Arrays ins{Array(c.dtype, {c.rows, c.n}).random(1, -1.5, 2.5), Array(c.dtype, {c.n}).random(2), Array(c.dtype, {c.n}).random(3)};
  const auto call = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
    const Strided gamma = c.gamma ? in[1] : Strided{}, beta = c.beta ? in[2] : Strided{};
    if (kCentred) k.layer_norm_forward(context, out[0], out[1], out[2], in[0], gamma, beta, 1e-5);
    else k.rms_norm_forward(context, out[0], out[2], in[0], gamma, 1e-5);
  };
  const auto outs = [&](DType dtype) { return Arrays{Array(dtype, {c.rows, c.n}), Array(sum_type(dtype), {c.rows}), Array(sum_type(dtype), {c.rows})}; };
  const Arrays expected = on_cpu(outs(DType::f64), in_float64(ins), call), found = on_device(outs(c.dtype), ins, call), same = on_cpu(outs(c.dtype), ins, call);
  // y is (x - mean) rstd gamma with x up to 2.5, rstd near 1 and gamma up to 2; of one column x - mean is 0 and rstd is 300.
  const double size = c.n == 1 ? 2000 : 8;
  for (std::size_t i = 0; i < 3; ++i) {
    if (!kCentred && i == 1) continue;
    require_near(found[i], expected[i], kRowRoundings, size);
    require_near(found[i], same[i], 2 * kRowRoundings + epsilon(found[i].view().dtype) / sum_epsilon(c.dtype), size);
  }
}

template <bool kCentred>
void backward_case(const Norm& c, bool wants_dx, bool wants_gamma, bool wants_beta) {
  CAPTURE(c.dtype);
  CAPTURE(c.rows);
  CAPTURE(c.n);
  const Array x = Array(c.dtype, {c.rows, c.n}).random(1, -1.5, 2.5), gamma = Array(c.dtype, {c.n}).random(2), g = Array(c.dtype, {c.rows, c.n}).random(4);
  const auto forward = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
    if (kCentred) k.layer_norm_forward(context, out[2], out[0], out[1], in[0], {}, {}, 1e-5);
    else k.rms_norm_forward(context, out[2], out[1], in[0], {}, 1e-5);
  };
  const Arrays statistics = on_cpu({Array(DType::f64, {c.rows}).random(5), Array(DType::f64, {c.rows}), Array(DType::f64, {c.rows, c.n})}, {converted(x, DType::f64)}, forward);
  const DType sums = sum_type(c.dtype);
  const Arrays ins{g, x, converted(statistics[0], sums), converted(statistics[1], sums), gamma};
  const auto call = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
    const Strided dx = wants_dx ? out[0] : Strided{}, dgamma = wants_gamma ? out[1] : Strided{}, dbeta = wants_beta ? out[2] : Strided{};
    const Strided scale = c.gamma ? in[4] : Strided{};
    if (kCentred) k.layer_norm_backward(context, dx, dgamma, dbeta, in[0], in[1], in[2], in[3], scale);
    else k.rms_norm_backward(context, dx, dgamma, in[0], in[1], in[3], scale);
  };
  const auto outs = [&](DType dtype) { return Arrays{Array(dtype, {c.rows, c.n}), Array(dtype, {c.n}), Array(dtype, {c.n})}; };
  const Arrays expected = on_cpu(outs(DType::f64), in_float64(ins), call), found = on_device(outs(c.dtype), ins, call);
  // |g| and |gamma| up to 2, |x - mean| rstd up to 3: dx up to rstd (4 + 1 + 3); a column's sum has `rows` terms of up to 6, added in chains of at most 12.
  const double rstd = c.n == 1 && kCentred ? 320 : c.n == 1 ? 4 : 2;
  if (wants_dx) require_near(found[0], expected[0], kRowRoundings, 12 * rstd);
  if (wants_gamma) require_near(found[1], expected[1], kRowRoundings, 6 * static_cast<double>(c.rows));
  if (wants_beta && kCentred) require_near(found[2], expected[2], kRowRoundings, 2 * static_cast<double>(c.rows));
  // What is not asked for is not touched.
  if (!wants_dx) CHECK(found[0].bytes() == outs(c.dtype)[0].bytes());
  if (!wants_gamma) CHECK(found[1].bytes() == outs(c.dtype)[1].bytes());
  if (!wants_beta || !kCentred) CHECK(found[2].bytes() == outs(c.dtype)[2].bytes());
}

Array with_infinities(Array x) {
  const std::int64_t n = x.view().shape[1];
  for (std::int64_t i = 0; i < x.count(); ++i)
    if (i / n == 2 && i % 3 != 1) x.set(i, -INFINITY);
  return x;
}

}  // namespace

TEST_CASE("layer norm") {
  for (const Norm& c : norms()) {
    forward_case<true>(c);
    backward_case<true>(c, true, true, true);
  }
}

TEST_CASE("RMS norm") {
  for (const Norm& c : norms()) {
    forward_case<false>(c);
    backward_case<false>(c, true, true, false);
  }
}

TEST_CASE("norms without some of their outputs, and without rows") {
  const Norm c{DType::f32, 40, 12};
  for (int wanted = 0; wanted < 7; ++wanted) backward_case<true>(c, wanted & 1, wanted & 2, wanted & 4);
  backward_case<false>(c, true, false, false);
  backward_case<false>(c, false, true, false);
  backward_case<true>({DType::bf16, 0, 12}, true, true, true);
  forward_case<true>({DType::f32, 0, 12});
}

TEST_CASE("softmax") {
  for (const DType dtype : kFloats) {
    const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{{1, 1}, {9, 5}, {17, 33}, {3, 300}, {3, 2048}, {3, 2049}, {3, 6000}, {0, 4}};
    for (const auto& shape : shapes) {
      const std::int64_t rows = shape.first, n = shape.second;
      for (const bool logarithm : {false, true}) {
        CAPTURE(dtype);
        CAPTURE(n);
        CAPTURE(logarithm);
        const Arrays ins{with_infinities(Array(dtype, {rows, n}).random(6, -6, 6))};
        const auto forward = [logarithm = logarithm](const Kernels& k, Context& context, const Views& out, const Views& in) { k.softmax_forward(context, out[0], in[0], logarithm); };
        const Array out(dtype, {rows, n});
        const Arrays expected = on_cpu({Array(DType::f64, {rows, n})}, in_float64(ins), forward), found = on_device({out}, ins, forward);
        // expf errs by 2 spacings, an argument of up to 12 by 6 more; sums in chains of at most 12 packs and 9 levels of a tree. The logarithm is up to 21.
        require_near(found[0], expected[0], 40, logarithm ? 21 : 1e-30);
        // Infinities of log-softmax would make the sums NaN, which proves nothing.
        const Arrays backward_ins{Array(dtype, {rows, n}).random(7), logarithm ? Array(dtype, {rows, n}).random(8, -9, -3) : found[0]};
        const auto backward = [logarithm = logarithm](const Kernels& k, Context& context, const Views& o, const Views& in) { k.softmax_backward(context, o[0], in[0], in[1], logarithm); };
        const Arrays gradient = on_cpu({Array(DType::f64, {rows, n})}, in_float64(backward_ins), backward), found_gradient = on_device({out}, backward_ins, backward);
        // With y in [0, 1] the sum is at most 2; sum(g) of the logarithm may reach 2 n, of which e^y takes a twentieth.
        require_near(found_gradient[0], gradient[0], 40, logarithm ? 0.1 * static_cast<double>(n) + 2 : 4);
      }
    }
  }
}

TEST_CASE("softmax of rows that hold nothing finite, or NaN, is NaN as on the CPU") {
  Array x = Array(DType::f32, {3, 40}).random(1);
  for (std::int64_t i = 0; i < 40; ++i) x.set(40 + i, -INFINITY);
  x.set(7, NAN);
  for (const bool logarithm : {false, true}) {
    const auto call = [logarithm = logarithm](const Kernels& k, Context& context, const Views& out, const Views& in) { k.softmax_forward(context, out[0], in[0], logarithm); };
    const Array found = on_device({Array(DType::f32, {3, 40})}, {x}, call)[0], expected = on_cpu({Array(DType::f32, {3, 40})}, {x}, call)[0];
    for (std::int64_t i = 0; i < 120; ++i) CHECK(std::isnan(found[i]) == std::isnan(expected[i]));
    CHECK(std::isnan(found[0]));
    CHECK(std::isnan(found[45]));
  }
}

TEST_CASE("rows at addresses that are not multiples of 16") {
  // Operands begin at different elements, so that packs cannot be used, or at the same odd one, so that they begin inside of a row.
  const std::int64_t rows = 3, n = 70;
  for (const std::int64_t out_start : {1, 3}) {
    const auto from = [&](Strided s, std::int64_t start) {
      s.data = s.as<float>() + start;
      s.rank = 2;
      s.shape[0] = rows;
      s.shape[1] = s.strides[0] = n;
      s.strides[1] = 1;
      return s;
    };
    const Arrays ins{Array(DType::f32, {rows * n + 3}).random(1), Array(DType::f32, {rows * n + 3}).random(2, 0, 1)};
    const Arrays outs(3, Array(DType::f32, {rows * n + 3}).random(3));
    const auto call = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
      k.softmax_forward(context, from(out[0], out_start), from(in[0], 1), false);
      k.softmax_backward(context, from(out[1], out_start), from(in[0], 1), from(in[1], 1), false);
      k.rms_norm_forward(context, from(out[2], out_start), {}, from(in[0], 1), {}, 1e-5);
    };
    const Arrays found = on_device(outs, ins, call), expected = on_cpu(outs, ins, call);
    for (std::size_t i = 0; i < 3; ++i) require_near(found[i], expected[i], 40, 4);
  }
}
