// Cross entropy on CUDA against the CPU's in float64, and in the same type.
#include "tests/cuda/device_calls.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

struct Loss {
  std::int64_t rows, n;
  bool weights = false;
  double smoothing = 0, offset = 0;
  bool in_place = false, lse = true;
};

// Lengths below and above one pack, the length from which on a block takes a row (2048), odd ones, whose rows begin anywhere, and two spans of the backward.
const Loss kCases[] = {
    {1, 1}, {9, 3, true, 0.1}, {17, 33, false, 0.2}, {4, 130, true}, {3, 2048, true, 0.3}, {3, 2049, false, 0.1, 0, true}, {3, 2051, true, 0.1, 1000, true},
    {2, 16385, true, 0.1}, {2, 20000, false, 0, -500, true, false}, {0, 5},
};

constexpr std::int64_t kIgnored = -100;

Array targets_of(const Loss& c) {
  return Array(DType::i64, {c.rows}).generate([&](std::int64_t r) { return static_cast<double>(r % 4 == 2 ? kIgnored : r == 0 ? c.n - 1 : (r * 7919) % c.n); });
}
Array logits_of(const Loss& c, DType dtype) {
  Array x = Array(dtype, {c.rows, c.n}).random(1, c.offset - 5, c.offset + 5);
  if (c.rows > 1 && c.n > 2) x.set(c.n + 1, -INFINITY);  // a forbidden class
  if (c.smoothing > 0 && c.rows > 1 && c.n > 2) x.set(c.n + 1, c.offset - 20);  // whose loss would be infinite
  return x;
}

}  // namespace

TEST_CASE("cross entropy") {
  for (const DType dtype : kFloats) {
    for (const Loss& c : kCases) {
      CAPTURE(dtype);
      CAPTURE(c.rows);
      CAPTURE(c.n);
      CAPTURE(c.smoothing);
      const DType sums = sum_type(dtype);
      const Arrays ins{logits_of(c, dtype), targets_of(c), Array(dtype, {c.n}).random(2, 0.25, 2)};
      const auto forward = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
        k.cross_entropy_forward(context, out[0], c.lse ? out[1] : Strided{}, in[0], in[1], c.weights ? in[2] : Strided{}, kIgnored, c.smoothing);
      };
      const Arrays expected = on_cpu({Array(DType::f64, {c.rows}), Array(DType::f64, {c.rows})}, in_float64(ins), forward);
      const Arrays found = on_device({Array(sums, {c.rows}), Array(sums, {c.rows})}, ins, forward);
      // A row's sum goes through chains of at most 20 packs of 8 and a tree of 9 levels, each term's expf errs by 2 spacings and its argument by 5; the logarithm
      // and what is added to it are about as large as the logits, of which weights of up to 2 are taken.
      const double size = 30 + std::fabs(c.offset);
      require_near(found[0], expected[0], 48, size);
      if (c.lse) require_near(found[1], expected[1], 48, size);

      const Arrays lse = on_cpu({Array(DType::f64, {c.rows}), Array(DType::f64, {c.rows})}, in_float64(ins), [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
        k.cross_entropy_forward(context, out[0], out[1], in[0], in[1], {}, kIgnored, 0);
      });
      const Arrays backward_ins{Array(sums, {c.rows}).random(3), ins[0], converted(lse[1], sums), ins[1], ins[2]};
      const auto backward = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
        const Strided weights = c.weights ? in[4] : Strided{};
        if (c.in_place) k.copy(context, out[0], in[1]);
        k.cross_entropy_backward(context, out[0], in[0], c.in_place ? out[0] : in[1], in[2], in[3], weights, kIgnored, c.smoothing);
      };
      const Array gradient = on_cpu({Array(DType::f64, {c.rows, c.n})}, in_float64(backward_ins), backward)[0];
      const Array found_gradient = on_device({Array(dtype, {c.rows, c.n})}, backward_ins, backward)[0];
      // Both calls are given the same lse, from which logits near it differ exactly. g and weights are up to 2, and what is subtracted from p where the
      // target is not is about 1 / n: an error that ignores the smoothing of a long row must not hide in the bound.
      require_near(found_gradient, gradient, 48, 16.0 / static_cast<double>(c.n));
    }
  }
}

TEST_CASE("cross entropy: the gradient's operands begin at different places") {
  const std::int64_t rows = 2, n = 37;
  const auto from = [&](Strided s, std::int64_t start) {
    s.data = s.as<float>() + start;
    s.rank = 2;
    s.shape[0] = rows;
    s.shape[1] = s.strides[0] = n;
    s.strides[1] = 1;
    return s;
  };
  const Arrays ins{Array(DType::f32, {rows}).random(1), Array(DType::f32, {rows * n + 2}).random(2), Array(DType::f32, {rows}).random(3, 4, 5),
                   Array(DType::i64, {rows}).generate([](std::int64_t r) { return static_cast<double>(r * 36); })};
  const Arrays outs{Array(DType::f32, {rows * n + 2}).random(4)};
  const auto call = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
    k.cross_entropy_backward(context, from(out[0], 1), in[0], from(in[1], 2), in[2], in[3], {}, kIgnored, 0.1);
  };
  require_near(on_device(outs, ins, call)[0], on_cpu(outs, ins, call)[0], 48, 4);
}

TEST_CASE("cross entropy: a target outside of the classes gives NaN, not a number from elsewhere") {
  const Arrays ins{Array(DType::f32, {2, 5}).random(1), Array(DType::i64, {2}).generate([](std::int64_t r) { return r == 0 ? 5.0 : 1.0; })};
  const auto call = [&](const Kernels& k, Context& context, const Views& out, const Views& in) { k.cross_entropy_forward(context, out[0], {}, in[0], in[1], {}, kIgnored, 0); };
  const Array loss = on_device({Array(DType::f32, {2})}, ins, call)[0];
  CHECK(std::isnan(loss[0]));
  CHECK(std::isfinite(loss[1]));

  const Arrays backward_ins{Array(DType::f32, {2}).random(2, 1, 2), ins[0], Array(DType::f32, {2}).random(3, 1, 2), ins[1], Array(DType::f32, {5}).random(4, 1, 2)};
  const auto backward = [&](const Kernels& k, Context& context, const Views& out, const Views& in) {
    k.cross_entropy_backward(context, out[0], in[0], in[1], in[2], in[3], in[4], kIgnored, 0);
  };
  const Array gradient = on_device({Array(DType::f32, {2, 5})}, backward_ins, backward)[0];
  for (std::int64_t i = 0; i < 5; ++i) {
    CHECK(std::isnan(gradient[i]));
    CHECK(std::isfinite(gradient[5 + i]));
  }
}
