// Rows of functions of two tensors, which broadcast.
#include <cmath>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Binary = Tensor (*)(const Tensor&, const Tensor&);
using Reference = std::function<double(double, double)>;
using Maker = std::function<Tensor(const Shape&, std::uint64_t)>;

std::vector<Inputs> pairs(const Maker& a, const Maker& b) {
  std::vector<Inputs> out;
  std::uint64_t seed = 20;
  for (const auto& [left, right] : std::vector<std::pair<Shape, Shape>>{
           {{0, 3}, {3}}, {{}, {}}, {{1}, {5}}, {{3, 5}, {3, 5}}, {{2, 3, 5}, {3, 1}}, {{7, 1}, {1, 9}}, {{}, {2, 3}}, {{67}, {67}}})
    out.push_back({a(left, seed++), b(right, seed++)});
  return out;
}

OpRow row(std::string name, std::string variant, Binary f, Reference reference, const Maker& a, const Maker& b) {
  OpRow out{name, variant, [f](const Inputs& x) { return f(x[0], x[1]); },
            [reference](const std::vector<Array>& x) { return map(x[0], x[1], reference); }};
  out.samples = pairs(a, b);
  out.bad = {{[f] { f(ones({2, 3}), ones({2, 4})); }, name + ": shapes [2, 3] and [2, 4] do not broadcast"},
             {[f] { f(ones({2}), ones({2}, DType::f64)); }, name + ": tensors of float32 and float64: use to_dtype"},
             {[f] { f(ones({2}), Tensor()); }, name + ": an input is undefined"},
             {[f] { f(coins({2}, 1), coins({2}, 2)); }, name + ": bool tensors have no arithmetic"}};
  return out;
}

Maker between(double low, double high) {
  return [=](const Shape& shape, std::uint64_t seed) { return uniform(shape, seed, low, high); };
}
Maker whole(std::int64_t low, std::int64_t high) {
  return [=](const Shape& shape, std::uint64_t seed) { return integers(shape, seed, low, high); };
}

// Distinct values in both operands together, so that no pair ties.
std::vector<Inputs> untied() {
  std::vector<Inputs> out;
  for (Inputs& sample : pairs(distinct, distinct)) out.push_back({sample[0], add(sample[1], 0.02)});
  return out;
}

}  // namespace

