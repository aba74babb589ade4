// Rows of comparisons, logic and choice by a mask.
#include <cmath>
#include <limits>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Reference = std::function<double(double, double)>;

OpRow fixed(std::string name, std::string variant, std::function<Tensor(const Inputs&)> call, std::function<Array(const std::vector<Array>&)> reference) {
  OpRow out{std::move(name), std::move(variant), std::move(call), std::move(reference)};
  out.differentiable = false;
  return out;
}

// Values on a coarse grid, so that some are equal.
Tensor coarse(const Shape& shape, std::uint64_t seed) { return to_dtype(integers(shape, seed, -2, 3), DType::f64); }

Tensor answer(bool value) { return scalar(value ? 1.0 : 0.0, DType::boolean, created_on()); }
Array answer(double value) {
  Array out(std::vector<std::int64_t>{});
  out.values[0] = value;
  return out;
}

std::vector<Inputs> masks() { return {{coins({0, 2}, 1)}, {coins({}, 2)}, {coins({4, 5}, 3)}, {coins({33}, 4, 0.02)}, {coins({33}, 5, 0.98)}, {coins({9}, 6, 1.0)}, {coins({9}, 6, 0.0)}}; }

Tensor broken(std::uint64_t seed) {
  std::vector<double> values = uniform({5, 7}, seed).to_vector<double>();
  values[3] = std::numeric_limits<double>::infinity();
  values[20] = -std::numeric_limits<double>::infinity();
  values[34] = std::numeric_limits<double>::quiet_NaN();
  return from_vector(values, {5, 7});
}

double not_finite(const Array& x) {
  double n = 0;
  for (double v : x.values) n += std::isfinite(v) ? 0 : 1;
  return n;
}

}  // namespace

