// Gather, scatter-add, selection of slices by index and its adjoint.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"
#include "kernels/cuda/sort.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kManyLines = 2048;  // scatter_add: a thread a line keeps the device busy
constexpr std::int64_t kShortLine = 32;

// out = x at the place that the index names along the dimension whose stride in x is `step`.
template <class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(Layout<3> layout, T* out, const T* x, Elements index, std::int64_t step) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    out[at[0]] = x[at[1] + index.load<std::int64_t>(at[2]) * step];
  }
}

// The same in packs where the index stands still along rows.
template <class T>
__global__ void __launch_bounds__(kThreads) gather_rows_kernel(Layout<3> layout, RowCut cut, T* out, const T* x, Elements index, std::int64_t step) {
  constexpr int V = kPack<T>;
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[3];
    layout.locate(i, at);
    const int count = cut.pack_size<V>(i);
    put<V>(out + at[0], fetch<V>(x + at[1] + index.load<std::int64_t>(at[2]) * step, (cut.repeated & 2U) != 0, count), count);
  }
}

void gather_any(Context& context, const Strided& out, Strided x, const Strided& index, int dim) {
  const std::int64_t step = x.strides[dim];
  for (int i = 0; i < x.rank; ++i) x.shape[i] = out.shape[i];
  x.strides[dim] = 0;
  visit_size(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_part<3>({out, x, index}, [&](const std::array<Strided, 3>& part) {
      std::array<Strided, 3> rows = part;
      RowCut cut;
      const bool packs = cut_rows(rows, kPack<T>, cut) && (cut.repeated & 4U) != 0 && step % kPack<T> == 0;
      const Layout<3> layout(packs ? rows : part);
      const dim3 grid = grid_for(layout.count, kThreads);
      if (packs)
        launch(KERNEL(gather_rows_kernel<T>), grid, kThreads, 0, stream_of(context), layout, cut, part[0].as<T>(), part[1].as<const T>(), Elements(part[2]), step);
      else
        launch(KERNEL(gather_kernel<T>), grid, kThreads, 0, stream_of(context), layout, part[0].as<T>(), part[1].as<const T>(), Elements(part[2]), step);
    });
  });
}

template <class A>
__device__ __forceinline__ void add_to(const Elements& out, std::int64_t at, A value) { out.store(at, SumOf::join(out.load<A>(at), value)); }

// Steps of the three operands along the dimension that is indexed.
struct Steps {
  std::int64_t out, index, source;
};

// A thread a line: sums come in the order of the index, rounded to out's type each time.
template <class A>
__global__ void __launch_bounds__(kThreads) scatter_add_kernel(Layout<3> lines, Elements out, Elements index, Elements source, std::int64_t n, Steps steps) {
  for (std::uint32_t line = grid_index(); line < lines.count; line += grid_step()) {
    std::int32_t at[3];
    lines.locate(line, at);
    for (std::int64_t i = 0; i < n; ++i)
      add_to(out, at[0] + index.load<std::int64_t>(at[1] + i * steps.index) * steps.out, source.load<A>(at[2] + i * steps.source));
  }
}

// The same for few long lines: a thread takes all that goes to one place, which the sorted index has put side by side.
template <class A>
__global__ void __launch_bounds__(kThreads)
    scatter_add_sorted_kernel(Layout<3> lines, Elements out, Elements source, const NarrowEntry* sorted, std::int64_t n, Steps steps) {
  const std::int64_t all = static_cast<std::int64_t>(lines.count) * n;
  for (std::int64_t item = grid_thread(); item < all; item += grid_threads()) {
    const std::int64_t slot = item % n;
    const NarrowEntry* row = sorted + (item - slot);
    const std::uint64_t place = row[slot].key();
    if (slot > 0 && row[slot - 1].key() == place) continue;
    std::int32_t at[3];
    lines.locate(static_cast<std::uint32_t>(item / n), at);
    for (std::int64_t i = slot; i < n && row[i].key() == place; ++i)
      add_to(out, at[0] + static_cast<std::int64_t>(place) * steps.out, source.load<A>(at[2] + static_cast<std::int64_t>(row[i].position()) * steps.source));
  }
}

// Elements of a type known when the kernel is compiled, with the interface of Elements.
template <class T>
struct Typed {
  const T* data;
  template <class A>
  __device__ __forceinline__ A load(std::int64_t offset) const { return convert_to<A>(data[offset]); }
};