std::vector<OpRow> binary_rows() {
  const Maker any = between(-2, 2), positive = between(0.5, 2);
  std::vector<OpRow> rows = {
      row("add", "", add, [](double x, double y) { return x + y; }, any, any),
      row("sub", "", sub, [](double x, double y) { return x - y; }, any, any),
      row("mul", "", mul, [](double x, double y) { return x * y; }, any, any),
      row("div", "", div, [](double x, double y) { return x / y; }, any, positive),
      row("pow", "", pow, [](double x, double y) { return std::exp(y * std::log(x)); }, positive, any),
      row("atan2", "", atan2, [](double y, double x) { return std::atan(y / x) + (x < 0 ? std::copysign(3.141592653589793, y) : 0.0); }, any, positive),
      row("maximum", "", maximum, [](double x, double y) { return x < y ? y : x; }, distinct, distinct),
      row("minimum", "", minimum, [](double x, double y) { return x < y ? x : y; }, distinct, distinct),
      row("remainder", "", remainder, [](double x, double y) { return x - std::floor(x / y) * y; }, any, any),
      row("operator+", "", [](const Tensor& a, const Tensor& b) { return a + b; }, [](double x, double y) { return x + y; }, any, any),
      row("operator-", "", [](const Tensor& a, const Tensor& b) { return a - b; }, [](double x, double y) { return x - y; }, any, any),
      row("operator*", "", [](const Tensor& a, const Tensor& b) { return a * b; }, [](double x, double y) { return x * y; }, any, any),
      row("operator/", "", [](const Tensor& a, const Tensor& b) { return a / b; }, [](double x, double y) { return x / y; }, any, positive),
  };
  for (OpRow& r : rows) {
    if (r.name == "maximum" || r.name == "minimum") r.samples = untied();
    // Quotients that are not whole, so that no difference quotient crosses a jump.
    if (r.name == "remainder") {
      r.samples = {{from_vector<double>({5.5, -5.5, 5.5, -5.5, 0.75}, {5}), from_vector<double>({2.0, 2.0, -2.0, -2.0, 1.0}, {5})},
                   {from_vector<double>({7.25}, {1}), from_vector<double>({2.0, 3.0}, {2})}, {uniform({0}, 1), scalar(2.0, DType::f64)}};
    }
    if (r.name.starts_with("operator")) r.bad.clear();
    if (r.name == "pow" || r.name == "div" || r.name == "operator/") r.slack = 4.0;
  }

  // Where the derivative has a choice or a limit.
  OpRow zero_power = rows[4];
  zero_power.variant = "at zero";
  zero_power.reference = [](const std::vector<Array>& x) { return map(x[0], x[1], [](double a, double b) { return a == 0 ? (b == 0 ? 1.0 : 0.0) : std::pow(a, b); }); };
  zero_power.samples = {{from_vector<double>({0.0, 0.0}, {2}), from_vector<double>({2.0, 3.0}, {2})}};
  zero_power.constant = {1};
  zero_power.bad.clear();
  rows.push_back(zero_power);

  struct Scalar { const char* name; std::function<Tensor(const Tensor&)> call; std::function<double(double)> reference; };
  for (const Scalar& s : std::vector<Scalar>{{"operator+", [](const Tensor& x) { return x + 1.5; }, [](double x) { return x + 1.5; }},
                                             {"operator-", [](const Tensor& x) { return x - 1.5; }, [](double x) { return x - 1.5; }},
                                             {"operator*", [](const Tensor& x) { return x * 1.5; }, [](double x) { return x * 1.5; }},
                                             {"operator/", [](const Tensor& x) { return x / 1.5; }, [](double x) { return x / 1.5; }},
                                             {"operator+", [](const Tensor& x) { return 1.5 + x; }, [](double x) { return 1.5 + x; }},
                                             {"operator-", [](const Tensor& x) { return 1.5 - x; }, [](double x) { return 1.5 - x; }},
                                             {"operator*", [](const Tensor& x) { return 1.5 * x; }, [](double x) { return 1.5 * x; }},
                                             {"operator/", [](const Tensor& x) { return 1.5 / x; }, [](double x) { return 1.5 / x; }},
                                             {"operator-", [](const Tensor& x) { return -x; }, [](double x) { return -x; }}}) {
    OpRow r{s.name, "scalar", [call = s.call](const Inputs& x) { return call(x[0]); }, [f = s.reference](const std::vector<Array>& x) { return map(x[0], f); }};
    r.samples = {{uniform({3, 5}, 8, 0.5, 2.0)}};
    rows.push_back(r);
  }

  const std::vector<OpRow> integer_rows = {
      row("add", "integers", add, [](double x, double y) { return x + y; }, whole(-9, 9), whole(-9, 9)),
      row("sub", "integers", sub, [](double x, double y) { return x - y; }, whole(-9, 9), whole(-9, 9)),
      row("mul", "integers", mul, [](double x, double y) { return x * y; }, whole(-9, 9), whole(-9, 9)),
      row("div", "integers", div, [](double x, double y) { return std::trunc(x / y); }, whole(-9, 9), whole(1, 9)),
      row("div", "negative integers", div, [](double x, double y) { return std::trunc(x / y); }, whole(-9, 9), whole(-9, 0)),
      row("remainder", "integers", remainder, [](double x, double y) { return x - std::floor(x / y) * y; }, whole(-9, 9), whole(-9, 0)),
      row("maximum", "integers", maximum, [](double x, double y) { return x < y ? y : x; }, whole(-9, 9), whole(-9, 9)),
      row("minimum", "integers", minimum, [](double x, double y) { return x < y ? x : y; }, whole(-9, 9), whole(-9, 9)),
  };
  for (OpRow r : integer_rows) {
    r.bad.clear();
    if (r.name == "div" || r.name == "remainder")
      r.bad.push_back({[f = r.call] { f({integers({3}, 1, -5, 5), zeros({3}, DType::i64)}); }, r.name + ": division of integers by zero"});
    rows.push_back(r);
  }
  return rows;
}

}  // namespace cambium::test
