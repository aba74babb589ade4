// Kernels with planted bugs, each beside its right form, and the cases that run them.
#include "planted_kernels.h"

#include <cmath>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"

using cambium::kernels::cuda::as_vector;
using cambium::kernels::cuda::launch;
namespace ptx = cambium::kernels::cuda::ptx;

namespace planted {

namespace {

enum class Bug {
  none, missing_barrier, missing_second_barrier, barrier_after_exit, divergent_barrier, divergent_shuffle, past_static_array, past_dynamic_memory, uninitialised_shared,
  missing_output, past_global, missing_warp_sync, shuffle_as_barrier, missing_wait, never_waited, missing_atomic, missing_atomic_after_barrier, misaligned, trap
};

constexpr int kWarps = 3;

__device__ float warp_largest(float v) {
  for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(~0U, v, step));
  return v;
}
__device__ float warp_total(float v) {
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(~0U, v, step);
  return v;
}

/// Rows of x (gridDim.x, columns), one block each.
template <Bug bug>
__global__ void __launch_bounds__(32 * kWarps) softmax_kernel(const float* x, float* y, int columns) {
  KSHARED(partial, float[kWarps]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  x += static_cast<std::int64_t>(blockIdx.x) * columns;
  y += static_cast<std::int64_t>(blockIdx.x) * columns;
  float largest = -INFINITY;
  for (int c = thread; c < columns; c += 32 * kWarps) largest = fmaxf(largest, x[c]);
  if constexpr (bug == Bug::divergent_shuffle) {
    if (lane < 16) largest = warp_largest(largest);
  } else {
    largest = warp_largest(largest);
  }
  if (lane == 0) partial[bug == Bug::past_static_array ? warp + 1 : warp] = largest;
  if constexpr (bug == Bug::barrier_after_exit) {
    if (thread == 5) return;
  }
  if constexpr (bug == Bug::divergent_barrier) {
    if (warp == 1) __syncthreads();
    else __syncthreads();
  } else if constexpr (bug != Bug::missing_barrier) {
    __syncthreads();
  }
  largest = fmaxf(fmaxf(partial[0], partial[1]), partial[2]);
  if constexpr (bug != Bug::missing_second_barrier) __syncthreads();
  float total = 0;
  for (int c = thread; c < columns; c += 32 * kWarps) total += expf(x[c] - largest);
  total = warp_total(total);
  if (lane == 0) partial[warp] = total;
  __syncthreads();
  total = partial[0] + partial[1] + partial[2];
  if (bug == Bug::trap && thread == 7) __trap();
  for (int c = thread; c < columns; c += 32 * kWarps)
    if (bug != Bug::missing_output || c != columns - 1) y[c] = expf(x[c] - largest) / total;
  if (bug == Bug::past_global && blockIdx.x + 1 == gridDim.x && thread == 0) y[columns] = 1;
}

/// y[i] = sum of column i of x (rows, columns <= 64) by tiles of 16 rows.
template <Bug bug>
__global__ void __launch_bounds__(64) column_sums_kernel(const float* x, float* y, int rows, int columns) {
  KSHARED(tile, float[16][64]);
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int from = 0; from < rows; from += 16) {
    for (int e = thread; e < 16 * 64; e += 64) {
      const int r = e % 16, c = e / 16;
      const bool inside = from + r < rows && c < columns;
      if (inside) tile[r][c] = x[(from + r) * columns + c];
      else if (bug != Bug::uninitialised_shared) tile[r][c] = 0;
    }
    __syncthreads();
    for (int r = 0; r < 16; ++r) sum += tile[r][thread];
    if constexpr (bug != Bug::missing_barrier) __syncthreads();
  }
  if (thread < columns) y[thread] = sum;
}

/// counts[v] += how often v is in x; dynamic shared memory of `values` numbers.
template <Bug bug>
__global__ void __launch_bounds__(64) histogram_kernel(const int* x, int n, int* counts, int values) {
  KSHARED_DYN(own, int);
  const int thread = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * 128;
  for (int v = thread; v < values + (bug == Bug::past_dynamic_memory ? 1 : 0); v += 64) own[v] = 0;
  if constexpr (bug != Bug::missing_barrier) __syncthreads();
  for (int i = first + thread; i < first + 128 && i < n; i += 64) atomicAdd(&own[x[i]], 1);
  __syncthreads();
  for (int v = thread; v < values; v += 64) atomicAdd(&counts[v], own[v]);
}

/// y[i] = x[i rotated by one within its warp].
template <Bug bug>
__global__ void __launch_bounds__(64) rotate_kernel(const float* x, float* y) {
  KSHARED(s, float[64]);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32 * 32;
  s[thread] = x[thread];
  float nothing = 0;
  if constexpr (bug == Bug::shuffle_as_barrier) nothing = 0 * __shfl_xor_sync(~0U, x[thread], 1);
  else if constexpr (bug != Bug::missing_warp_sync) __syncwarp();
  y[thread] = s[warp + (thread + 1) % 32] + nothing;
}

/// C (16, 8) = A (16, K) B' (8, K) of bf16, double buffered; one warp loads A, another B, both multiply half of the depth.
template <Bug bug>
__global__ void __launch_bounds__(64) product_kernel(const std::uint16_t* a, const std::uint16_t* b, float* c, int depth) {
  KSHARED(sa, std::uint16_t[2][16][40]);
  KSHARED(sb, std::uint16_t[2][8][40]);
  KSHARED(half, float[32][4]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto load = [&](int buffer, int from) {
    for (int e = thread; e < 24 * 4; e += 64) {
      const int row = e / 4, column = e % 4 * 8;
      if (row < 16) ptx::cp_async<16>(&sa[buffer][row][column], a + row * depth + from + column);
      else ptx::cp_async<16>(&sb[buffer][row - 16][column], b + (row - 16) * depth + from + column);
    }
    ptx::cp_async_commit();
  };
  float sums[4] = {};
  load(0, 0);
  for (int from = 0; from < depth; from += 32) {
    const int buffer = from / 32 % 2;
    if (from + 32 < depth) {
      load(1 - buffer, from + 32);
      if constexpr (bug == Bug::missing_wait) ptx::cp_async_wait<2>();
      else ptx::cp_async_wait<1>();
    } else if constexpr (bug != Bug::never_waited) {
      ptx::cp_async_wait<0>();
    }
    if constexpr (bug != Bug::missing_barrier) __syncthreads();
    std::uint32_t fa[4], fb[2];
    ptx::ldmatrix_x4(fa, &sa[buffer][lane % 16][warp * 16 + lane / 16 * 8]);
    ptx::ldmatrix_x2(fb, &sb[buffer][lane % 8][warp * 16 + lane / 8 % 2 * 8]);
    ptx::mma_m16n8k16_bf16(sums, fa, fb);
    if constexpr (bug != Bug::missing_second_barrier) __syncthreads();
  }
  if (warp == 1)
    for (int i = 0; i < 4; ++i) half[lane][i] = sums[i];
  __syncthreads();
  if (warp == 0)
    for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i] + half[lane][i];
}

/// *out = sum of x, a number per block.
template <Bug bug>
__global__ void __launch_bounds__(64) total_kernel(const float* x, float* out) {
  if constexpr (bug == Bug::missing_atomic_after_barrier) __syncthreads();
  if (threadIdx.x != 33) return;
  if constexpr (bug == Bug::none) atomicAdd(out, x[blockIdx.x]);
  else *out += x[blockIdx.x];
}

/// The same with the last block adding up what all have left in memory.
__global__ void __launch_bounds__(64) last_block_kernel(const float* x, float* part, unsigned* count, float* out) {
  KSHARED(last, int);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = x[blockIdx.x];
    __threadfence();
    last = atomicAdd(count, 1U) == gridDim.x - 1;
  }
  __syncthreads();
  if (last == 0 || threadIdx.x != 0) return;
  __threadfence();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += part[i];
  *out = sum;
}

