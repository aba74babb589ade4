// Matrix products of every instruction set against sums in double, within the bound of the arithmetic, for all layouts and shapes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"
#include "kernels/parallel.h"

using namespace cambium;
using namespace cambium::kernels;

namespace {

const float kNaN = std::numeric_limits<float>::quiet_NaN();

/// A matrix (batch, rows, columns) somewhere in a block of exactly the size that its strides need; the rest of the block is NaN.
struct Matrix {
  std::vector<unsigned char> bytes;
  Strided view;
  double get(std::int64_t z, std::int64_t i, std::int64_t j) const {
    const std::int64_t at = z * view.strides[0] + i * view.strides[1] + j * view.strides[2];
    return visit_float(view.dtype, "test", [&](auto tag) { return static_cast<double>(convert<double>(view.as<typename decltype(tag)::type>()[at])); });
  }
  void set(std::int64_t z, std::int64_t i, std::int64_t j, double x) {
    const std::int64_t at = z * view.strides[0] + i * view.strides[1] + j * view.strides[2];
    visit_float(view.dtype, "test", [&](auto tag) { using T = typename decltype(tag)::type; view.as<T>()[at] = convert<T>(x); });
  }
};

enum class Layout { rows, columns, sliced, turned_slice, general, one_row, one_column };

std::uint32_t state = 1;
double draw() {
  state = state * 1664525U + 1013904223U;
  return static_cast<double>(state >> 8) * 0x1p-23 - 1.0;
}

Matrix make(std::int64_t batch, std::int64_t rows, std::int64_t columns, Layout layout, DType dtype, bool filled) {
  Matrix m;
  std::int64_t r = columns, c = 1;
  switch (layout) {
    case Layout::rows: break;
    case Layout::columns: r = 1, c = rows; break;
    case Layout::sliced: r = columns + 3; break;
    case Layout::turned_slice: r = 1, c = rows + 5; break;
    case Layout::general: r = 2 * columns + 1, c = 2; break;
    case Layout::one_row: r = 0; break;
    case Layout::one_column: r = 1, c = 0; break;
  }
  const std::int64_t item = (rows > 0 && columns > 0) ? (rows - 1) * r + (columns - 1) * c + 1 : 0;
  m.view.dtype = dtype;
  m.view.rank = 3;
  const std::int64_t shape[] = {batch, rows, columns}, strides[] = {item + 2, r, c};
  std::copy(shape, shape + 3, m.view.shape);
  std::copy(strides, strides + 3, m.view.strides);
  const std::int64_t count = item == 0 || batch == 0 ? 0 : (batch - 1) * (item + 2) + item;
  m.bytes.assign(static_cast<std::size_t>(count * item_size(dtype)) + 1, 0xff);  // all bits set is NaN in every float dtype
  m.view.data = m.bytes.data();
  if (filled)
    for (std::int64_t z = 0; z < batch; ++z)
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) m.set(z, i, j, draw());
  return m;
}

double activate(MatrixActivation f, double x) {
  switch (f) {
    case MatrixActivation::relu: return x > 0 ? x : 0;
    case MatrixActivation::gelu_tanh: return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case MatrixActivation::gelu_erf: return 0.5 * x * (1 + std::erf(x * 0.7071067811865476));
    case MatrixActivation::silu: return x / (1 + std::exp(-x));
    default: return x;
  }
}

