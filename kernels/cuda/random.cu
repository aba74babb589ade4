// Uniform and normal random numbers and dropout: the bits of the CPU, by kernels/philox.h.
#include "kernels/philox.h"

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = 4;  // of a counter: elements that a thread makes at a time

// A float takes the upper 24 bits of its word, a double all 32.
template <class A>
struct Uniform {
  A low, width;
  __device__ void operator()(const PhiloxWords& words, A (&values)[kWords]) const {
    for (int j = 0; j < kWords; ++j) {
      if constexpr (std::is_same_v<A, float>) values[j] = low + rounded_product(width, uniform_of(words.word[j]));
      else values[j] = low + rounded_product(width, static_cast<double>(words.word[j]) * 0x1p-32);
    }
  }
};

template <class A>
struct Normal {
  A mean, deviation;
  __device__ void operator()(const PhiloxWords& words, A (&values)[kWords]) const {
    for (int j = 0; j < kWords; j += 2) {
      float first, second;
      normal_pair_of(words.word[j], words.word[j + 1], first, second);
      values[j] = mean + rounded_product(deviation, static_cast<A>(first));
      values[j + 1] = mean + rounded_product(deviation, static_cast<A>(second));
    }
  }
};

template <class Make, class T>
__global__ void __launch_bounds__(kThreads) random_kernel(Make make, T* out, std::int64_t count, bool aligned, std::uint64_t seed, std::uint64_t offset) {
  for (std::int64_t block = grid_thread(); block * kWords < count; block += grid_threads()) {
    acc_t<T> values[kWords];
    make(philox(seed, offset, static_cast<std::uint64_t>(block)), values);
    Pack<T, kWords> pack;
    for (int j = 0; j < kWords; ++j) pack.element[j] = convert_to<T>(values[j]);
    const std::int64_t left = count - block * kWords;
    T* to = out + block * kWords;
    if (aligned) put<kWords>(to, pack, left < kWords ? static_cast<int>(left) : kWords);
    else for (int j = 0; j < kWords && j < left; ++j) to[j] = pack.element[j];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(T* out, const T* x, std::int64_t count, bool aligned, float p, acc_t<T> scale, std::uint64_t seed, std::uint64_t offset) {
  using A = acc_t<T>;
  for (std::int64_t block = grid_thread(); block * kWords < count; block += grid_threads()) {
    const PhiloxWords words = philox(seed, offset, static_cast<std::uint64_t>(block));
    const std::int64_t first = block * kWords, left = count - first;
    const int n = left < kWords ? static_cast<int>(left) : kWords;
    Pack<T, kWords> pack;
    if (aligned) pack = fetch<kWords>(x + first, false, n);
    else for (int j = 0; j < kWords; ++j) pack.element[j] = x[first + (j < n ? j : 0)];
    for (int j = 0; j < kWords; ++j) pack.element[j] = convert_to<T>(uniform_of(words.word[j]) >= p ? convert_to<A>(pack.element[j]) * scale : A(0));
    if (aligned) put<kWords>(out + first, pack, n);
    else for (int j = 0; j < n; ++j) out[first + j] = pack.element[j];
  }
}

template <template <class> class Make>
void fill_random(Context& context, Strided out, std::uint64_t seed, std::uint64_t offset, double first, double second, const char* what) {
  const std::int64_t count = out.count();
  if (count == 0) return;
  visit_float(out.dtype, what, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    launch(KERNEL(random_kernel<Make<A>, T>), grid_for(ceil_div<std::int64_t>(count, kWords), kThreads), kThreads, 0, stream_of(context),
           Make<A>{static_cast<A>(first), static_cast<A>(second)}, out.as<T>(), count, packable<T>(out.data, 0, kWords), seed, offset);
  });
}

}  // namespace

void random_uniform(Context& context, Strided out, std::uint64_t seed, std::uint64_t offset, double low, double high) {
  fill_random<Uniform>(context, out, seed, offset, low, high - low, "random_uniform");
}

void random_normal(Context& context, Strided out, std::uint64_t seed, std::uint64_t offset, double mean, double deviation) {
  fill_random<Normal>(context, out, seed, offset, mean, deviation, "random_normal");
}

void dropout(Context& context, Strided out, Strided x, double p, std::uint64_t seed, std::uint64_t offset) {
  const std::int64_t count = x.count();
  if (count == 0) return;
  visit_float(x.dtype, "dropout", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const A scale = p < 1 ? static_cast<A>(1 / (1 - p)) : A(0);
    launch(KERNEL(dropout_kernel<T>), grid_for(ceil_div<std::int64_t>(count, kWords), kThreads), kThreads, 0, stream_of(context), out.as<T>(), x.as<const T>(), count,
           packable<T>(out.data, 0, kWords) && packable<T>(x.data, 0, kWords), static_cast<float>(p), scale, seed, offset);
  });
}

}  // namespace cambium::kernels::cuda