template <Bug bug>
__global__ void __launch_bounds__(32) vector_copy_kernel(const float* x, float* y) {
  const int at = static_cast<int>(threadIdx.x) * 4 + (bug == Bug::misaligned ? 1 : 0);
  *as_vector<float4>(y + at) = *as_vector<const float4>(x + at);
}

__global__ void __launch_bounds__(64) add_one_kernel(float* x) { x[threadIdx.x] += 1; }
__global__ void __launch_bounds__(64) spin_kernel(const int* flag) {
  while (__atomic_load_n(flag, __ATOMIC_RELAXED) != 1) {}
}

template <class T>
struct Array {  // device memory
  T* data = nullptr;
  std::size_t size;
  explicit Array(std::size_t n) : size(n) { cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(T)); }
  explicit Array(const std::vector<T>& values) : Array(values.size()) { cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(size);
    cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }
};

std::vector<float> numbers(std::size_t n) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = std::sin(static_cast<float>(i * i % 1000));
  return values;
}
bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance; }  // false for NaN

template <Bug bug>
bool softmax() {
  constexpr int rows = 4, columns = 200;
  const std::vector<float> x = numbers(rows * columns);
  const Array<float> dx(x), dy(x.size());
  launch(KERNEL(softmax_kernel<bug>), dim3(rows), dim3(32 * kWarps), 0, nullptr, dx.data, dy.data, columns);
  const std::vector<float> y = dy.host();
  for (std::size_t r = 0; r < rows; ++r) {
    double total = 0;
    for (std::size_t c = 0; c < columns; ++c) total += std::exp(static_cast<double>(x[r * columns + c]));
    for (std::size_t c = 0; c < columns; ++c)
      if (!close(static_cast<double>(y[r * columns + c]), std::exp(static_cast<double>(x[r * columns + c])) / total, 1e-7)) return false;
  }
  return true;
}

