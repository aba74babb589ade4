// Rows of matrix products and decompositions.
#include <cmath>
#include <limits>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Index = std::vector<std::int64_t>;

// NumPy's rule: vectors become a row (left) or a column (right), batch dimensions broadcast.
Array product(Array a, Array b) {
  const bool row = a.shape.size() == 1, column = b.shape.size() == 1;
  if (row) a.shape.insert(a.shape.begin(), 1);
  if (column) b.shape.push_back(1);
  const std::int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
  const Shape batch = broadcast_shapes(Shape(Index(a.shape.begin(), a.shape.end() - 2)), Shape(Index(b.shape.begin(), b.shape.end() - 2)), "reference");
  Index shape = batch.to_vector();
  shape.insert(shape.end(), {m, n});
  Array out(shape);
  for_each_index(shape, [&](const Index& i) {
    Index left = i, right = i;
    double sum = 0.0;
    for (std::int64_t j = 0; j < k; ++j) {
      left.back() = j;
      right[right.size() - 2] = j;
      sum += a.at(left) * b.at(right);
    }
    out[i] = sum;
  });
  if (column) out.shape.pop_back();
  if (row) out.shape.erase(out.shape.end() - (column ? 1 : 2));
  return out;
}

Array transposed(const Array& x) {
  Array out({x.size(1), x.size(0)});
  for_each_index(out.shape, [&](const Index& i) { out[i] = x.at({i[1], i[0]}); });
  return out;
}

Array sum_of(const Array& a, const Array& b) {
  return map(a, b, [](double x, double y) { return x + y; });
}

// x Wᵀ (or x W) + bias, where an undefined bias is an array without values.
Array affine(const Array& x, const Array& w, const Array& bias, bool stored_transposed) {
  const Array out = product(x, stored_transposed ? w : transposed(w));
  return bias.values.empty() ? out : sum_of(out, bias);
}

void add_linear(std::vector<OpRow>& rows) {
  for (bool stored : {false, true}) {
    OpRow r{stored ? "linear_transposed" : "linear", "", [stored](const Inputs& x) { return stored ? linear_transposed(x[0], x[1], x[2]) : linear(x[0], x[1], x[2]); },
            [stored](const std::vector<Array>& x) { return affine(x[0], x[1], x[2], stored); }};
    const auto weight = [stored](std::int64_t n, std::int64_t k) { return stored ? uniform({k, n}, 5) : uniform({n, k}, 5); };
    r.samples = {{uniform({2, 3, 4}, 1), weight(5, 4), uniform({5}, 3)}, {uniform({3, 17}, 1), weight(19, 17), Tensor()}, {uniform({4}, 1), weight(3, 4), uniform({3}, 3)},
                 {uniform({1, 1}, 1), weight(1, 1), uniform({1}, 2)}, {uniform({0, 4}, 1), weight(3, 4), uniform({3}, 3)}};
    r.slack = 4.0;
    const std::string name = r.name;
    r.bad = {{[call = r.call] { call({ones({2, 3}), ones({4, 5}), Tensor()}); }, name + ": inner sizes differ: input [2, 3], weight [4, 5]"},
             {[call = r.call] { call({ones({2, 3}), ones({3}), Tensor()}); }, name + ": the weight must be a matrix"},
             {[call = r.call] { call({ones({2, 3}), ones({3, 3}), ones({2})}); }, name + ": the bias must have shape [3], found [2]"},
             {[call = r.call] { call({ones({2, 3}), ones({3, 3}, DType::f64), Tensor()}); }, name + ": "}};
    rows.push_back(r);

    OpRow adapted{"lora_linear", stored ? "transposed" : "", [stored](const Inputs& x) {
      const LoraTerm terms[] = {{x[3], x[4], 0.5}, {x[5], x[6], -1.25}};
      return lora_linear(x[0], x[1], x[2], terms, stored);
    }, [stored](const std::vector<Array>& x) {
      Array out = affine(x[0], x[1], x[2], stored);
      for (std::size_t i : {std::size_t{3}, std::size_t{5}}) {
        const double scaling = i == 3 ? 0.5 : -1.25;
        out = sum_of(out, map(product(product(x[0], transposed(x[i])), transposed(x[i + 1])), [=](double v) { return scaling * v; }));
      }
      return out;
    }};
    adapted.samples = {{uniform({2, 3, 4}, 1), weight(5, 4), uniform({5}, 3), uniform({2, 4}, 6), uniform({5, 2}, 7), uniform({1, 4}, 8), uniform({5, 1}, 9)},
                       {uniform({3, 7}, 1), weight(9, 7), Tensor(), uniform({3, 7}, 6), uniform({9, 3}, 7), uniform({2, 7}, 8), uniform({9, 2}, 9)}};
    adapted.second_order = false;
    adapted.slack = 8.0;
    adapted.bad = {{[stored] {
      const LoraTerm term{ones({2, 3}), ones({4, 2})};
      lora_linear(ones({2, 4}), ones({4, 4}), Tensor(), std::span(&term, 1), stored);
    }, "lora_linear: adapter 0: expected A (r, 4) and B (4, r), found A [2, 3], B [4, 2]"}};
    rows.push_back(adapted);
  }
}

