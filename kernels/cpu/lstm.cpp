// The pointwise part of an LSTM cell (Hochreiter and Schmidhuber 1997, with forget gate) and its backward; gates in the order i, f, g, o.
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

template <class T>
T* row(const Strided& s, std::int64_t b) { return s.as<T>() + b * s.strides[0]; }

constexpr std::int64_t kWork = 8;  // elements of memory-bound work that one cell takes as long as

}  // namespace

void lstm_cell_forward(Context&, Strided hidden, Strided cell, Strided tanh_cell, Strided gates, Strided cell_previous) {
  const std::int64_t B = gates.shape[0], H = gates.shape[1] / 4;
  visit_float(gates.dtype, "lstm_cell", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = double;  // the saturating functions cancel where gates are small, and recurrence adds it up; the matrix products around take far longer
    const auto sigmoid = [](A x) { return A(1) / (A(1) + std::exp(-x)); };
    parallel_ranges(B, rows_per_task(kWork * H), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        T *gate = row<T>(gates, b), *h = row<T>(hidden, b), *c = row<T>(cell, b), *tanh_c = row<T>(tanh_cell, b);
        const T* previous = row<T>(cell_previous, b);
        for (std::int64_t j = 0; j < H; ++j) {
          const A in = sigmoid(convert<A>(gate[j])), forget = sigmoid(convert<A>(gate[H + j])), candidate = std::tanh(convert<A>(gate[2 * H + j])),
                  output = sigmoid(convert<A>(gate[3 * H + j]));
          const A next = forget * convert<A>(previous[j]) + in * candidate, squashed = std::tanh(next);
          gate[j] = convert<T>(in);
          gate[H + j] = convert<T>(forget);
          gate[2 * H + j] = convert<T>(candidate);
          gate[3 * H + j] = convert<T>(output);
          c[j] = convert<T>(next);
          tanh_c[j] = convert<T>(squashed);
          h[j] = convert<T>(output * squashed);
        }
      }
    });
  });
}

void lstm_cell_backward(Context&, Strided dgates, Strided dcell_previous, Strided dhidden, Strided dcell, Strided gates, Strided tanh_cell,
                        Strided cell_previous) {
  const std::int64_t B = gates.shape[0], H = gates.shape[1] / 4;
  visit_float(gates.dtype, "lstm_cell_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = double;  // the saturating functions cancel where gates are small, and recurrence adds it up; the matrix products around take far longer
    parallel_ranges(B, rows_per_task(kWork * H), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        const T *gate = row<T>(gates, b), *tanh_c = row<T>(tanh_cell, b), *previous = row<T>(cell_previous, b);
        T *dgate = row<T>(dgates, b), *dprevious = row<T>(dcell_previous, b);
        for (std::int64_t j = 0; j < H; ++j) {
          const A in = convert<A>(gate[j]), forget = convert<A>(gate[H + j]), candidate = convert<A>(gate[2 * H + j]), output = convert<A>(gate[3 * H + j]);
          const A dh = dhidden ? convert<A>(row<T>(dhidden, b)[j]) : A(0), squashed = convert<A>(tanh_c[j]);
          const A dc = (dcell ? convert<A>(row<T>(dcell, b)[j]) : A(0)) + dh * output * (A(1) - squashed * squashed);
          dgate[j] = convert<T>(dc * candidate * in * (A(1) - in));
          dgate[H + j] = convert<T>(dc * convert<A>(previous[j]) * forget * (A(1) - forget));
          dgate[2 * H + j] = convert<T>(dc * in * (A(1) - candidate * candidate));
          dgate[3 * H + j] = convert<T>(dh * squashed * output * (A(1) - output));
          dprevious[j] = convert<T>(dc * forget);
        }
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