template <Bug bug>
bool column_sums() {
  constexpr int rows = 40, columns = 50;
  std::vector<float> x(rows * columns);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97);
  const Array<float> dx(x), dy(columns);
  launch(KERNEL(column_sums_kernel<bug>), dim3(1), dim3(64), 0, nullptr, dx.data, dy.data, rows, columns);
  const std::vector<float> y = dy.host();
  for (std::size_t c = 0; c < columns; ++c) {
    float sum = 0;
    for (std::size_t r = 0; r < rows; ++r) sum += x[r * columns + c];
    if (!(y[c] == sum)) return false;
  }
  return true;
}

template <Bug bug>
bool histogram() {
  constexpr int values = 70;
  std::vector<int> x(300), wanted(values, 0);
  for (std::size_t i = 0; i < x.size(); ++i) ++wanted[static_cast<std::size_t>(x[i] = static_cast<int>(i * 7 % values))];
  const Array<int> dx(x), counts(std::vector<int>(values, 0));
  launch(KERNEL(histogram_kernel<bug>), dim3(3), dim3(64), values * sizeof(int), nullptr, dx.data, 300, counts.data, values);
  return counts.host() == wanted;
}

template <Bug bug>
bool rotate() {
  const std::vector<float> x = numbers(64);
  const Array<float> dx(x), dy(64);
  launch(KERNEL(rotate_kernel<bug>), dim3(1), dim3(64), 0, nullptr, dx.data, dy.data);
  const std::vector<float> y = dy.host();
  for (std::size_t i = 0; i < 64; ++i)
    if (y[i] != x[i / 32 * 32 + (i + 1) % 32]) return false;
  return true;
}

