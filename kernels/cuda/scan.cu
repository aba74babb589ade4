// Positions of extrema along a dimension, and cumulative sums.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;  // values that a thread of a scan takes at once

// All lines of x along `dim`: x with that dimension of size 1.
Strided without(Strided x, int dim) {
  x.shape[dim] = 1;
  return x;
}

// Threads that share a line: one where neighbouring lines are neighbours in memory or lines are short, else a warp or a block.
int lanes_for(std::int64_t n, const Strided& lines, std::int64_t step) {
  if (n <= 8 || (std::abs(step) != 1 && lines.stride(-1) == 1 && lines.count() >= 256)) return 1;
  return n <= 1024 ? static_cast<int>(kWarp) : kThreads;
}

template <class A>
struct Best {
  A value;
  std::int64_t index;
};

// The better of two: NaN before all, then the greater (smaller) value, then the first position. An index below 0 is no candidate.
template <class A>
__device__ __forceinline__ Best<A> better(const Best<A>& a, const Best<A>& b, bool maximum) {
  if (b.index < 0) return a;
  if (a.index < 0) return b;
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan || b_nan) {
    if (a_nan && b_nan) return a.index < b.index ? a : b;
    return a_nan ? a : b;
  }
  if (a.value == b.value) return a.index < b.index ? a : b;
  return (maximum ? a.value > b.value : a.value < b.value) ? a : b;
}

template <class A>
__device__ __forceinline__ Best<A> warp_better(Best<A> best, bool maximum) {
  for (int step = 16; step > 0; step /= 2) {
    const Best<A> other{__shfl_xor_sync(kFullWarp, best.value, step), __shfl_xor_sync(kFullWarp, best.index, step)};
    best = better(best, other, maximum);
  }
  return best;
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    arg_reduce_kernel(Layout<2> lines, std::int64_t* out, Elements x, std::int64_t n, std::int64_t step, bool maximum, int lanes) {
  KSHARED(values, A[kThreads / kWarp]);
  KSHARED(indices, std::int64_t[kThreads / kWarp]);
  const std::uint32_t width = static_cast<std::uint32_t>(lanes), per_block = kThreads / width, lane = threadIdx.x % width;
  for (std::uint32_t number = blockIdx.x * per_block + threadIdx.x / width; number < lines.count; number += gridDim.x * per_block) {
    std::int32_t at[2];
    lines.locate(number, at);
    Best<A> best{A(0), -1};
    for (std::int64_t i = lane; i < n; i += width) best = better(best, Best<A>{x.load<A>(at[1] + i * step), i}, maximum);
    if (lanes > 1) best = warp_better(best, maximum);
    if (lanes > static_cast<int>(kWarp)) {
      const std::uint32_t warp = threadIdx.x / kWarp;
      if (threadIdx.x % kWarp == 0) {
        values[warp] = best.value;
        indices[warp] = best.index;
      }
      __syncthreads();
      for (std::uint32_t w = 0; w < kThreads / kWarp; ++w) best = better(best, Best<A>{values[w], indices[w]}, maximum);
      __syncthreads();
    }
    if (lane == 0) out[at[0]] = best.index;
  }
}

template <class A>
__device__ __forceinline__ A add(A a, A b) { return SumOf::join(a, b); }

// A block walks along a line, 1024 values at a time. x and out are at the first element in the order of adding.
template <class A>
__global__ void __launch_bounds__(kThreads)
    cumsum_kernel(Layout<2> lines, Elements out, Elements x, std::int64_t n, std::int64_t out_start, std::int64_t out_step, std::int64_t x_start, std::int64_t x_step) {
  KSHARED(parts, A[kThreads / kWarp]);
  const std::uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (std::uint32_t number = blockIdx.x; number < lines.count; number += gridDim.x) {
    std::int32_t at[2];
    lines.locate(number, at);
    A before = 0;  // the sum of all earlier rounds
    for (std::int64_t first = 0; first < n; first += kThreads * kPerThread) {
      const std::int64_t begin = first + static_cast<std::int64_t>(threadIdx.x) * kPerThread;
      A values[kPerThread];
      for (int j = 0; j < kPerThread; ++j) {
        const A value = begin + j < n ? x.load<A>(at[1] + x_start + (begin + j) * x_step) : A(0);
        values[j] = j == 0 ? value : add(values[j - 1], value);
      }
      A sum = values[kPerThread - 1];
      for (unsigned step = 1; step < kWarp; step *= 2) {
        const A lower = __shfl_up_sync(kFullWarp, sum, step);
        if (lane >= step) sum = add(lower, sum);
      }
      const A left = __shfl_up_sync(kFullWarp, sum, 1);
      if (lane == kWarp - 1) parts[warp] = sum;
      __syncthreads();
      A start = before;
      for (std::uint32_t w = 0; w < kThreads / kWarp; ++w) {
        if (w < warp) start = add(start, parts[w]);
        before = add(before, parts[w]);
      }
      if (lane > 0) start = add(start, left);
      for (int j = 0; j < kPerThread; ++j)
        if (begin + j < n) out.store(at[0] + out_start + (begin + j) * out_step, add(start, values[j]));
      __syncthreads();
    }
  }
}

// A thread a line, for lines that lie beside each other or are short.
template <class A>
__global__ void __launch_bounds__(kThreads)
    cumsum_columns_kernel(Layout<2> lines, Elements out, Elements x, std::int64_t n, std::int64_t out_start, std::int64_t out_step, std::int64_t x_start, std::int64_t x_step) {
  for (std::uint32_t number = grid_index(); number < lines.count; number += grid_step()) {
    std::int32_t at[2];
    lines.locate(number, at);
    A sum = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      sum = add(sum, x.load<A>(at[1] + x_start + i * x_step));
      out.store(at[0] + out_start + i * out_step, sum);
    }
  }
}

}  // namespace