// q r or u diag(s) vt, which is x again whatever the signs.
OpRow rebuilt(std::string name, std::function<Tensor(const Tensor&)> call) {
  OpRow r{name, "rebuilt", [call](const Inputs& x) { return call(x[0]); }, [](const std::vector<Array>& x) { return x[0]; }};
  r.samples = {{uniform({5, 3}, 1)}, {uniform({3, 5}, 2)}, {uniform({4, 4}, 3)}, {uniform({1, 1}, 4)}};
  r.differentiable = r.narrow = false;
  r.slack = 16.0;
  r.bad = {{[call] { call(ones({2})); }, name + ": expected a matrix that is not empty, found shape [2]"}, {[call] { call(ones({2, 2}, DType::bf16)); }, name + ": the matrix must be float32 or float64"},
           {[call] { call(ones({2, 2}).set_requires_grad(true)); }, name + ": has no gradient"}};
  return r;
}

}  // namespace

std::vector<OpRow> matrix_rows() {
  std::vector<OpRow> rows;
  OpRow products{"matmul", "", [](const Inputs& x) { return matmul(x[0], x[1]); }, [](const std::vector<Array>& x) { return product(x[0], x[1]); }};
  for (const auto& [a, b] : std::vector<std::pair<Shape, Shape>>{{{3, 4}, {4, 5}}, {{4}, {4, 5}}, {{3, 4}, {4}}, {{4}, {4}}, {{2, 3, 4}, {4, 5}}, {{2, 1, 3, 4}, {3, 4, 5}},
                                                                 {{0, 4}, {4, 5}}, {{3, 0}, {0, 5}}, {{1, 1}, {1, 1}}, {{17, 33}, {33, 19}}, {{4}, {2, 4, 3}}})
    products.samples.push_back({uniform(a, 1), uniform(b, 2)});
  products.slack = 8.0;
  products.bad = {{[] { matmul(ones({2, 3}), ones({2, 3})); }, "matmul: inner sizes differ: [2, 3] x [2, 3]"}, {[] { matmul(ones({}), ones({2})); }, "matmul: operands need at least one dimension"},
                  {[] { matmul(ones({2, 2}), ones({2, 2}, DType::f64)); }, "matmul: "}};
  rows.push_back(products);
  OpRow outers{"outer", "", [](const Inputs& x) { return outer(x[0], x[1]); }, [](const std::vector<Array>& x) {
    Array column = x[0];
    column.shape.push_back(1);
    return map(column, x[1], [](double a, double b) { return a * b; });
  }};
  outers.samples = {{uniform({3}, 1), uniform({5}, 2)}, {uniform({1}, 1), uniform({1}, 2)}, {uniform({0}, 1), uniform({2}, 2)}};
  outers.bad = {{[] { outer(ones({2, 2}), ones({2})); }, "outer: expected two vectors, found [2, 2] and [2]"}};
  rows.push_back(outers);
  OpRow sums{"einsum", "bhid,bhjd->bhij", [](const Inputs& x) { return einsum("bhid,bhjd->bhij", x[0], x[1]); }, [](const std::vector<Array>& x) {
    Array out({x[0].size(0), x[0].size(1), x[0].size(2), x[1].size(2)});
    for_each_index(out.shape, [&](const Index& i) {
      for (std::int64_t d = 0; d < x[0].size(3); ++d) out[i] += x[0].at({i[0], i[1], i[2], d}) * x[1].at({i[0], i[1], i[3], d});
    });
    return out;
  }};
  sums.samples = {{uniform({2, 3, 4, 5}, 1), uniform({2, 3, 6, 5}, 2)}, {uniform({1, 1, 1, 1}, 1), uniform({1, 1, 1, 1}, 2)}};
  sums.slack = 4.0;
  sums.bad = {{[] { einsum("ab", ones({2}), ones({2})); }, "einsum: 'ab': expected 'letters,letters->letters'"}, {[] { einsum("ab,bc->ac", ones({2, 3}), ones({2, 3})); }, "einsum: 'ab,bc->ac': letter 'b' is "}};
  rows.push_back(sums);
  OpRow summed{"einsum", "a letter left out", [](const Inputs& x) { return einsum("ab,bc->c", x[0], x[1]); }, [](const std::vector<Array>& x) {
    Array out({x[1].size(1)});
    for_each_index(x[1].shape, [&](const Index& i) {
      for (std::int64_t a = 0; a < x[0].size(0); ++a) out[{i[1]}] += x[0].at({a, i[0]}) * x[1].at(i);
    });
    return out;
  }};
  summed.samples = {{uniform({2, 3}, 1), uniform({3, 4}, 2)}};
  summed.slack = 4.0;
  rows.push_back(summed);
  add_linear(rows);
  rows.push_back(rebuilt("qr", [](const Tensor& x) {
    const QrResult f = qr(x);
    return matmul(f.q, f.r);
  }));
  rows.push_back(rebuilt("svd", [](const Tensor& x) {
    const SvdResult f = svd(x);
    return matmul(mul(f.u, f.s), f.vt);
  }));
  return rows;
}

}  // namespace cambium::test
