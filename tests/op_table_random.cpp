// Rows of random tensors: exact where a closed form exists; their distribution is tested in test_kernels_random.cpp.
#include <cmath>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

constexpr RandomKey kKey{7, 3};

// The row compares with the same values drawn one block at a time from the definition: uniform numbers are low + (high - low) u.
OpRow draws(std::string name, std::function<Tensor()> call, std::function<Array()> reference, std::vector<BadInput> bad) {
  OpRow out{std::move(name), "", [call](const Inputs&) { return call(); }, [reference](const std::vector<Array>&) { return reference(); }};
  out.samples = {{}};
  out.differentiable = false;
  out.narrow = false;
  out.bad = std::move(bad);
  return out;
}

Array units(std::int64_t n) { return Array(random_uniform({n}, kKey, 0.0, 1.0, DType::f64)); }

}  // namespace

std::vector<OpRow> random_rows() {
  std::vector<OpRow> rows;
  rows.push_back(draws("random_uniform", [] { return random_uniform({9}, kKey, -1.0, 3.0, DType::f64, created_on()); }, [] { return map(units(9), [](double u) { return -1.0 + 4.0 * u; }); },
                       {{[] { random_uniform({2}, kKey, 1.0, 0.0); }, "random_uniform: the lower bound 1 is above the upper bound 0"},
                        {[] { random_uniform({2}, kKey, 0.0, 1.0, DType::i64); }, "random_uniform: expected a floating type, found int64"}}));
  rows.push_back(draws("random_normal", [] { return random_normal({9}, kKey, 2.0, 3.0, DType::f64, created_on()); },
                       [] { return map(Array(random_normal({9}, kKey, 0.0, 1.0, DType::f64)), [](double z) { return 2.0 + 3.0 * z; }); },
                       {{[] { random_normal({2}, kKey, 0.0, -1.0); }, "random_normal: negative deviation -1"}}));
  rows.push_back(draws("bernoulli", [] { return bernoulli({3, 7}, kKey, 0.3, DType::f32, created_on()); }, [] {
    Array out = map(units(21), [](double u) { return u < 0.3 ? 1.0 : 0.0; });
    out.shape = {3, 7};
    return out;
  }, {{[] { bernoulli({2}, kKey, 1.5); }, "bernoulli: expected a probability, found 1.5"}}));
  rows.push_back(draws("random_integers", [] { return random_integers({11}, kKey, -3, 4, created_on()); }, [] { return map(units(11), [](double u) { return std::floor(u * 7.0) - 3.0; }); },
                       {{[] { random_integers({2}, kKey, 3, 3); }, "random_integers: nothing lies in [3, 3)"}}));
  OpRow drawn{"multinomial", "", [](const Inputs& x) { return multinomial(x[0], kKey); }, [](const std::vector<Array>& x) {
    const std::int64_t rows_count = x[0].shape[0], classes = x[0].shape[1];
    const Array u = units(rows_count);
    Array out({rows_count});
    for (std::int64_t r = 0; r < rows_count; ++r) {
      double total = 0.0, running = 0.0;
      for (std::int64_t c = 0; c < classes; ++c) total += x[0].at({r, c});
      std::int64_t c = 0;
      for (; c < classes; ++c) {
        running += x[0].at({r, c});
        if (running > u.at({r}) * total) break;
      }
      out[{r}] = static_cast<double>(c);
    }
    return out;
  }};
  drawn.samples = {{uniform({9, 5}, 1, 0.0, 2.0)}, {relu(uniform({17, 7}, 2))}, {uniform({1, 1}, 3, 0.5, 1.0)}, {uniform({0, 3}, 4)}};
  drawn.differentiable = false;
  drawn.bad = {{[] { multinomial(zeros({2, 3}), kKey); }, "multinomial: the probabilities of a row are all 0"}, {[] { multinomial(neg(ones({2, 3})), kKey); }, "multinomial: probabilities are finite and not negative"},
               {[] { multinomial(ones({3}), kKey); }, "multinomial: expected probabilities (rows, classes), found [3]"}};
  rows.push_back(drawn);
  return rows;
}

}  // namespace cambium::test
