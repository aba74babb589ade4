// matmul, linear, einsum, outer, qr and svd: values against sums, gradients, views, what is kept, messages.
#include <doctest/doctest.h>

#include "gradient_by_projection.h"

using namespace cambium;
using namespace cambium::test;

namespace {

// Row-major product of plain vectors.
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, std::int64_t m, std::int64_t k, std::int64_t n) {
  std::vector<double> c(static_cast<std::size_t>(m * n), 0.0);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t l = 0; l < k; ++l) c[static_cast<std::size_t>(i * n + j)] += a[static_cast<std::size_t>(i * k + l)] * b[static_cast<std::size_t>(l * n + j)];
  return c;
}

Tensor multiply(const std::vector<Tensor>& x) { return matmul(x[0], x[1]); }

}  // namespace

TEST_CASE("matmul of matrices") {
  const Tensor a = constant({5, 7}, 1), b = constant({7, 3}, 2);
  const Tensor expected = from_vector(product(a.to_vector<double>(), b.to_vector<double>(), 5, 7, 3), {5, 3});
  CHECK(largest_difference(matmul(a, b), expected) < 1e-13);
  CHECK(largest_difference(transpose(matmul(transpose(b), transpose(a))), expected) < 1e-13);
  // Strided views: every second row, and columns inside a wider matrix.
  const Tensor wide = constant({10, 9}, 3);
  const Tensor view = slice(slice(wide, 0, 0, 10, 2), 1, 1, 8);
  CHECK(largest_difference(matmul(view, b), matmul(contiguous(view), b)) == 0.0);
}

TEST_CASE("matmul broadcasts its batch dimensions, vectors as in NumPy") {
  struct Row { Shape a, b, out; };
  for (const Row& row : {Row{{2, 3, 4}, {2, 4, 5}, {2, 3, 5}}, Row{{2, 3, 4}, {4, 5}, {2, 3, 5}}, Row{{3, 4}, {2, 4, 5}, {2, 3, 5}}, Row{{2, 1, 3, 4}, {5, 4, 2}, {2, 5, 3, 2}},
                         Row{{4}, {4}, {}}, Row{{4}, {4, 3}, {3}}, Row{{3, 4}, {4}, {3}}, Row{{4}, {2, 4, 3}, {2, 3}}, Row{{2, 3, 4}, {4}, {2, 3}}, Row{{1, 1}, {1, 1}, {1, 1}},
                         Row{{2, 3, 1, 2, 3}, {1, 2, 3, 2}, {2, 3, 2, 2, 2}}}) {
    CAPTURE(row.a);
    CAPTURE(row.b);
    const Tensor a = leaf(row.a, 4), b = leaf(row.b, 5);
    CHECK(matmul(a, b).shape() == row.out);
    check_gradients(multiply, {a, b});
    check_second_order(multiply, {a, b});
  }
}

TEST_CASE("matmul of permuted heads agrees with contiguous copies") {
  const Tensor q = constant({2, 5, 3, 4}, 6), k = constant({2, 6, 3, 4}, 7);
  const Tensor a = permute(q, {0, 2, 1, 3}), b = permute(k, {0, 2, 3, 1});
  CHECK(largest_difference(matmul(a, b), matmul(contiguous(a), contiguous(b))) < 1e-14);
}

TEST_CASE("empty products") {
  CHECK(matmul(zeros({0, 3}), zeros({3, 2})).shape() == Shape{0, 2});
  const Tensor inner = matmul(ones({2, 0}), ones({0, 3}));
  CHECK(inner.shape() == Shape{2, 3});
  CHECK(sum(abs(inner)).item() == 0.0);
  CHECK(linear(zeros({0, 3}), zeros({2, 3})).shape() == Shape{0, 2});
}

TEST_CASE("linear and linear_transposed") {
  const Function fused = [](const std::vector<Tensor>& v) { return linear(v[0], v[1], v[2]); };
  const Function composed = [](const std::vector<Tensor>& v) { return matmul(v[0], transpose(v[1])) + v[2]; };
  const Function fused_transposed = [](const std::vector<Tensor>& v) { return linear_transposed(v[0], transpose(v[1]), v[2]); };
  for (const Shape& shape : {Shape{4, 6}, Shape{2, 3, 6}, Shape{6}}) {
    const std::vector<Tensor> inputs{leaf(shape, 8), leaf({5, 6}, 9), leaf({5}, 10)};
    check_same(fused, composed, inputs);
    check_same(fused_transposed, composed, inputs);
    check_second_order(fused, inputs);
  }
  // Inputs whose rows are no view of one matrix.
  const Tensor x = leaf({3, 2, 6}, 11), w = leaf({5, 6}, 12);
  check_same([&](const auto& v) { return linear(transpose(v[0], 0, 1), v[1]); }, [&](const auto& v) { return matmul(transpose(v[0], 0, 1), transpose(v[1])); }, {x, w});
}

TEST_CASE("next to a frozen weight nothing is kept") {
  const Tensor w = constant({64, 64}, 13, DType::f32), trained = leaf({64, 64}, 14, DType::f32);
  Tensor x = leaf({512, 64}, 15, DType::f32);
  const std::int64_t block = 512 * 64 * 4;
  for (const bool frozen : {true, false}) {
    Tensor hidden = x * 2.0;
    const std::int64_t before = live_bytes();
    const Tensor out = linear(hidden, frozen ? w : trained);
    hidden = Tensor();
    CHECK(live_bytes() - before == (frozen ? 0 : block));
    CHECK(grad(sum(out), x).defined());
  }
  NoGrad no_grad;
  const std::int64_t before = live_bytes();
  const Tensor out = linear(x, trained);
  CHECK(live_bytes() - before == block);
}