template <Bug bug>
bool product() {
  constexpr int depth = 96;
  const auto whole = [](std::size_t n, int step) {  // small integers as bf16
    std::vector<std::uint16_t> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<std::uint16_t>(kemu::same_bits<std::uint32_t>(static_cast<float>(static_cast<int>(i) * step % 13 - 6)) >> 16);
    return v;
  };
  const auto number = [](std::uint16_t v) { return kemu::same_bits<float>(static_cast<std::uint32_t>(v) << 16); };
  const std::vector<std::uint16_t> a = whole(16 * depth, 5), b = whole(8 * depth, 3);
  const Array<std::uint16_t> da(a), db(b);
  const Array<float> dc(16 * 8);
  launch(KERNEL(product_kernel<bug>), dim3(1), dim3(64), 0, nullptr, da.data, db.data, dc.data, depth);
  const std::vector<float> c = dc.host();
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = 0;
      for (std::size_t k = 0; k < depth; ++k) sum += number(a[i * depth + k]) * number(b[j * depth + k]);
      if (!(c[i * 8 + j] == sum)) return false;
    }
  return true;
}

template <Bug bug>
bool total() {
  const Array<float> x(std::vector<float>(40, 2.0F)), out(std::vector<float>{0});
  launch(KERNEL(total_kernel<bug>), dim3(40), dim3(64), 0, nullptr, x.data, out.data);
  return out.host()[0] == 80;
}

bool last_block() {
  const Array<float> x(std::vector<float>(40, 2.0F)), part(40), out(1);
  const Array<unsigned> count(std::vector<unsigned>{0});
  launch(KERNEL(last_block_kernel), dim3(40), dim3(64), 0, nullptr, x.data, part.data, count.data, out.data);
  return out.host()[0] == 80;
}

template <Bug bug>
bool vector_copy() {
  const std::vector<float> x = numbers(132);
  const Array<float> dx(x), dy(std::vector<float>(132, 0.0F));
  launch(KERNEL(vector_copy_kernel<bug>), dim3(1), dim3(32), 0, nullptr, dx.data, dy.data);
  return dy.host()[7] == x[7];
}

bool shared_limit(bool ask) {
  const Array<int> x(std::vector<int>(8, 0)), counts(std::vector<int>(1, 0));
  const auto* function = reinterpret_cast<const void*>(&histogram_kernel<Bug::none>);
  if (ask && cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, 60 * 1024) != cudaSuccess) return false;
  kemu::launch(&histogram_kernel<Bug::none>, "histogram_kernel", dim3(1), dim3(64), 60 * 1024, nullptr, x.data, 8, counts.data, 1);
  return counts.host()[0] == 8;
}

struct Stream {
  cudaStream_t handle = nullptr;
  Stream() { cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking); }
  ~Stream() { cudaStreamDestroy(handle); }
};

bool read_back(bool wait) {
  const Stream s;
  float* pinned = nullptr;
  cudaMallocHost(reinterpret_cast<void**>(&pinned), 64 * sizeof(float));
  const Array<float> x(std::vector<float>(64, 1.0F));
  launch(KERNEL(add_one_kernel), dim3(1), dim3(64), 0, s.handle, x.data);
  cudaMemcpyAsync(pinned, x.data, 64 * sizeof(float), cudaMemcpyDeviceToHost, s.handle);
  if (wait) cudaStreamSynchronize(s.handle);
  const bool right = pinned[3] == 2;
  cudaFreeHost(pinned);
  return right;
}

bool two_streams(bool ordered) {
  const Stream producer, consumer;
  const Array<float> x(std::vector<float>(64, 1.0F)), y(64);
  cudaEvent_t event;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  launch(KERNEL(add_one_kernel), dim3(1), dim3(64), 0, producer.handle, x.data);
  cudaEventRecord(event, producer.handle);
  if (ordered) cudaStreamWaitEvent(consumer.handle, event, 0);
  cudaMemcpyAsync(y.data, x.data, 64 * sizeof(float), cudaMemcpyDeviceToDevice, consumer.handle);
  cudaDeviceSynchronize();
  cudaEventDestroy(event);
  return y.host()[3] == 2;
}

bool late_kernel() {
  const Stream s;
  float* x = nullptr;
  cudaMallocAsync(reinterpret_cast<void**>(&x), 64 * sizeof(float), s.handle);
  cudaFreeAsync(x, s.handle);
  launch(KERNEL(add_one_kernel), dim3(1), dim3(64), 0, s.handle, x);
  return cudaStreamSynchronize(s.handle) == cudaSuccess;
}

