// lora_linear against the composed form: several terms, dropout, both layouts, 16-bit bases, what is kept.
#include <doctest/doctest.h>

#include "gradient_by_projection.h"

using namespace cambium;
using namespace cambium::test;

namespace {

// base(x) + sum of scaling (dropout(x) Aᵀ) Bᵀ from other ops. v: x, weight, bias, A1, B1, …
Function composed(std::vector<LoraTerm> terms, bool is_transposed) {
  return [terms, is_transposed](const std::vector<Tensor>& v) {
    Tensor out = is_transposed ? linear_transposed(v[0], v[1], v[2]) : linear(v[0], v[1], v[2]);
    for (std::size_t i = 0; i < terms.size(); ++i)
      out = out + linear(linear(dropout(v[0], terms[i].dropout_p, RandomKey{terms[i].seed, terms[i].offset}), v[3 + 2 * i]), v[4 + 2 * i]) * terms[i].scaling;
    return out;
  };
}

Function fused(std::vector<LoraTerm> terms, bool is_transposed) {
  return [terms, is_transposed](const std::vector<Tensor>& v) {
    std::vector<LoraTerm> filled = terms;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      filled[i].a = v[3 + 2 * i];
      filled[i].b = v[4 + 2 * i];
    }
    return lora_linear(v[0], v[1], v[2], filled, is_transposed);
  };
}

LoraTerm term(double scaling, double p = 0.0, std::uint64_t seed = 3, std::uint64_t offset = 5) { return {{}, {}, scaling, p, seed, offset}; }

}  // namespace

TEST_CASE("lora_linear equals its parts, every gradient included") {
  for (const bool is_transposed : {false, true})
    for (const Shape& shape : {Shape{4, 6}, Shape{2, 3, 6}}) {
      CAPTURE(is_transposed);
      const std::vector<Tensor> one{leaf(shape, 1), leaf(is_transposed ? Shape{6, 5} : Shape{5, 6}, 2), leaf({5}, 3), leaf({2, 6}, 4), leaf({5, 2}, 5)};
      std::vector<Tensor> two = one;
      two.push_back(leaf({3, 6}, 6));
      two.push_back(leaf({5, 3}, 7));
      check_same(fused({term(2.0)}, is_transposed), composed({term(2.0)}, is_transposed), one);
      check_same(fused({term(0.5, 0.3)}, is_transposed), composed({term(0.5, 0.3)}, is_transposed), one);
      check_same(fused({term(2.0), term(-0.7, 0.5, 8, 9)}, is_transposed), composed({term(2.0), term(-0.7, 0.5, 8, 9)}, is_transposed), two);
      check_gradients(fused({term(1.5)}, is_transposed), one);
    }
}

TEST_CASE("lora_linear without terms is linear") {
  const std::vector<Tensor> inputs{leaf({4, 6}, 1), leaf({5, 6}, 2), leaf({5}, 3)};
  check_same(fused({}, false), composed({}, false), inputs);
}

TEST_CASE("the mask of dropout is made again, not kept") {
  const std::vector<Tensor> inputs{leaf({400, 6}, 1), leaf({5, 6}, 2), leaf({5}, 3), leaf({2, 6}, 4), leaf({5, 2}, 5)};
  const Tensor a = fused({term(1.0, 0.5, 1, 1)}, false)(inputs), b = fused({term(1.0, 0.5, 1, 1)}, false)(inputs), c = fused({term(1.0, 0.5, 1, 2)}, false)(inputs);
  CHECK(largest_difference(a, b) == 0.0);
  CHECK(largest_difference(a, c) > 0.1);
}