void arg_reduce(Context& context, Reduction reduction, Strided out, Strided x, int dim) {
  const std::int64_t n = x.shape[dim], step = x.strides[dim];
  if (out.count() == 0 || n == 0) return;
  const bool maximum = reduction == Reduction::maximum;
  for_each_part<2>({out, without(x, dim)}, [&](const std::array<Strided, 2>& part) {
    const Layout<2> lines(part);
    const int lanes = lanes_for(n, part[1], step);
    visit_computed(x.dtype, [&](auto tag) {
      using A = typename decltype(tag)::type;
      launch(KERNEL(arg_reduce_kernel<A>), grid_for(lines.count, kThreads / lanes), kThreads, 0, stream_of(context), lines, part[0].as<std::int64_t>(), Elements(part[1]), n, step,
             maximum, lanes);
    });
  });
}

void cumsum(Context& context, Strided out, Strided x, int dim, bool reverse) {
  const std::int64_t n = x.shape[dim];
  if (x.count() == 0) return;
  const std::int64_t x_step = reverse ? -x.strides[dim] : x.strides[dim], out_step = reverse ? -out.strides[dim] : out.strides[dim];
  const std::int64_t x_start = reverse ? (n - 1) * x.strides[dim] : 0, out_start = reverse ? (n - 1) * out.strides[dim] : 0;
  for_each_part<2>({without(out, dim), without(x, dim)}, [&](const std::array<Strided, 2>& part) {
    const Layout<2> lines(part);
    const auto run = [&]<class A>(TypeTag<A>) {
      if (lanes_for(n, part[1], x_step) == 1)
        launch(KERNEL(cumsum_columns_kernel<A>), grid_for(lines.count, kThreads), kThreads, 0, stream_of(context), lines, Elements(part[0]), Elements(part[1]), n, out_start, out_step,
               x_start, x_step);
      else
        launch(KERNEL(cumsum_kernel<A>), grid_for(lines.count, 1), kThreads, 0, stream_of(context), lines, Elements(part[0]), Elements(part[1]), n, out_start, out_step, x_start, x_step);
    };
    // Long running sums lose digits: floats are added up in double.
    if (is_float(x.dtype)) run(TypeTag<double>{});
    else run(TypeTag<std::int64_t>{});
  });
}

}  // namespace cambium::kernels::cuda
