// Work over lists of tensors: sums of squares for gradient clipping, scaling, and counting of entries that are not finite.
#include "kernels/cuda/multi.h"

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"

namespace cambium::kernels::cuda {
namespace {

constexpr DType kFloatTypes[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

// One partial sum in double for each chunk, in the order of the call's tensors.
template <class T>
__global__ void __launch_bounds__(kListThreads) squares_kernel(TensorList<1> list, double* partial) {
  for (std::uint32_t chunk = blockIdx.x; chunk < list.chunks; chunk += gridDim.x) {
    const int k = list.find(chunk);
    const std::uint32_t local = chunk - list.first_chunk[k];
    const std::int64_t begin = local * kChunk, end = begin + kChunk < list.counts[k] ? begin + kChunk : list.counts[k];
    const T* x = static_cast<const T*>(list.operands[k][0]);
    double sum = 0;
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kListThreads) {
      const double value = convert_to<double>(x[i]);
      sum += value * value;
    }
    sum = block_sum<kListThreads>(sum);
    if (threadIdx.x == 0) partial[list.place[k] + local] = sum;
  }
}

// One block; each thread's stretch of partial sums, then a tree.
__global__ void __launch_bounds__(kListThreads) sum_partial_kernel(double* out, const double* partial, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kListThreads) sum += partial[i];
  sum = block_sum<kListThreads>(sum);
  if (threadIdx.x == 0) *out = sum;
}

template <class T>
__global__ void __launch_bounds__(kListThreads) scale_kernel(TensorList<1> list, acc_t<T> factor) {
  for (std::uint32_t chunk = blockIdx.x; chunk < list.chunks; chunk += gridDim.x) {
    const int k = list.find(chunk);
    const std::int64_t begin = (chunk - list.first_chunk[k]) * kChunk, end = begin + kChunk < list.counts[k] ? begin + kChunk : list.counts[k];
    T* x = static_cast<T*>(list.operands[k][0]);
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kListThreads) store(x + i, load(x + i) * factor);
  }
}

template <class T>
struct IsSpecial {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
  static constexpr Bits kExponent = static_cast<Bits>(sizeof(T) == 8               ? 0x7ff0000000000000U
                                                      : sizeof(T) == 4             ? 0x7f800000U
                                                      : std::is_same_v<T, float16> ? 0x7c00U
                                                                                   : 0x7f80U);
  __device__ static bool of(T value) { return (std::bit_cast<Bits>(value) & kExponent) == kExponent; }
};

// Whole numbers are added atomically: their order does not matter.
template <class T>
__global__ void __launch_bounds__(kListThreads) count_not_finite_kernel(Layout<1> layout, unsigned long long* out, const T* x) {
  std::int64_t found = 0;
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[1];
    layout.locate(i, at);
    found += IsSpecial<T>::of(x[at[0]]) ? 1 : 0;
  }
  found = block_sum<kListThreads>(found);
  if (threadIdx.x == 0 && found != 0) atomicAdd(out, static_cast<unsigned long long>(found));
}

}  // namespace

void sum_of_squares(Context& context, Strided out, const Strided* tensors, int n) {
  std::int64_t chunks = 0;
  for (int k = 0; k < n; ++k) chunks += chunks_of(tensors[k].count());
  const Scratch<double> partial(context, chunks);
  const cudaStream_t stream = stream_of(context);
  for (const DType dtype : kFloatTypes) {
    visit_float(dtype, "sum_of_squares", [&](auto tag) {
      using T = typename decltype(tag)::type;
      for_each_list<1>(n, [&](int k) { return tensors[k].dtype == dtype; }, [&](int k, int) { return tensors[k]; }, [&](const TensorList<1>& list) {
        launch(KERNEL(squares_kernel<T>), grid_for(list.chunks, 1), kListThreads, 0, stream, list, partial.data());
      });
    });
  }
  launch(KERNEL(sum_partial_kernel), 1, kListThreads, 0, stream, out.as<double>(), partial.data(), chunks);
}

void scale_all(Context& context, const Strided* tensors, int n, double factor) {
  for (const DType dtype : kFloatTypes) {
    visit_float(dtype, "scale_all", [&](auto tag) {
      using T = typename decltype(tag)::type;
      for_each_list<1>(n, [&](int k) { return tensors[k].dtype == dtype; }, [&](int k, int) { return tensors[k]; }, [&](const TensorList<1>& list) {
        launch(KERNEL(scale_kernel<T>), grid_for(list.chunks, 1), kListThreads, 0, stream_of(context), list, static_cast<acc_t<T>>(factor));
      });
    });
  }
}

void count_not_finite(Context& context, Strided out, Strided x) {
  check_call(cudaMemsetAsync(out.data, 0, sizeof(std::int64_t), stream_of(context)), "count_not_finite");
  if (!is_float(x.dtype)) return;
  visit_float(x.dtype, "count_not_finite", [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_part<1>({x}, [&](const std::array<Strided, 1>& part) {
      const Layout<1> layout(part);
      launch(KERNEL(count_not_finite_kernel<T>), grid_for(layout.count, kListThreads * 4), kListThreads, 0, stream_of(context), layout, out.as<unsigned long long>(), part[0].as<const T>());
    });
  });
}

}  // namespace cambium::kernels::cuda