double epsilon(DType dtype) {
  return dtype == DType::f64 ? 0x1p-53 : dtype == DType::f32 ? 0x1p-24 : dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

struct Case {
  std::int64_t batch = 1, M = 1, N = 1, K = 1;
  Layout a = Layout::rows, b = Layout::columns, c = Layout::rows;
  DType ta = DType::f32, tb = DType::f32, tc = DType::f32;
  double alpha = 1, beta = 0;
  bool bias = false, shared = false, packed = false;
  MatrixActivation activation = MatrixActivation::none;
};

/// Largest error over its bound |err| <= (K + 4) eps |alpha| |A||B| + a few roundings of the end, over all of C.
double worst(const Case& t) {
  const Matrix a = make(t.batch, t.M, t.K, t.a, t.ta, true);
  Matrix b = make(t.shared ? 1 : t.batch, t.K, t.N, t.b, t.tb, true);
  Matrix c = make(t.batch, t.M, t.N, t.c, t.tc, t.beta != 0), bias = make(1, 1, t.N, Layout::general, t.tc, true);
  const Matrix old = [&] { Matrix copy = c; copy.view.data = copy.bytes.data(); return copy; }();
  GemmOptions o{.alpha = t.alpha, .beta = t.beta, .bias = {}, .activation = t.activation};
  if (t.bias) {
    o.bias = bias.view;
    o.bias.rank = 1;
    o.bias.shape[0] = t.N;
    o.bias.strides[0] = bias.view.strides[2];
  }
  Strided right = b.view;
  if (t.shared) {
    right.rank = 2;
    for (int i = 0; i < 2; ++i) right.shape[i] = b.view.shape[i + 1], right.strides[i] = b.view.strides[i + 1];
  }
  Weight weight(right);
  std::unique_ptr<unsigned char[]> panels;
  if (t.packed) {
    const auto bytes = static_cast<std::size_t>(cpu::packed_weight_bytes(right));
    panels = std::make_unique<unsigned char[]>(bytes + 64);
    auto at = reinterpret_cast<std::uintptr_t>(panels.get());
    at = (at + 63) / 64 * 64;
    cpu::pack_weight(reinterpret_cast<void*>(at), right);
    weight.format = Weight::Format::packed;
    weight.packed = reinterpret_cast<void*>(at);
    weight.dense.data = nullptr;
  }
  Context context;
  cpu::gemm(context, c.view, a.view, weight, o);
  const double sums = t.tc == DType::f64 ? 0x1p-53 : 0x1p-24;
  double most = 0;
  for (std::int64_t z = 0; z < t.batch; ++z)
    for (std::int64_t i = 0; i < t.M; ++i)
      for (std::int64_t j = 0; j < t.N; ++j) {
        double sum = 0, size = 0;
        for (std::int64_t k = 0; k < t.K; ++k) {
          const double x = a.get(z, i, k) * b.get(t.shared ? 0 : z, k, j);
          sum += x;
          size += std::fabs(x);
        }
        double value = t.alpha * sum;
        size *= std::fabs(t.alpha);
        if (t.beta != 0) value += t.beta * old.get(z, i, j), size += std::fabs(t.beta * old.get(z, i, j));
        if (t.bias) value += bias.get(0, 0, j), size += std::fabs(bias.get(0, 0, j));
        // Activations have slopes up to 1.13; their own error is below 1e-6 of their argument.
        const bool active = t.activation != MatrixActivation::none;
        const double bound = (static_cast<double>(t.K) + 4) * sums * size * (active ? 1.2 : 1.0) + (active && t.tc != DType::f64 ? 1e-6 * std::fabs(value) : 0);
        value = activate(t.activation, value);
        const double allowed = bound + epsilon(t.tc) * (std::fabs(value) + bound) + 1e-30 + (t.tc == DType::f16 ? 0x1p-25 : 0);
        const double error = std::fabs(c.get(z, i, j) - value) / allowed;
        most = std::isnan(error) ? 1e30 : std::max(most, error);
      }
  // What lies between the elements of C is still NaN.
  Matrix gaps = c;
  gaps.view.data = gaps.bytes.data();
  for (std::int64_t z = 0; z < t.batch; ++z)
    for (std::int64_t i = 0; i < t.M; ++i)
      for (std::int64_t j = 0; j < t.N; ++j) {
        const auto at = static_cast<std::size_t>((z * c.view.strides[0] + i * c.view.strides[1] + j * c.view.strides[2]) * item_size(t.tc));
        std::memset(gaps.bytes.data() + at, 0xff, static_cast<std::size_t>(item_size(t.tc)));
      }
  for (unsigned char byte : gaps.bytes)
    if (byte != 0xff) most = 2e30;
  return most;
}

template <class F>
void for_each_isa(F f) {
  for (const cpu::Isa set : cpu::supported_isas()) {
    const cpu::UseIsa use(set);
    INFO("instruction set ", std::string(cpu::isa_name(set)));
    f();
  }
}

void verify(const Case& t) {
  const double error = worst(t);
  if (error > 1)
    FAIL_CHECK("batch ", t.batch, " M ", t.M, " N ", t.N, " K ", t.K, " layouts ", static_cast<int>(t.a), " ", static_cast<int>(t.b), " ", static_cast<int>(t.c), " dtypes ",
               std::string(name_of(t.ta)), " ", std::string(name_of(t.tb)), " ", std::string(name_of(t.tc)), " alpha ", t.alpha, " beta ", t.beta, " error / bound ", error);
}

constexpr Layout kDense[] = {Layout::rows, Layout::columns};
constexpr Layout kAll[] = {Layout::rows, Layout::columns, Layout::sliced, Layout::turned_slice, Layout::general, Layout::one_row, Layout::one_column};

}  // namespace

TEST_CASE("sizes around the edges of the tiles, dense orientations") {
  for_each_isa([] {
    for (const std::int64_t M : {1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 17, 29, 33})
      for (const std::int64_t N : {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 49, 65})
        for (const std::int64_t K : {1, 2, 7, 16, 33})
          for (const Layout a : kDense)
            for (const Layout b : kDense) verify({.M = M, .N = N, .K = K, .a = a, .b = b});
  });
}