std::vector<OpRow> compare_rows() {
  std::vector<OpRow> rows;
  struct Comparison {
    const char* name;
    Tensor (*tensors)(const Tensor&, const Tensor&);
    Tensor (*scalar)(const Tensor&, double);
    Reference reference;
  };
  for (const Comparison& c : std::vector<Comparison>{{"equal", equal, equal, [](double x, double y) { return x == y; }},
                                                     {"not_equal", not_equal, not_equal, [](double x, double y) { return x != y; }},
                                                     {"less", less, less, [](double x, double y) { return x < y; }},
                                                     {"less_equal", less_equal, less_equal, [](double x, double y) { return x <= y; }},
                                                     {"greater", greater, greater, [](double x, double y) { return x > y; }},
                                                     {"greater_equal", greater_equal, greater_equal, [](double x, double y) { return x >= y; }}}) {
    OpRow two = fixed(c.name, "", [f = c.tensors](const Inputs& x) { return f(x[0], x[1]); },
                      [f = c.reference](const std::vector<Array>& x) { return map(x[0], x[1], f); });
    two.samples = {{coarse({0, 3}, 1), coarse({3}, 2)}, {coarse({}, 3), coarse({}, 4)}, {coarse({4, 5}, 5), coarse({4, 1}, 6)}, {coarse({67}, 7), coarse({67}, 8)},
                   {integers({4, 5}, 9, -2, 3), integers({5}, 10, -2, 3)}, {broken(1), broken(2)}};
    const std::string name = c.name;
    two.bad = {{[f = c.tensors] { f(ones({2}), arange(2)); }, name + ": tensors of float32 and int64"},
               {[f = c.tensors] { f(ones({2}), ones({3})); }, name + ": shapes [2] and [3] do not broadcast"}};
    rows.push_back(two);
    OpRow one = fixed(c.name, "scalar", [f = c.scalar](const Inputs& x) { return f(x[0], 1.0); },
                      [f = c.reference](const std::vector<Array>& x) { return map(x[0], [&](double v) { return f(v, 1.0); }); });
    one.samples = {{coarse({0}, 1)}, {coarse({}, 3)}, {coarse({4, 5}, 5)}, {integers({37}, 9, -2, 3)}};
    one.bad = {{[f = c.scalar] { f(arange(2), 0.5); }, name + ": 0.5 is no int64"}};
    rows.push_back(one);
  }
  struct Logic { const char* name; Tensor (*call)(const Tensor&, const Tensor&); Reference reference; };
  for (const Logic& l : std::vector<Logic>{{"logical_and", logical_and, [](double x, double y) { return x * y; }},
                                           {"logical_or", logical_or, [](double x, double y) { return x + y - x * y; }},
                                           {"logical_xor", logical_xor, [](double x, double y) { return x + y - 2 * x * y; }}}) {
    OpRow r = fixed(l.name, "", [f = l.call](const Inputs& x) { return f(x[0], x[1]); },
                    [f = l.reference](const std::vector<Array>& x) { return map(x[0], x[1], f); });
    r.samples = {{coins({0}, 1), coins({0}, 2)}, {coins({}, 3), coins({}, 4)}, {coins({7, 5}, 5), coins({5}, 6)}};
    r.bad = {{[f = l.call] { f(arange(2), arange(2)); }, std::string(l.name) + ": expected bool, found int64"}};
    rows.push_back(r);
  }
  OpRow negation = fixed("logical_not", "", [](const Inputs& x) { return logical_not(x[0]); }, [](const std::vector<Array>& x) { return map(x[0], [](double v) { return 1 - v; }); });
  negation.samples = masks();
  negation.bad = {{[] { logical_not(ones({2})); }, "logical_not: expected bool, found float32"}};
  rows.push_back(negation);

  OpRow any_row = fixed("any", "", [](const Inputs& x) { return answer(any(x[0])); }, [](const std::vector<Array>& x) {
    double found = 0;
    for (double v : x[0].values) found = v != 0 ? 1 : found;
    return answer(found);
  });
  any_row.samples = masks();
  any_row.bad = {{[] { any(ones({2})); }, "any: expected bool, found float32"}};
  rows.push_back(any_row);
  OpRow all_row = fixed("all", "", [](const Inputs& x) { return answer(all(x[0])); }, [](const std::vector<Array>& x) {
    double found = 1;
    for (double v : x[0].values) found = v == 0 ? 0 : found;
    return answer(found);
  });
  all_row.samples = masks();
  all_row.bad = {{[] { all(ones({2})); }, "all: expected bool, found float32"}};
  rows.push_back(all_row);

  OpRow finite = fixed("all_finite", "", [](const Inputs& x) { return answer(all_finite(x[0])); }, [](const std::vector<Array>& x) { return answer(not_finite(x[0]) == 0 ? 1.0 : 0.0); });
  finite.samples = {{uniform({0}, 1)}, {uniform({}, 2)}, {uniform({9, 5}, 3)}, {broken(4)}};
  finite.bad = {{[] { all_finite(arange(2)); }, "expected a floating type, found int64"}};
  rows.push_back(finite);
  OpRow count = fixed("count_not_finite", "", [](const Inputs& x) { return scalar(static_cast<double>(count_not_finite(x[0])), DType::i64, created_on()); },
                      [](const std::vector<Array>& x) { return answer(not_finite(x[0])); });
  count.samples = finite.samples;
  count.bad = {{[] { count_not_finite(arange(2)); }, "count_not_finite: expected a floating type, found int64"}};
  rows.push_back(count);

  OpRow choose{"where", "", [](const Inputs& x) { return where(x[0], x[1], x[2]); }, [](const std::vector<Array>& x) {
    return map(map(x[0], x[1], [](double c, double a) { return c != 0 ? a : 1e300; }), x[2], [](double a, double b) { return a == 1e300 ? b : a; });
  }};
  choose.samples = {{coins({0, 2}, 1), uniform({0, 2}, 2), uniform({2}, 3)}, {coins({}, 1), uniform({}, 2), uniform({}, 3)},
                    {coins({3, 5}, 1), uniform({3, 5}, 2), uniform({3, 5}, 3)}, {coins({4, 1}, 1), uniform({3}, 2), uniform({2, 1, 3}, 3)}};
  choose.bad = {{[] { where(ones({2}), ones({2}), ones({2})); }, "where: expected bool, found float32"},
                {[] { where(coins({2}, 1), ones({2}), ones({2}, DType::f64)); }, "where: tensors of float32 and float64"},
                {[] { where(coins({2}, 1), ones({3}), ones({3})); }, "where: shapes [3] and [2] do not broadcast"}};
  rows.push_back(choose);

  OpRow masked{"masked_fill", "", [](const Inputs& x) { return masked_fill(x[0], x[1], -5.0); },
               [](const std::vector<Array>& x) { return map(x[0], x[1], [](double v, double m) { return m != 0 ? -5.0 : v; }); }};
  masked.samples = {{uniform({0}, 1), coins({}, 2)}, {uniform({}, 1), coins({}, 2)}, {uniform({3, 5}, 1), coins({3, 5}, 2)}, {uniform({2, 3, 5}, 1), coins({3, 1}, 2)},
                    {integers({3, 5}, 1, 0, 9), coins({5}, 2)}};
  masked.bad = {{[] { masked_fill(ones({2}), ones({2}), 0.0); }, "masked_fill: expected bool, found float32"},
                {[] { masked_fill(ones({1, 2}), coins({3, 2}, 1), 0.0); }, "masked_fill: the mask [3, 2] does not broadcast to [1, 2]"},
                {[] { masked_fill(arange(2), coins({2}, 1), 0.5); }, "masked_fill: 0.5 is no int64"}};
  rows.push_back(masked);
  return rows;
}

}  // namespace cambium::test