TEST_CASE("beside a 16-bit base, float32 adapters are added in float32 and rounded once") {
  const Tensor x = to_dtype(constant({6, 32}, 1, DType::f32), DType::bf16), w = to_dtype(constant({16, 32}, 2, DType::f32), DType::bf16);
  const Tensor bias = to_dtype(constant({16}, 3, DType::f32), DType::bf16);
  LoraTerm update{leaf({4, 32}, 4, DType::f32), leaf({16, 4}, 5, DType::f32), 0.5};
  const Tensor out = lora_linear(x, w, bias, std::span(&update, 1));
  CHECK(out.dtype() == DType::bf16);
  const auto wide = [](const Tensor& t) { return to_dtype(detach(t), DType::f64); };
  const Tensor exact = linear(wide(x), wide(w), wide(bias)) + linear(linear(wide(x), wide(update.a)), wide(update.b)) * 0.5;
  // Half a unit in the last place of bf16 (8 bits), plus float32's own rounding.
  const std::vector<double> got = out.to_vector<double>(), want = exact.to_vector<double>();
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::fabs(got[i] - want[i]) <= std::fabs(want[i]) / 256 + 1e-4);
  backward(sum(to_dtype(out, DType::f32)));
  CHECK(update.a.grad().dtype() == DType::f32);
  const Tensor ones_g = ones({6, 16}, DType::f64);
  CHECK(largest_difference(to_dtype(update.b.grad(), DType::f64), matmul(transpose(ones_g), linear(wide(x), wide(update.a))) * 0.5) < 1e-4);
}

TEST_CASE("what is kept follows from what is trained") {
  const std::int64_t m = 256, k = 64, n = 48, r = 4;
  const Tensor x = leaf({m, k}, 1, DType::f32), w = constant({n, k}, 2, DType::f32);
  const std::int64_t input = m * k * 4, hidden = m * r * 4, output = m * n * 4;
  struct Row { bool a, b; std::int64_t bytes; };
  for (const Row& row : {Row{true, true, input + hidden}, Row{false, true, hidden}, Row{true, false, input}, Row{false, false, 0}}) {
    LoraTerm update{constant({r, k}, 3, DType::f32), constant({n, r}, 4, DType::f32), 2.0};
    update.a.set_requires_grad(row.a);
    update.b.set_requires_grad(row.b);
    x.set_grad(zeros_like(x));  // its memory is no part of the count
    Tensor from = x * 1.0;
    const std::int64_t before = live_bytes() - input;
    const Tensor out = lora_linear(from, w, {}, std::span(&update, 1));
    from = Tensor();
    CHECK(live_bytes() - before == output + row.bytes);
    backward(sum(out));
    CHECK(update.a.grad().defined() == row.a);
    CHECK(update.b.grad().defined() == row.b);
    CHECK(live_bytes() - before == output + (row.a ? r * k * 4 : 0) + (row.b ? n * r * 4 : 0));
  }
}

TEST_CASE("with a frozen base the backward pass makes nothing of the size of the weight's gradient or of the output") {
  const std::int64_t m = 128, k = 32, n = 2048, r = 4;
  const Tensor x = constant({m, k}, 1, DType::f32), w = constant({n, k}, 2, DType::f32);
  LoraTerm update{leaf({r, k}, 3, DType::f32), leaf({n, r}, 4, DType::f32), 2.0};
  const Tensor out = lora_linear(x, w, {}, std::span(&update, 1)), g = ones({m, n});
  kernels::reset_peak(Device{});
  const std::int64_t before = live_bytes();
  backward(out, g);
  // What gemm packs comes on top of gradients and hidden parts; the weight's gradient alone would be 256 KiB, the output 1 MiB.
  CHECK(kernels::memory_statistics(Device{}).peak_bytes - before < n * k * 4 / 2);
}

TEST_CASE("adapters that do not fit are named") {
  const Tensor x = zeros({2, 6}), w = zeros({5, 6});
  const auto call = [&](const LoraTerm& update) { return [&x, &w, update] { lora_linear(x, w, {}, std::span(&update, 1)); }; };
  check_throws<ShapeError>(call({zeros({2, 5}), zeros({5, 2})}), {"lora_linear", "adapter 0", "[2, 5]"});
  check_throws<ShapeError>(call({zeros({2, 6}), zeros({5, 3})}), {"lora_linear", "adapter 0", "[5, 3]"});
  check_throws<DTypeError>(call({zeros({2, 6}, DType::f64), zeros({5, 2}, DType::f64)}), {"lora_linear", "float64", "float32"});
  check_throws<ConfigError>(call({zeros({2, 6}), zeros({5, 2}), 1.0, 1.0}), {"lora_linear", "dropout"});
  LoraTerm update{leaf({2, 6}, 1), leaf({5, 2}, 2), 1.0};
  const Tensor out = lora_linear(leaf({2, 6}, 3), leaf({5, 6}, 4), {}, std::span(&update, 1));
  const Tensor first = grad(sum(out), update.a, {.create_graph = true});
  check_throws<StateError>([&] { backward(sum(square(first))); }, {"lora_linear", "second derivative"});
}
