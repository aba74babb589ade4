// Binary pointwise functions, comparisons and where, for every element type and any strides.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"
#include "kernels/pointwise.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class Function, class T>
struct Join {
  __device__ T operator()(T a, T b) const { return convert_to<T>(Function::f(convert_to<acc_t<T>>(a), convert_to<acc_t<T>>(b))); }
};

template <class F>
__host__ __device__ __forceinline__ auto visit_function(BinaryFunction function, F&& f) {
  switch (function) {
#define CAMBIUM_ROW(name, float_value, integer_value) case BinaryFunction::name: return f(name##_function{});
    CAMBIUM_BINARY_FUNCTIONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  return f(add_function{});
}

template <class A>
__device__ __forceinline__ bool compare_values(Comparison comparison, A a, A b) {
  switch (comparison) {
#define CAMBIUM_ROW(name, value) case Comparison::name: return name##_comparison::f(a, b);
    CAMBIUM_COMPARISONS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  }
  return false;
}
template <class T>
struct Compare {
  Comparison comparison;
  __device__ bool operator()(T a, T b) const { return compare_values(comparison, convert_to<acc_t<T>>(a), convert_to<acc_t<T>>(b)); }
};

template <class T>
struct Choose {
  __device__ T operator()(bool condition, T a, T b) const { return condition ? a : b; }
};

// Any strides and element types; A is the type that is computed in.
template <class A>
__global__ void __launch_bounds__(kThreads) binary_strided_kernel(Layout<3> layout, BinaryFunction function, Elements out, Elements a, Elements b) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    const A x = a.load<A>(at[1]), y = b.load<A>(at[2]);
    out.store(at[0], visit_function(function, [&](auto f) { return decltype(f)::template f<A>(x, y); }));
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads) compare_strided_kernel(Layout<3> layout, Comparison comparison, Elements out, Elements a, Elements b) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    out.store(at[0], compare_values(comparison, a.load<A>(at[1]), b.load<A>(at[2])));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) where_strided_kernel(Layout<4> layout, T* out, const bool* condition, const T* a, const T* b) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[4];
    layout.locate(i, at);
    out[at[0]] = condition[at[1]] ? a[at[2]] : b[at[3]];
  }
}

// Sets the flag if an integer of b is one that the function has no value for: 0 for quotients, below 0 for exponents.
__global__ void __launch_bounds__(kThreads) refused_integers_kernel(Layout<1> layout, Elements b, bool negative, int* flag) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[1];
    layout.locate(i, at);
    const std::int64_t value = b.load<std::int64_t>(at[0]);
    if (negative ? value < 0 : value == 0) atomicExch(flag, 1);
  }
}

// Integer quotients and powers throw as on the CPU, so the host waits for the answer; nothing has been written then.
void refuse_integers(Context& context, BinaryFunction function, Strided b) {
  check<DTypeError>(function != BinaryFunction::atan2, "atan2: expected a floating type, found an integer tensor: convert it first");
  const bool power = function == BinaryFunction::pow;
  if (!power && function != BinaryFunction::div && function != BinaryFunction::remainder) return;
  const Scratch<int> flag(context, 1);
  const cudaStream_t stream = stream_of(context);
  check_call(cudaMemsetAsync(flag.data(), 0, sizeof(int), stream), "binary: integers");
  for_each_part<1>({b}, [&](const std::array<Strided, 1>& part) {
    const Layout<1> layout(part);
    launch(KERNEL(refused_integers_kernel), grid_for(layout.count, kThreads), kThreads, 0, stream, layout, Elements(part[0]), power, flag.data());
  });
  int found = 0;
  check_call(cudaMemcpyAsync(&found, flag.data(), sizeof(int), cudaMemcpyDeviceToHost, stream), "binary: integers");
  check_call(cudaStreamSynchronize(stream), "binary: integers");
  check<Error>(found == 0 || power, function == BinaryFunction::div ? "div" : "remainder", ": integer division by zero");
  check<Error>(found == 0, "pow: integer tensors take no negative exponent: convert to a floating type first");
}

template <class A>
void run_strided(Context& context, BinaryFunction function, const std::array<Strided, 3>& part) {
  const Layout<3> layout(part);
  launch(KERNEL(binary_strided_kernel<A>), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, function, Elements(part[0]), Elements(part[1]),
         Elements(part[2]));
}

}  // namespace

void binary(Context& context, BinaryFunction function, Strided out, Strided a, Strided b) {
  if (!is_float(a.dtype)) {
    refuse_integers(context, function, b);
    return for_each_part<3>({out, a, b}, [&](const std::array<Strided, 3>& part) { run_strided<std::int64_t>(context, function, part); });
  }
  visit_float(a.dtype, "binary", [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_part<3>({out, a, b}, [&](const std::array<Strided, 3>& part) {
      const bool done = out.dtype == a.dtype && b.dtype == a.dtype && visit_function(function, [&](auto f) {
        return map_part<T, T, T>(context, Join<decltype(f), T>{}, part);
      });
      if (!done) run_strided<acc_t<T>>(context, function, part);
    });
  });
}

void compare(Context& context, Comparison comparison, Strided out, Strided a, Strided b) {
  for_each_part<3>({out, a, b}, [&](const std::array<Strided, 3>& part) {
    if (is_float(a.dtype) && a.dtype == b.dtype && out.dtype == DType::boolean) {
      const bool done = visit_float(a.dtype, "compare", [&](auto tag) {
        using T = typename decltype(tag)::type;
        return map_part<bool, T, T>(context, Compare<T>{comparison}, part);
      });
      if (done) return;
    }
    const Layout<3> layout(part);
    visit_computed(a.dtype, [&](auto tag) {
      using A = typename decltype(tag)::type;
      launch(KERNEL(compare_strided_kernel<A>), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, comparison, Elements(part[0]), Elements(part[1]),
             Elements(part[2]));
    });
  });
}

void where(Context& context, Strided out, Strided condition, Strided a, Strided b) {
  visit_size(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_part<4>({out, condition, a, b}, [&](const std::array<Strided, 4>& part) {
      if (map_part<T, bool, T, T>(context, Choose<T>{}, part)) return;
      const Layout<4> layout(part);
      launch(KERNEL(where_strided_kernel<T>), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, part[0].as<T>(), part[1].as<const bool>(),
             part[2].as<const T>(), part[3].as<const T>());
    });
  });
}

}  // namespace cambium::kernels::cuda