TEST_CASE("sixteen-bit products are summed in float32") {
  const Tensor a = constant({3, 300}, 16, DType::f32), b = constant({4, 300}, 17, DType::f32);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = to_dtype(a, dtype), y = to_dtype(b, dtype);
    const Tensor exact = linear(to_dtype(x, DType::f64), to_dtype(y, DType::f64));
    CHECK(linear(x, y).dtype() == dtype);
    CHECK(largest_difference(linear(x, y), exact) <= 60.0 * (dtype == DType::bf16 ? 1.0 / 256 : 1.0 / 2048));
  }
}

TEST_CASE("einsum") {
  struct Row { const char* equation; Shape a, b; };
  for (const Row& row : {Row{"ij,jk->ik", {2, 3}, {3, 4}}, Row{"bhid,bhjd->bhij", {2, 3, 4, 5}, {2, 3, 6, 5}}, Row{"bij,bjk->kbi", {2, 3, 4}, {2, 4, 5}}, Row{"i,j->ij", {3}, {4}},
                         Row{"i,j->ji", {3}, {4}}, Row{"ij,ij->", {3, 4}, {3, 4}}, Row{"ijk,kl->lj", {2, 3, 4}, {4, 5}}, Row{"b i , b -> i b", {2, 3}, {2}}}) {
    CAPTURE(row.equation);
    const Tensor a = leaf(row.a, 18), b = leaf(row.b, 19);
    check_gradients([&](const auto& v) { return einsum(row.equation, v[0], v[1]); }, {a, b});
  }
  const Tensor a = constant({2, 3, 4}, 20), b = constant({4, 5}, 21);
  CHECK(largest_difference(einsum("ijk,kl->lj", a, b), transpose(matmul(sum(a, {0}), b))) < 1e-13);
  const Tensor c = constant({3, 4}, 22), d = constant({3, 4}, 23);
  CHECK(einsum("ij,ij->", c, d).item() == doctest::Approx(dot(c, d)));
  check_throws<ShapeError>([&] { einsum("ij,jk", a, b); }, {"einsum", "->"});
  check_throws<ShapeError>([&] { einsum("ijk,kl->lx", a, b); }, {"einsum", "'x'"});
  check_throws<ShapeError>([&] { einsum("ijk,jl->l", a, b); }, {"einsum", "'j'", "3", "4"});
  check_throws<ShapeError>([&] { einsum("iik,kl->l", a, b); }, {"einsum", "twice"});
}

TEST_CASE("outer") {
  const std::vector<Tensor> inputs{leaf({3}, 24), leaf({4}, 25)};
  check_same([](const auto& v) { return outer(v[0], v[1]); }, [](const auto& v) { return matmul(unsqueeze(v[0], 1), unsqueeze(v[1], 0)); }, inputs);
}

TEST_CASE("qr and svd put the matrix together again") {
  for (const Shape& shape : {Shape{6, 4}, Shape{4, 6}, Shape{5, 5}, Shape{1, 3}}) {
    const Tensor x = constant(shape, 26);
    const QrResult f = qr(x);
    CHECK(largest_difference(matmul(f.q, f.r), x) < 1e-13);
    CHECK(largest_difference(tril(f.r, -1), zeros_like(f.r)) == 0.0);
    const SvdResult s = svd(x);
    CHECK(largest_difference(matmul(s.u * s.s, s.vt), x) < 1e-13);
    const std::vector<double> values = s.s.to_vector<double>();
    for (std::size_t i = 1; i < values.size(); ++i) CHECK(values[i - 1] >= values[i]);
    CHECK(largest_difference(svd(transpose(x)).s, s.s) < 1e-13);
  }
  check_throws<StateError>([] { svd(leaf({2, 2}, 1)); }, {"svd", "no gradient"});
  check_throws<DTypeError>([] { qr(zeros({2, 2}, DType::f16)); }, {"qr", "float16"});
}

TEST_CASE("shapes and dtypes that do not fit are named") {
  check_throws<ShapeError>([] { matmul(zeros({2, 3}), zeros({4, 5})); }, {"matmul", "[2, 3]", "[4, 5]"});
  check_throws<ShapeError>([] { matmul(zeros({2, 2, 3}), zeros({3, 3, 5})); }, {"matmul", "[2]", "[3]"});
  check_throws<DTypeError>([] { matmul(zeros({2, 3}), zeros({3, 5}, DType::f64)); }, {"matmul", "float32", "float64"});
  check_throws<DTypeError>([] { matmul(zeros({2, 3}, DType::i64), zeros({3, 5}, DType::i64)); }, {"matmul", "int64"});
  check_throws<ShapeError>([] { linear(zeros({2, 3}), zeros({5, 4})); }, {"linear", "[2, 3]", "[5, 4]"});
  check_throws<ShapeError>([] { linear(zeros({2, 3}), zeros({5, 3}), zeros({4})); }, {"linear", "bias", "[5]", "[4]"});
  check_throws<StateError>([] { linear(zeros({2, 3}), Tensor()); }, {"linear", "weight", "undefined"});
}