TEST_CASE("every size from 1 to 70 on each side") {
  for_each_isa([] {
    for (std::int64_t n = 1; n <= 70; ++n)
      for (const Layout a : kDense)
        for (const Layout b : kDense) {
          verify({.M = n, .N = 21, .K = 19, .a = a, .b = b});
          verify({.M = 18, .N = n, .K = 5, .a = a, .b = b});
          verify({.M = 20, .N = 23, .K = n, .a = a, .b = b});
        }
  });
}

TEST_CASE("all strides of all operands") {
  for_each_isa([] {
    for (const std::int64_t M : {3, 21})
      for (const std::int64_t N : {5, 37})
        for (const Layout a : kAll)
          for (const Layout b : kAll)
            for (const Layout c : kAll) {
              if (c == Layout::one_row || c == Layout::one_column) continue;  // an output does not overlap itself
              verify({.M = M, .N = N, .K = 18, .a = a, .b = b, .c = c});
            }
  });
}

TEST_CASE("float dtypes mix, and long sums wait in float") {
  constexpr DType types[] = {DType::f32, DType::bf16, DType::f16};
  for_each_isa([&] {
    for (const DType ta : types)
      for (const DType tb : types)
        for (const DType tc : types)
          for (const Layout b : {Layout::rows, Layout::turned_slice, Layout::general}) {
            verify({.M = 3, .N = 19, .K = 45, .b = b, .ta = ta, .tb = tb, .tc = tc, .beta = 0.5});
            verify({.M = 19, .N = 35, .K = 900, .b = b, .ta = ta, .tb = tb, .tc = tc, .bias = true});
          }
    for (const Layout a : kAll)
      for (const Layout b : kAll) verify({.M = 17, .N = 19, .K = 600, .a = a, .b = b, .ta = DType::f64, .tb = DType::f64, .tc = DType::f64, .alpha = 0.5, .beta = 2, .bias = true});
  });
}

TEST_CASE("scale, old C, bias and activation on every route") {
  struct Size { std::int64_t M, N, K; };
  for_each_isa([] {
    for (const Size s : {Size{20, 40, 30}, Size{20, 40, 800}, Size{3, 40, 30}, Size{2, 700, 9}, Size{40, 5, 30}, Size{40, 3, 800}})
      for (const Layout b : kDense)
        for (const Layout c : {Layout::rows, Layout::turned_slice, Layout::general})
          for (const double beta : {0.0, 1.0, -0.75})
            for (const bool bias : {false, true})
              for (const MatrixActivation f : {MatrixActivation::none, MatrixActivation::relu, MatrixActivation::gelu_tanh, MatrixActivation::gelu_erf, MatrixActivation::silu})
                verify({.M = s.M, .N = s.N, .K = s.K, .b = b, .c = c, .alpha = 1.5, .beta = beta, .bias = bias, .activation = f});
    for (const MatrixActivation f : {MatrixActivation::relu, MatrixActivation::gelu_tanh, MatrixActivation::gelu_erf, MatrixActivation::silu})
      verify({.M = 9, .N = 11, .K = 13, .ta = DType::f64, .tb = DType::f64, .tc = DType::f64, .bias = true, .activation = f});
  });
}

TEST_CASE("batches, with a shared right side as well") {
  for_each_isa([] {
    for (const bool shared : {false, true})
      for (const Layout a : {Layout::rows, Layout::columns, Layout::sliced})
        for (const Layout b : kDense) {
          verify({.batch = 3, .M = 4, .N = 9, .K = 21, .a = a, .b = b, .shared = shared});
          verify({.batch = 5, .M = 1, .N = 40, .K = 21, .a = a, .b = b, .shared = shared});
          verify({.batch = 2, .M = 33, .N = 40, .K = 70, .a = a, .b = b, .bias = true, .shared = shared});
          verify({.batch = 2, .M = 33, .N = 3, .K = 70, .a = a, .b = b, .tc = DType::bf16, .shared = shared});
        }
  });
}

TEST_CASE("skinny shapes of low-rank updates, tall products") {
  for_each_isa([] {
    for (const std::int64_t r : {1, 2, 4, 8, 16, 64})
      for (const Layout a : kDense)
        for (const Layout b : kDense) {
          verify({.M = 150, .N = r, .K = 77, .a = a, .b = b});
          verify({.M = 150, .N = 77, .K = r, .a = a, .b = b, .alpha = 2, .beta = 1});
          verify({.M = r, .N = 77, .K = 150, .a = a, .b = b, .beta = 1});
        }
    verify({.M = 1030, .N = 70, .K = 9});
    verify({.M = 600, .N = 300, .K = 20});
  });
}

