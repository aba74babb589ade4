// Matrix products with few columns (x Aᵀ of LoRA, gradients of A and B) and with short sums (· Bᵀ): limited by memory, operands of any float types.
// Multiply-adds are written out, so that the emulator rounds as seldom as the device: gradients of few terms cancel.
#include <algorithm>

#include "kernels/cuda/gemm_finish.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kDepth = 32;    // terms of the sums in shared memory at a time
constexpr int kPerThread = 4;  // rows, of two columns each

/// `Columns` is N rounded up to 8, 16 or 32; the fewer, the more rows a block has. blockIdx.x: rows, y: piece of the sums, z: item of the batch.
/// With `partial` the sums of a piece go to plane y of it, else C is finished.
template <int Columns>
__global__ void __launch_bounds__(kThreads) few_columns_kernel(MatrixProduct p, std::int64_t piece, float* partial) {
  constexpr int column_groups = Columns / 2, rows = kThreads / column_groups * kPerThread;
  KSHARED(a_tile, float[kDepth][rows + 1]);
  KSHARED(b_tile, float[kDepth][Columns + 1]);
  const int thread = static_cast<int>(threadIdx.x), column = thread % column_groups * 2, row = thread / column_groups * kPerThread;
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * rows, item = blockIdx.z;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * piece, end = begin + piece < p.K ? begin + piece : p.K;
  const bool a_along_k = p.a.column == 1, b_along_k = p.b.row == 1;  // neighbouring threads read neighbouring elements
  float sums[kPerThread][2] = {};
  for (std::int64_t from = begin; from < end; from += kDepth) {
    for (int e = thread; e < kDepth * rows; e += kThreads) {
      const int k = a_along_k ? e % kDepth : e / rows, i = a_along_k ? e / kDepth : e % rows;
      const bool inside = from + k < end && first_row + i < p.M;
      a_tile[k][i] = inside ? load_element<float>(p.a.data, p.a.dtype, item * p.a.item + (first_row + i) * p.a.row + (from + k) * p.a.column) : 0.0F;
    }
    for (int e = thread; e < kDepth * Columns; e += kThreads) {
      const int k = b_along_k ? e % kDepth : e / Columns, j = b_along_k ? e / kDepth : e % Columns;
      const bool inside = from + k < end && j < p.N;
      b_tile[k][j] = inside ? load_element<float>(p.b.data, p.b.dtype, item * p.b.item + (from + k) * p.b.row + j * p.b.column) : 0.0F;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kDepth; ++k) {
      const float b0 = b_tile[k][column], b1 = b_tile[k][column + 1];
      for (int i = 0; i < kPerThread; ++i) {
        const float a = a_tile[k][row + i];
        sums[i][0] = __fmaf_rn(a, b0, sums[i][0]);
        sums[i][1] = __fmaf_rn(a, b1, sums[i][1]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kPerThread; ++i)
    for (int c = 0; c < 2; ++c) {
      const std::int64_t m = first_row + row + i, n = column + c;
      if (m >= p.M || n >= p.N) continue;
      if (partial != nullptr) partial[((static_cast<std::int64_t>(blockIdx.y) * p.batch + item) * p.M + m) * p.N + n] = sums[i][c];
      else finish_element<float>(p, item, m, n, sums[i][c]);
    }
}

constexpr int kShortRows = 32, kShortColumns = 2 * kThreads;

/// `Terms` is K rounded up to 8, 16 or 32. A thread keeps two columns of B in registers and goes down the rows. blockIdx.x: columns, y: rows, z: item.
template <int Terms>
__global__ void __launch_bounds__(kThreads) short_sums_kernel(MatrixProduct p) {
  KSHARED(a_tile, float[kShortRows][Terms]);
  const int thread = static_cast<int>(threadIdx.x), terms = static_cast<int>(p.K);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kShortRows, item = blockIdx.z;
  for (int e = thread; e < kShortRows * Terms; e += kThreads) {
    const int k = e % Terms, i = e / Terms;
    const bool inside = k < terms && first_row + i < p.M;
    a_tile[i][k] = inside ? load_element<float>(p.a.data, p.a.dtype, item * p.a.item + (first_row + i) * p.a.row + k * p.a.column) : 0.0F;
  }
  float b[2][Terms];
  std::int64_t columns[2];
  for (int c = 0; c < 2; ++c) {
    columns[c] = static_cast<std::int64_t>(blockIdx.x) * kShortColumns + c * kThreads + thread;
#pragma unroll
    for (int k = 0; k < Terms; ++k)
      b[c][k] = k < terms && columns[c] < p.N ? load_element<float>(p.b.data, p.b.dtype, item * p.b.item + k * p.b.row + columns[c] * p.b.column) : 0.0F;
  }
  __syncthreads();
  for (int i = 0; i < kShortRows && first_row + i < p.M; ++i) {
    float sums[2] = {0.0F, 0.0F};
#pragma unroll
    for (int k = 0; k < Terms; ++k) {
      const float a = a_tile[i][k];
      sums[0] = __fmaf_rn(a, b[0][k], sums[0]);
      sums[1] = __fmaf_rn(a, b[1][k], sums[1]);
    }
    for (int c = 0; c < 2; ++c)
      if (columns[c] < p.N) finish_element<float>(p, item, first_row + i, columns[c], sums[c]);
  }
}

constexpr std::int64_t kMostItems = 65535;  // of a grid's z

std::int64_t ceiling(std::int64_t count, std::int64_t of) { return (count + of - 1) / of; }

/// Batches beyond what a grid takes are cut.
template <class F>
void each_batch(MatrixProduct p, F&& run) {
  const std::int64_t all = p.batch;
  const auto step = [](MatrixOperand& x) { x.data = static_cast<const char*>(x.data) + kMostItems * x.item * item_size(x.dtype); };
  for (std::int64_t done = 0; done < all; done += kMostItems) {
    p.batch = std::min(kMostItems, all - done);
    run(p);
    step(p.a), step(p.b), step(p.c);
  }
}

template <int Columns>
void run_few_columns(Context& context, const MatrixProduct& p) {
  constexpr int rows = kThreads / (Columns / 2) * kPerThread;
  const std::int64_t row_blocks = ceiling(p.M, rows);
  // Pieces of long sums occupy a device that few rows would leave idle; their number follows from the shape alone.
  const std::int64_t wanted = ceiling(256, row_blocks * p.batch), most = std::clamp<std::int64_t>(p.K / 256, 1, 64);
  const std::int64_t piece = ceiling(ceiling(p.K, std::min(wanted, most)), kDepth) * kDepth;
  const auto pieces = static_cast<unsigned>(ceiling(p.K, piece));
  const Scratch<float> partial(context, pieces > 1 ? pieces * p.batch * p.M * p.N : 0);
  launch(KERNEL(few_columns_kernel<Columns>), dim3(static_cast<unsigned>(row_blocks), pieces, static_cast<unsigned>(p.batch)), dim3(kThreads), 0, stream_of(context), p, piece, partial.data());
  if (pieces > 1) finish_product(context, p, partial.data(), static_cast<int>(pieces));
}

template <int Terms>
void run_short_sums(Context& context, const MatrixProduct& whole) {
  // A grid has at most 65,535 blocks in y: taller products are cut.
  const std::int64_t most = kMostItems * kShortRows;
  MatrixProduct p = whole;
  for (std::int64_t done = 0; done < whole.M; done += most) {
    p.M = std::min(most, whole.M - done);
    launch(KERNEL(short_sums_kernel<Terms>), dim3(static_cast<unsigned>(ceiling(p.N, kShortColumns)), static_cast<unsigned>(ceiling(p.M, kShortRows)), static_cast<unsigned>(p.batch)),
           dim3(kThreads), 0, stream_of(context), p);
    p.a.data = static_cast<const char*>(p.a.data) + most * p.a.row * item_size(p.a.dtype);
    p.c.data = static_cast<const char*>(p.c.data) + most * p.c.row * item_size(p.c.dtype);
    if (p.bias != nullptr && p.bias_by_row) p.bias = static_cast<const char*>(p.bias) + most * p.bias_stride * item_size(p.bias_dtype);
  }
}

}  // namespace

void multiply_few_columns(Context& context, const MatrixProduct& product) {
  each_batch(product, [&](const MatrixProduct& p) {
    if (p.N <= 8) run_few_columns<8>(context, p);
    else if (p.N <= 16) run_few_columns<16>(context, p);
    else run_few_columns<32>(context, p);
  });
}

void multiply_short_sums(Context& context, const MatrixProduct& product) {
  each_batch(product, [&](const MatrixProduct& p) {
    if (p.K <= 8) run_short_sums<8>(context, p);
    else if (p.K <= 16) run_short_sums<16>(context, p);
    else run_short_sums<32>(context, p);
  });
}

}  // namespace cambium::kernels::cuda