// A block takes up to 256 elements of all slices that go to one place, in the order of the index, and rounds their sum once. `slice`: out and source
// without the dimension that is indexed.
template <class A, class Source>
__global__ void __launch_bounds__(kThreads)
    index_add_kernel(Layout<2> slice, Elements out, Source source, const NarrowEntry* sorted, std::int64_t n, std::int64_t out_step, std::int64_t source_step) {
  const std::int64_t blocks = (slice.count + kThreads - 1) / kThreads;
  for (std::int64_t item = blockIdx.x; item < n * blocks; item += gridDim.x) {
    const std::int64_t slot = item / blocks;
    const std::uint64_t place = sorted[slot].key();
    const std::uint32_t i = static_cast<std::uint32_t>(item % blocks) * kThreads + threadIdx.x;
    if ((slot > 0 && sorted[slot - 1].key() == place) || i >= slice.count) continue;
    std::int32_t at[2];
    slice.locate(i, at);
    const std::int64_t to = at[0] + static_cast<std::int64_t>(place) * out_step;
    A sum = out.load<A>(to);
    std::int64_t k = slot;
    const auto value = [&](std::int64_t number) { return source.template load<A>(at[1] + static_cast<std::int64_t>(sorted[number].position()) * source_step); };
    for (; k + 4 <= n && sorted[k + 3].key() == place; k += 4) {  // four loads under way at a time
      const A a = value(k), b = value(k + 1), c = value(k + 2), d = value(k + 3);
      sum = SumOf::join(SumOf::join(SumOf::join(SumOf::join(sum, a), b), c), d);
    }
    for (; k < n && sorted[k].key() == place; ++k) sum = SumOf::join(sum, value(k));
    out.store(to, sum);
  }
}

Keys keys_of(const Strided& index, const Strided& lines, std::int64_t step) { return {Layout<1>({lines}), step, Elements(index), true, false}; }

}  // namespace

void gather(Context& context, Strided out, Strided x, Strided index, int dim) { gather_any(context, out, x, index, dim); }

void index_select(Context& context, Strided out, Strided x, Strided index, int dim) {
  Strided expanded = out;
  expanded.data = index.data;
  expanded.dtype = index.dtype;
  for (int i = 0; i < out.rank; ++i) expanded.strides[i] = i == dim ? index.strides[0] : 0;
  gather_any(context, out, x, expanded, dim);
}

void scatter_add(Context& context, Strided out, Strided index, Strided source, int dim) {
  if (index.count() == 0) return;
  const std::int64_t n = index.shape[dim];
  const Steps steps{out.strides[dim], index.strides[dim], source.strides[dim]};
  index.shape[dim] = 1;
  for (int i = 0; i < out.rank; ++i) out.shape[i] = source.shape[i] = index.shape[i];
  for_each_part<3>({out, index, source}, [&](const std::array<Strided, 3>& part) {
    const Layout<3> lines(part);
    visit_computed(out.dtype, [&](auto tag) {
      using A = typename decltype(tag)::type;
      if (lines.count >= kManyLines || n <= kShortLine) {
        launch(KERNEL(scatter_add_kernel<A>), grid_for(lines.count, kThreads), kThreads, 0, stream_of(context), lines, Elements(part[0]), Elements(part[1]), Elements(part[2]), n, steps);
      } else {
        const SortedRows<NarrowEntry> sorted(context, keys_of(part[1], part[1], steps.index), n, n);
        launch(KERNEL(scatter_add_sorted_kernel<A>), grid_for(lines.count * n, kThreads), kThreads, 0, stream_of(context), lines, Elements(part[0]), Elements(part[2]), sorted.data(), n,
               steps);
      }
    });
  });
}

void index_add(Context& context, Strided out, Strided index, Strided source, int dim) {
  const std::int64_t n = index.count(), out_step = out.strides[dim], source_step = source.strides[dim];
  if (n == 0 || source.count() == 0) return;
  Strided lines = index;
  lines.shape[0] = 1;
  const SortedRows<NarrowEntry> sorted(context, keys_of(index, lines, index.strides[0]), n, n);
  out.shape[dim] = source.shape[dim] = 1;
  for_each_part<2>({out, source}, [&](const std::array<Strided, 2>& part) {
    const Layout<2> slice(part);
    const auto run = [&]<class A, class Source>(TypeTag<A>, Source from) {
      launch(KERNEL(index_add_kernel<A, Source>), grid_for(n * ceil_div<std::int64_t>(slice.count, kThreads), 1), kThreads, 0, stream_of(context), slice, Elements(part[0]), from,
             sorted.data(), n, out_step, source_step);
    };
    if (is_float(out.dtype) && out.dtype == source.dtype) {
      visit_float(out.dtype, "index_add", [&](auto tag) {
        using T = typename decltype(tag)::type;
        run(TypeTag<acc_t<T>>{}, Typed<T>{part[1].as<const T>()});
      });
    } else {
      visit_computed(out.dtype, [&](auto tag) { run(tag, Elements(part[1])); });
    }
  });
}

}  // namespace cambium::kernels::cuda