TEST_CASE("nothing to sum, and nothing to write") {
  for_each_isa([] {
    verify({.M = 3, .N = 70, .K = 0});
    verify({.batch = 2, .M = 3, .N = 5, .K = 0, .beta = 2, .bias = true, .activation = MatrixActivation::silu});
    verify({.M = 3, .N = 5, .K = 0, .ta = DType::f64, .tb = DType::f64, .tc = DType::f64, .bias = true});
    verify({.M = 0, .N = 5, .K = 4});
    verify({.M = 5, .N = 0, .K = 4});
    verify({.batch = 0, .M = 5, .N = 3, .K = 4});
  });
}

TEST_CASE("a NaN reaches its row or column and no other") {
  for_each_isa([] {
    for (const std::int64_t M : {2, 20})
      for (const Layout b : kDense) {
        Matrix a = make(1, M, 40, Layout::rows, DType::f32, true), right = make(1, 40, 37, b, DType::f32, true), c = make(1, M, 37, Layout::rows, DType::f32, false);
        a.set(0, 1, 39, kNaN);
        right.set(0, 3, 36, INFINITY);
        Context context;
        cpu::gemm(context, c.view, a.view, Weight(right.view), {});
        for (std::int64_t i = 0; i < M; ++i)
          for (std::int64_t j = 0; j < 37; ++j) {
            if (i == 1) CHECK(std::isnan(c.get(0, i, j)));
            else CHECK(std::isfinite(c.get(0, i, j)) == (j != 36));
          }
      }
  });
}

TEST_CASE("the same bits for any number of threads") {
  struct Size { std::int64_t batch, M, N, K; };
  for_each_isa([] {
    for (const Size s : {Size{1, 300, 260, 500}, Size{1, 8, 900, 500}, Size{1, 600, 8, 300}, Size{1, 2, 1300, 40}, Size{3, 40, 50, 60}, Size{1, 1100, 40, 30}})
      for (const Layout b : kDense)
        for (const DType tc : {DType::f32, DType::bf16}) {
          const Matrix a = make(s.batch, s.M, s.K, Layout::rows, DType::f32, true), right = make(s.batch, s.K, s.N, b, DType::f32, true);
          std::vector<unsigned char> first;
          for (int count = 1; count <= 4; ++count) {
            Matrix c = make(s.batch, s.M, s.N, Layout::rows, tc, false);
            set_threads(count);
            Context context;
            cpu::gemm(context, c.view, a.view, Weight(right.view), {});
            set_threads(0);
            if (first.empty()) first = c.bytes;
            else CHECK(c.bytes == first);
          }
        }
  });
}

TEST_CASE("packed weights give the bits of the packed route over the dense weight") {
  for_each_isa([] {
    for (const std::int64_t N : {1, 17, 40, 70})
      for (const Layout b : kDense)
        for (const DType tb : {DType::f32, DType::bf16}) {
          verify({.M = 3, .N = N, .K = 30, .b = b, .tb = tb, .packed = true});
          verify({.batch = 2, .M = 21, .N = N, .K = 810, .b = b, .tb = tb, .tc = DType::bf16, .bias = true, .shared = true, .packed = true});
        }
    const Matrix a = make(1, 50, 500, Layout::rows, DType::f32, true), right = make(1, 500, 90, Layout::columns, DType::f32, true);
    Matrix dense = make(1, 50, 90, Layout::rows, DType::f32, false), packed = dense;
    packed.view.data = packed.bytes.data();
    std::vector<float> panels(static_cast<std::size_t>(cpu::packed_weight_bytes(right.view) / 4 + 16));
    float* at = panels.data() + (16 - reinterpret_cast<std::uintptr_t>(panels.data()) / 4 % 16) % 16;
    cpu::pack_weight(at, right.view);
    Weight weight(right.view);
    weight.format = Weight::Format::packed;
    weight.packed = at;
    Context context;
    cpu::gemm(context, dense.view, a.view, Weight(right.view), {});
    cpu::gemm(context, packed.view, a.view, weight, {});
    CHECK(dense.bytes == packed.bytes);
  });
}

TEST_CASE("the OpenBLAS route agrees, and passes on what it does not take") {
  cpu::set_gemm_route(cpu::GemmRoute::openblas);
  for (const Layout a : kAll)
    for (const Layout b : kAll) {
      verify({.batch = 2, .M = 20, .N = 33, .K = 40, .a = a, .b = b, .alpha = 2, .beta = 0.5, .bias = true, .activation = MatrixActivation::relu});
      verify({.M = 20, .N = 33, .K = 40, .a = a, .b = b, .c = Layout::turned_slice, .ta = DType::f64, .tb = DType::f64, .tc = DType::f64});
    }
  verify({.M = 20, .N = 33, .K = 40, .tb = DType::bf16});
  cpu::set_gemm_route(cpu::GemmRoute::own);
}
