// The pointwise part of an LSTM cell (Hochreiter and Schmidhuber 1997, with forget gate) and its backward; gates in the order i, f, g, o.
#include "kernels/cuda/block.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// A matrix with dense rows; absent: no data.
template <class T>
struct Rows {
  T* data;
  std::int64_t step;
  explicit Rows(const Strided& s) : data(s.as<T>()), step(s.strides[0]) {}
  __device__ T* at(std::int64_t b, std::int64_t j) const { return data + b * step + j; }
};

__device__ __forceinline__ double sigmoid(double x) { return 1 / (1 + exp(-x)); }

// As on the CPU all is computed in double: the saturating functions cancel where gates are small, and recurrence adds it up.
template <class T>
__global__ void __launch_bounds__(kThreads)
    lstm_forward_kernel(Rows<T> hidden, Rows<T> cell, Rows<T> tanh_cell, Rows<T> gates, Rows<T> cell_previous, std::int64_t B, std::int64_t H) {
  for (std::int64_t i = grid_thread(); i < B * H; i += grid_threads()) {
    const std::int64_t b = i / H, j = i % H;
    const double in = sigmoid(convert_to<double>(*gates.at(b, j))), forget = sigmoid(convert_to<double>(*gates.at(b, H + j))),
                 candidate = tanh(convert_to<double>(*gates.at(b, 2 * H + j))), output = sigmoid(convert_to<double>(*gates.at(b, 3 * H + j)));
    const double next = forget * convert_to<double>(*cell_previous.at(b, j)) + in * candidate, squashed = tanh(next);
    store(gates.at(b, j), in);
    store(gates.at(b, H + j), forget);
    store(gates.at(b, 2 * H + j), candidate);
    store(gates.at(b, 3 * H + j), output);
    store(cell.at(b, j), next);
    store(tanh_cell.at(b, j), squashed);
    store(hidden.at(b, j), output * squashed);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    lstm_backward_kernel(Rows<T> dgates, Rows<T> dcell_previous, Rows<T> dhidden, Rows<T> dcell, Rows<T> gates, Rows<T> tanh_cell, Rows<T> cell_previous, std::int64_t B,
                         std::int64_t H) {
  for (std::int64_t i = grid_thread(); i < B * H; i += grid_threads()) {
    const std::int64_t b = i / H, j = i % H;
    const double in = convert_to<double>(*gates.at(b, j)), forget = convert_to<double>(*gates.at(b, H + j)), candidate = convert_to<double>(*gates.at(b, 2 * H + j)),
                 output = convert_to<double>(*gates.at(b, 3 * H + j)), squashed = convert_to<double>(*tanh_cell.at(b, j));
    const double dh = dhidden.data ? convert_to<double>(*dhidden.at(b, j)) : 0;
    const double dc = (dcell.data ? convert_to<double>(*dcell.at(b, j)) : 0) + dh * output * (1 - squashed * squashed);
    store(dgates.at(b, j), dc * candidate * in * (1 - in));
    store(dgates.at(b, H + j), dc * convert_to<double>(*cell_previous.at(b, j)) * forget * (1 - forget));
    store(dgates.at(b, 2 * H + j), dc * in * (1 - candidate * candidate));
    store(dgates.at(b, 3 * H + j), dh * squashed * output * (1 - output));
    store(dcell_previous.at(b, j), dc * forget);
  }
}

}  // namespace

void lstm_cell_forward(Context& context, Strided hidden, Strided cell, Strided tanh_cell, Strided gates, Strided cell_previous) {
  const std::int64_t B = gates.shape[0], H = gates.shape[1] / 4;
  if (B * H == 0) return;
  visit_float(gates.dtype, "lstm_cell", [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(KERNEL(lstm_forward_kernel<T>), grid_for(B * H, kThreads), kThreads, 0, stream_of(context), Rows<T>(hidden), Rows<T>(cell), Rows<T>(tanh_cell), Rows<T>(gates),
           Rows<T>(cell_previous), B, H);
  });
}

void lstm_cell_backward(Context& context, Strided dgates, Strided dcell_previous, Strided dhidden, Strided dcell, Strided gates, Strided tanh_cell, Strided cell_previous) {
  const std::int64_t B = gates.shape[0], H = gates.shape[1] / 4;
  if (B * H == 0) return;
  visit_float(gates.dtype, "lstm_cell_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(KERNEL(lstm_backward_kernel<T>), grid_for(B * H, kThreads), kThreads, 0, stream_of(context), Rows<T>(dgates), Rows<T>(dcell_previous), Rows<T>(dhidden), Rows<T>(dcell),
           Rows<T>(gates), Rows<T>(tanh_cell), Rows<T>(cell_previous), B, H);
  });
}

}  // namespace cambium::kernels::cuda