bool host_pointer() {
  std::vector<float> x(64, 1.0F);
  launch(KERNEL(add_one_kernel), dim3(1), dim3(64), 0, nullptr, x.data());
  return cudaDeviceSynchronize() == cudaSuccess;
}

bool host_reads_device() {
  const Array<float> x(std::vector<float>(64, 1.0F));
  return *const_cast<volatile float*>(x.data) == 1;
}

bool spin() {
  const Array<int> flag(std::vector<int>(1, 0));
  launch(KERNEL(spin_kernel), dim3(1), dim3(64), 0, nullptr, flag.data);
  return cudaDeviceSynchronize() == cudaSuccess;
}

bool double_free() {
  float* x = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&x), 64);
  cudaFree(x);
  return cudaFree(x) == cudaSuccess;
}

bool other_device() {
  const Array<float> x(std::vector<float>(64, 1.0F));
  cudaSetDevice(1);
  cudaStream_t s;
  cudaStreamCreate(&s);
  launch(KERNEL(add_one_kernel), dim3(1), dim3(64), 0, s, x.data);
  return true;
}

bool leak() {
  void* x = nullptr;
  cudaMalloc(&x, 1000);
  return true;
}

}  // namespace

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> all{
      {"right_softmax", softmax<Bug::none>},
      {"right_column_sums", column_sums<Bug::none>},
      {"right_histogram", histogram<Bug::none>},
      {"right_rotate", rotate<Bug::none>},
      {"right_product", product<Bug::none>},
      {"right_total", total<Bug::none>},
      {"right_last_block", last_block},
      {"right_vector_copy", vector_copy<Bug::none>},
      {"right_shared_limit", [] { return shared_limit(true); }},
      {"right_read_back", [] { return read_back(true); }},
      {"right_two_streams", [] { return two_streams(true); }},
      {"missing_barrier", softmax<Bug::missing_barrier>},
      {"missing_second_barrier", softmax<Bug::missing_second_barrier>},
      {"missing_barrier_in_loop", column_sums<Bug::missing_barrier>},
      {"missing_barrier_after_copy", product<Bug::missing_barrier>},
      {"missing_barrier_before_copy", product<Bug::missing_second_barrier>},
      {"missing_barrier_after_zeroing", histogram<Bug::missing_barrier>},
      {"missing_warp_sync", rotate<Bug::missing_warp_sync>},
      {"shuffle_as_barrier", rotate<Bug::shuffle_as_barrier>},
      {"missing_wait", product<Bug::missing_wait>},
      {"never_waited", product<Bug::never_waited>},
      {"past_static_array", softmax<Bug::past_static_array>},
      {"past_dynamic_memory", histogram<Bug::past_dynamic_memory>},
      {"uninitialised_shared", column_sums<Bug::uninitialised_shared>},
      {"missing_output", softmax<Bug::missing_output>},
      {"past_global", softmax<Bug::past_global>},
      {"misaligned", vector_copy<Bug::misaligned>},
      {"missing_atomic", total<Bug::missing_atomic>},
      {"missing_atomic_after_barrier", total<Bug::missing_atomic_after_barrier>},
      {"barrier_after_exit", softmax<Bug::barrier_after_exit>},
      {"divergent_barrier", softmax<Bug::divergent_barrier>},
      {"divergent_shuffle", softmax<Bug::divergent_shuffle>},
      {"trap", softmax<Bug::trap>},
      {"shared_limit", [] { return shared_limit(false); }},
      {"host_pointer", host_pointer},
      {"host_reads_device", host_reads_device},
      {"read_too_early", [] { return read_back(false); }},
      {"unordered_streams", [] { return two_streams(false); }},
      {"late_kernel", late_kernel},
      {"spin", spin},
      {"double_free", double_free},
      {"other_device", other_device},
      {"leak", leak},
  };
  return all;
}

}  // namespace planted
