// Rows of functions of one tensor.
#include <cmath>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Unary = Tensor (*)(const Tensor&);

std::vector<Inputs> shapes(const std::function<Tensor(const Shape&, std::uint64_t)>& make) {
  return {{make({0, 3}, 1)}, {make({}, 2)}, {make({1}, 3)}, {make({3, 5}, 4)}, {make({2, 3, 7}, 5)}, {make({67}, 6)}};
}

// Odd functions of smooth ones take values in [low, high); functions with kinks take distinct ones.
OpRow row(std::string name, Unary f, std::function<double(double)> reference, double low, double high) {
  OpRow out{name, "", [f](const Inputs& x) { return f(x[0]); }, [reference](const std::vector<Array>& x) { return map(x[0], reference); }};
  out.samples = shapes([=](const Shape& shape, std::uint64_t seed) { return uniform(shape, seed, low, high); });
  out.bad = {{[f] { f(Tensor()); }, name + ": an input is undefined"},
             {[f] { f(arange(3)); }, name + ": expected a floating type, found int64"}};
  return out;
}

OpRow kinked(std::string name, Unary f, std::function<double(double)> reference) {
  OpRow out = row(std::move(name), f, std::move(reference), 0.0, 1.0);
  out.samples = shapes(distinct);
  return out;
}

