// The LSTM cell against its formulas, and its backward against central differences.
#include <doctest/doctest.h>

#include <cmath>

#include "kernel_arrays.h"

using namespace cambium;
using namespace cambium::test;

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Cell {
  Array gates, previous, hidden, cell, tanh_cell;
  Cell(DType dtype, std::int64_t B, std::int64_t H)
      : gates(dtype, {B, 4 * H}), previous(dtype, {B, H}), hidden(dtype, {B, H}), cell(dtype, {B, H}), tanh_cell(dtype, {B, H}) {
    gates.random(1, -3, 3);
    previous.random(2);
  }
  void forward() { table().lstm_cell_forward(cpu(), hidden, cell, tanh_cell, gates, previous); }
};

}  // namespace

TEST_CASE("forward") {
  for (const DType dtype : kFloats) {
    for (const Shape& size : {Shape{1, 1}, Shape{3, 5}, Shape{0, 4}, Shape{70, 130}}) {
      const std::int64_t B = size[0], H = size[1];
      Cell c(dtype, B, H);
      const std::vector<double> x = c.gates.values();
      c.forward();
      const double tolerance = 0.51 * epsilon(dtype) + 16 * epsilon(dtype == DType::f64 ? DType::f64 : DType::f32);
      for (std::int64_t b = 0; b < B; ++b) {
        for (std::int64_t j = 0; j < H; ++j) {
          const auto gate = [&](std::int64_t k) { return x[static_cast<std::size_t>(b * 4 * H + k * H + j)]; };
          const double i = sigmoid(gate(0)), f = sigmoid(gate(1)), g = std::tanh(gate(2)), o = sigmoid(gate(3));
          const double cell = f * c.previous[b * H + j] + i * g;
          REQUIRE(close(c.cell[b * H + j], cell, tolerance, tolerance));
          REQUIRE(close(c.tanh_cell[b * H + j], std::tanh(cell), tolerance, tolerance));
          REQUIRE(close(c.hidden[b * H + j], o * std::tanh(cell), tolerance, tolerance));
          REQUIRE(close(c.gates[b * 4 * H + j], i, tolerance, tolerance));
          REQUIRE(close(c.gates[b * 4 * H + H + j], f, tolerance, tolerance));
          REQUIRE(close(c.gates[b * 4 * H + 2 * H + j], g, tolerance, tolerance));
          REQUIRE(close(c.gates[b * 4 * H + 3 * H + j], o, tolerance, tolerance));
        }
      }
      CHECK(c.gates.gaps_untouched());
    }
  }
}

TEST_CASE("backward agrees with central differences") {
  const std::int64_t B = 2, H = 3;
  Array dhidden(DType::f64, {B, H}), dcell(DType::f64, {B, H}), dgates(DType::f64, {B, 4 * H}), dprevious(DType::f64, {B, H});
  dhidden.random(3);
  dcell.random(4);
  Cell base(DType::f64, B, H);
  base.forward();
  table().lstm_cell_backward(cpu(), dgates, dprevious, dhidden, dcell, base.gates, base.tanh_cell, base.previous);
  const auto projected = [&](std::int64_t gate, std::int64_t previous, double step) {
    Cell c(DType::f64, B, H);
    if (gate >= 0) c.gates.set(gate, c.gates[gate] + step);
    if (previous >= 0) c.previous.set(previous, c.previous[previous] + step);
    c.forward();
    double sum = 0;
    for (std::int64_t i = 0; i < B * H; ++i) sum += dhidden[i] * c.hidden[i] + dcell[i] * c.cell[i];
    return sum;
  };
  const double step = 1e-5;
  for (std::int64_t i = 0; i < B * 4 * H; ++i)
    CHECK(close(dgates[i], (projected(i, -1, step) - projected(i, -1, -step)) / (2 * step), 1e-6, 1e-8));
  for (std::int64_t i = 0; i < B * H; ++i)
    CHECK(close(dprevious[i], (projected(-1, i, step) - projected(-1, i, -step)) / (2 * step), 1e-6, 1e-8));
}

TEST_CASE("backward in the other types follows the one in double") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const std::int64_t B = 5, H = 33;
    Array dhidden(dtype, {B, H}), dcell(dtype, {B, H}), dgates(dtype, {B, 4 * H}), dprevious(dtype, {B, H});
    Array dhidden64(DType::f64, {B, H}), dcell64(DType::f64, {B, H}), dgates64(DType::f64, {B, 4 * H}), dprevious64(DType::f64, {B, H});
    Cell c(dtype, B, H), c64(DType::f64, B, H);
    dhidden.random(5);
    dcell.random(6);
    c.forward();
    const std::pair<const Array*, Array*> copies[] = {{&dhidden, &dhidden64}, {&dcell, &dcell64}, {&c.gates, &c64.gates},
                                                       {&c.tanh_cell, &c64.tanh_cell}, {&c.previous, &c64.previous}};
    for (const auto& [from, to] : copies) table().copy(cpu(), *to, *from);
    table().lstm_cell_backward(cpu(), dgates, dprevious, dhidden, dcell, c.gates, c.tanh_cell, c.previous);
    table().lstm_cell_backward(cpu(), dgates64, dprevious64, dhidden64, dcell64, c64.gates, c64.tanh_cell, c64.previous);
    for (std::int64_t i = 0; i < dgates.count(); ++i) REQUIRE(close(dgates[i], dgates64[i], 0.51 * epsilon(dtype) + 0x1p-19, 0x1p-20));
    for (std::int64_t i = 0; i < dprevious.count(); ++i) REQUIRE(close(dprevious[i], dprevious64[i], 0.51 * epsilon(dtype) + 0x1p-19, 0x1p-20));
  }
}