double phi(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double sigma(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double signum(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0; }

// Integers go through the same kernel for the functions that make sense for them.
OpRow whole(std::string name, Unary f, std::function<double(double)> reference) {
  OpRow out{name, "integers", [f](const Inputs& x) { return f(x[0]); }, [reference](const std::vector<Array>& x) { return map(x[0], reference); }};
  out.samples = {{integers({0}, 1, -9, 9)}, {integers({}, 2, -9, 9)}, {integers({5, 7}, 3, -9, 9)}, {to_dtype(integers({33}, 4, -9, 9), DType::i32)},
                 {to_dtype(integers({9}, 5, -9, 9), DType::i8)}};
  out.bad = {{[f, name] { f(coins({3}, 1)); }, name + ": expected a floating type, found bool"}};
  return out;
}

}  // namespace

std::vector<OpRow> pointwise_rows() {
  constexpr double pi = 3.141592653589793;
  std::vector<OpRow> rows = {
      row("neg", neg, [](double x) { return -x; }, -2, 2),
      row("exp", exp, [](double x) { return std::exp(x); }, -2, 2),
      row("expm1", expm1, [](double x) { return std::expm1(x); }, -2, 2),
      row("log", log, [](double x) { return std::log(x); }, 0.5, 4),
      row("log1p", log1p, [](double x) { return std::log1p(x); }, -0.5, 3),
      row("sqrt", sqrt, [](double x) { return std::sqrt(x); }, 0.5, 4),
      row("rsqrt", rsqrt, [](double x) { return 1.0 / std::sqrt(x); }, 0.5, 4),
      row("reciprocal", reciprocal, [](double x) { return 1.0 / x; }, 0.5, 3),
      row("square", square, [](double x) { return x * x; }, -2, 2),
      row("sin", sin, [](double x) { return std::cos(x - pi / 2); }, -3, 3),
      row("cos", cos, [](double x) { return std::sin(x + pi / 2); }, -3, 3),
      row("tanh", tanh, [](double x) { return (std::exp(x) - std::exp(-x)) / (std::exp(x) + std::exp(-x)); }, -3, 3),
      row("sigmoid", sigmoid, [](double x) { return 0.5 + 0.5 * std::tanh(x / 2); }, -4, 4),
      row("erf", erf, [](double x) { return 1.0 - std::erfc(x); }, -2, 2),
      row("gelu_erf", gelu_erf, [](double x) { return x * phi(x); }, -3, 3),
      row("gelu_tanh", gelu_tanh, [](double x) { return x * sigma(2.0 * std::sqrt(2.0 / 3.141592653589793) * (x + 0.044715 * x * x * x)); }, -3, 3),
      row("quick_gelu", quick_gelu, [](double x) { return x * sigma(1.702 * x); }, -3, 3),
      row("silu", silu, [](double x) { return x * sigma(x); }, -3, 3),
      row("softplus", softplus, [](double x) { return std::log(1.0 + std::exp(x)); }, -4, 4),
      kinked("abs", abs, [](double x) { return x < 0 ? -x : x; }),
      kinked("relu", relu, [](double x) { return x < 0 ? 0.0 : x; }),
      kinked("floor", floor, [](double x) { return std::floor(x); }),
      kinked("ceil", ceil, [](double x) { return std::ceil(x); }),
      kinked("round", round, [](double x) { return std::nearbyint(x); }),
      kinked("sign", sign, signum),
  };
  for (OpRow& r : rows)
    if (r.name == "neg" || r.name == "abs" || r.name == "sign") r.bad.pop_back();
  rows.push_back(whole("neg", neg, [](double x) { return -x; }));
  rows.push_back(whole("abs", abs, [](double x) { return x < 0 ? -x : x; }));
  rows.push_back(whole("sign", sign, signum));

  // Far out: nothing overflows on the way to a finite result.
  OpRow far = row("softplus", softplus, [](double x) { return x > 40 ? x : std::exp(x); }, 0, 1);
  far.variant = "far out";
  far.samples = {{from_vector<double>({-700, -50, 50, 800}, {4})}};
  far.narrow = false;
  rows.push_back(far);
  OpRow steep = row("sigmoid", sigmoid, [](double x) { return x < 0 ? std::exp(x) : 1.0; }, 0, 1);
  steep.variant = "far out";
  steep.samples = {{from_vector<double>({-700, -50, 50, 800}, {4})}};
  steep.narrow = false;
  rows.push_back(steep);

  OpRow clamped{"clamp", "", [](const Inputs& x) { return clamp(x[0], -0.5, 0.75); },
                [](const std::vector<Array>& x) { return map(x[0], [](double v) { return v < -0.5 ? -0.5 : v > 0.75 ? 0.75 : v; }); }};
  clamped.samples = shapes(distinct);
  clamped.bad = {{[] { clamp(ones({2}), 1.0, 0.0); }, "clamp: the lower bound 1 is above the upper bound 0"}};
  rows.push_back(clamped);

  struct Scalar {
    const char* name;
    std::function<Tensor(const Tensor&)> call;
    std::function<double(double)> reference;
    double low, high;
  };
  for (const Scalar& s : std::vector<Scalar>{
           {"add", [](const Tensor& x) { return add(x, 1.5); }, [](double x) { return x + 1.5; }, -2, 2},
           {"sub", [](const Tensor& x) { return sub(x, 1.5); }, [](double x) { return x - 1.5; }, -2, 2},
           {"rsub", [](const Tensor& x) { return rsub(x, 1.5); }, [](double x) { return 1.5 - x; }, -2, 2},
           {"mul", [](const Tensor& x) { return mul(x, -2.25); }, [](double x) { return x * -2.25; }, -2, 2},
           {"div", [](const Tensor& x) { return div(x, 3.0); }, [](double x) { return x / 3.0; }, -2, 2},
           {"rdiv", [](const Tensor& x) { return rdiv(x, 3.0); }, [](double x) { return 3.0 / x; }, 0.5, 2},
           {"pow", [](const Tensor& x) { return pow(x, 2.5); }, [](double x) { return x * x * std::sqrt(x); }, 0.5, 2},
           {"pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double x) { return x * x * x; }, -2, 2},
           {"pow", [](const Tensor& x) { return pow(x, 0.0); }, [](double) { return 1.0; }, -2, 2}}) {
    OpRow r{s.name, "scalar", [call = s.call](const Inputs& x) { return call(x[0]); },
            [f = s.reference](const std::vector<Array>& x) { return map(x[0], f); }};
    r.samples = shapes([&](const Shape& shape, std::uint64_t seed) { return uniform(shape, seed, s.low, s.high); });
    r.bad = {{[call = s.call] { call(Tensor()); }, std::string(s.name) + ": an input is undefined"},
             {[call = s.call] { call(coins({2}, 1)); }, std::string(s.name) + ": "}};
    rows.push_back(r);
  }
  OpRow divided{"div", "integers by a scalar", [](const Inputs& x) { return div(x[0], 3.0); },
                [](const std::vector<Array>& x) { return map(x[0], [](double v) { return std::trunc(v / 3.0); }); }};
  divided.samples = {{integers({31}, 3, -20, 20)}};
  divided.bad = {{[] { div(arange(3), 0.0); }, "div: division of integers by zero"}, {[] { add(arange(3), 0.5); }, "add: 0.5 is no int64"}};
  rows.push_back(divided);
  return rows;
}

}  // namespace cambium::test
