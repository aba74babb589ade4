// Stable sorting of rows and the largest k of each row.
#include "kernels/cuda/sort.h"

#include "kernels/cuda/cuda.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::uint32_t kTile = 1024;  // entries sorted in shared memory
constexpr std::uint32_t kMerged = 4;   // entries that a thread merges

// Unsigned numbers in the order of the values.
__device__ __forceinline__ std::uint64_t rank_of(float value) {
  if (value != value) return 0xffffffffU;
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value + 0.0F);
  return (u >> 31) != 0 ? ~u : u | 0x80000000U;
}
__device__ __forceinline__ std::uint64_t rank_of(double value) {
  if (value != value) return ~std::uint64_t{0};
  const std::uint64_t u = std::bit_cast<std::uint64_t>(value + 0.0);
  return (u >> 63) != 0 ? ~u : u | std::uint64_t{1} << 63;
}

template <class Entry>
__device__ __forceinline__ Entry entry_of(const Keys& keys, std::int64_t base, std::uint32_t i) {
  constexpr bool kNarrow = std::is_same_v<Entry, NarrowEntry>;
  const std::uint64_t mask = keys.descending ? (kNarrow ? 0xffffffffU : ~std::uint64_t{0}) : 0;  // positions ascend in both orders
  const std::int64_t at = base + static_cast<std::int64_t>(i) * keys.step;
  std::uint64_t rank;
  if (keys.indices) rank = static_cast<std::uint64_t>(keys.x.load<std::int64_t>(at));
  else if constexpr (kNarrow) rank = is_float(keys.x.dtype) ? rank_of(keys.x.load<float>(at)) : static_cast<std::uint32_t>(keys.x.load<std::int32_t>(at)) ^ 0x80000000U;
  else rank = keys.x.dtype == DType::f64 ? rank_of(keys.x.load<double>(at)) : static_cast<std::uint64_t>(keys.x.load<std::int64_t>(at)) ^ std::uint64_t{1} << 63;
  return Entry::make(rank ^ mask, i);
}

// A block sorts a tile of a row by a bitonic network (Batcher 1968) and writes its first `keep` entries; `tile` is a power of two.
template <class Entry>
__global__ void __launch_bounds__(kThreads) sort_tiles_kernel(Keys keys, Entry* out, std::uint32_t n, std::uint32_t tiles, std::uint32_t tile, std::uint32_t keep) {
  KSHARED(entries, Entry[kTile]);
  const std::int64_t all = static_cast<std::int64_t>(keys.lines.count) * tiles;
  for (std::int64_t number = blockIdx.x; number < all; number += gridDim.x) {
    const std::uint32_t row = static_cast<std::uint32_t>(number / tiles), first = static_cast<std::uint32_t>(number % tiles) * tile;
    std::int32_t base[1];
    keys.lines.locate(row, base);
    for (std::uint32_t i = threadIdx.x; i < tile; i += kThreads) entries[i] = first + i < n ? entry_of<Entry>(keys, base[0], first + i) : Entry::nothing();
    __syncthreads();
    for (std::uint32_t size = 2; size <= tile; size *= 2) {
      for (std::uint32_t step = size / 2; step > 0; step /= 2) {
        for (std::uint32_t pair = threadIdx.x; pair < tile / 2; pair += kThreads) {
          const std::uint32_t low = 2 * pair - (pair & (step - 1)), high = low + step;
          const Entry a = entries[low], b = entries[high];
          if ((b < a) == ((low & size) == 0)) {
            entries[low] = b;
            entries[high] = a;
          }
        }
        __syncthreads();
      }
    }
    for (std::uint32_t i = threadIdx.x; i < keep; i += kThreads) out[number * keep + i] = entries[i];
    __syncthreads();
  }
}

// Merges neighbouring runs of `length` entries into runs of `keep`; each thread finds where its entries come from by bisection along a diagonal
// (Green, McColl and Bader 2012, "GPU merge path"). A row of `runs` runs becomes one of half as many.
template <class Entry>
__global__ void __launch_bounds__(kThreads)
    merge_runs_kernel(Entry* out, const Entry* in, std::int64_t rows, std::uint32_t runs, std::uint32_t length, std::uint32_t keep) {
  const std::uint32_t pairs = (runs + 1) / 2, pieces = (keep + kMerged - 1) / kMerged;
  const std::int64_t all = rows * pairs * pieces;
  for (std::int64_t item = grid_thread(); item < all; item += grid_threads()) {
    const std::uint32_t begin = static_cast<std::uint32_t>(item % pieces) * kMerged, pair = static_cast<std::uint32_t>(item / pieces % pairs);
    const std::int64_t row = item / pieces / pairs;
    const Entry* a = in + (row * runs + 2 * static_cast<std::int64_t>(pair)) * length;
    const Entry* b = a + length;
    const std::uint32_t a_length = length, b_length = 2 * pair + 1 < runs ? length : 0;
    std::uint32_t low = begin > b_length ? begin - b_length : 0, high = begin < a_length ? begin : a_length;
    if (low > high) low = high;  // behind the end of both
    while (low < high) {
      const std::uint32_t middle = (low + high) / 2;
      if (a[middle] < b[begin - 1 - middle]) low = middle + 1;
      else high = middle;
    }
    std::uint32_t i = low, j = begin - low;
    for (std::uint32_t k = begin; k < begin + kMerged && k < keep; ++k) {
      const bool from_a = i < a_length, from_b = j < b_length;
      Entry entry = Entry::nothing();
      if (from_a && (!from_b || a[i] < b[j])) entry = a[i++];
      else if (from_b) entry = b[j++];
      out[(row * pairs + pair) * keep + k] = entry;
    }
  }
}

template <class T, class Entry>
__global__ void __launch_bounds__(kThreads)
    write_sorted_kernel(T* values, std::int64_t* indices, const T* x, const Entry* sorted, std::int64_t n, std::int64_t take, std::int64_t count) {
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads()) {
    const std::uint32_t position = sorted[i].position();
    values[i] = x[i / take * n + position];
    indices[i] = position;
  }
}

// How the runs of a row shrink in number and grow in length, merge by merge.
struct Runs {
  std::int64_t count, length;
  Runs merged(std::int64_t take) const { return {(count + 1) / 2, std::min(take, 2 * length)}; }
};
Runs tiles_of(std::int64_t n, std::int64_t take) {
  const std::int64_t tile = std::min<std::int64_t>(kTile, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n))));
  return {ceil_div(n, tile), std::min(take, tile)};
}
// Entries of a row at most, over the merges that write into the same memory.
std::int64_t room(std::int64_t n, std::int64_t take, int parity) {
  std::int64_t most = 0;
  Runs runs = tiles_of(n, take);
  for (int step = 0;; ++step, runs = runs.merged(take)) {
    if (step % 2 == parity) most = std::max(most, runs.count * runs.length);
    if (runs.count == 1) return most;
  }
}

template <class Entry>
void sort_rows(Context& context, Strided values, Strided indices, Strided x, const Keys& keys) {
  const std::int64_t n = x.shape[1], take = values.shape[1];
  const SortedRows<Entry> sorted(context, keys, n, take);
  visit_size(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(KERNEL(write_sorted_kernel<T, Entry>), grid_for(values.count(), kThreads), kThreads, 0, stream_of(context), values.as<T>(), indices.as<std::int64_t>(),
           x.as<const T>(), sorted.data(), n, take, values.count());
  });
}

void sort_any(Context& context, Strided values, Strided indices, Strided x, bool descending) {
  const std::int64_t take = values.shape[1];
  if (values.count() == 0) return;
  check<ShapeError>(x.shape[1] < std::int64_t{1} << 32, "sort: rows of at most 2^32 - 1 elements, found ", x.shape[1]);
  // Parts of the rows: a Layout holds offsets below 2^31.
  const std::int64_t n = x.shape[1], most = std::max<std::int64_t>(1, ((std::int64_t{1} << 31) - 1) / n);
  for (std::int64_t first = 0; first < x.shape[0]; first += most) {
    const auto rows_of = [&](Strided s) {
      s.data = s.as<std::byte>() + first * s.strides[0] * item_size(s.dtype);
      s.shape[0] = std::min(most, s.shape[0] - first);
      return s;
    };
    values.strides[0] = indices.strides[0] = take;
    x.strides[0] = n;
    const Strided part = rows_of(x);
    Strided lines = part;
    lines.rank = 1;
    const Keys keys{Layout<1>({lines}), 1, Elements(part), false, descending};
    if (x.dtype == DType::f64 || x.dtype == DType::i64) sort_rows<WideEntry>(context, rows_of(values), rows_of(indices), part, keys);
    else sort_rows<NarrowEntry>(context, rows_of(values), rows_of(indices), part, keys);
  }
}

}  // namespace

template <class Entry>
SortedRows<Entry>::SortedRows(const Context& context, const Keys& keys, std::int64_t n, std::int64_t take)
    : first_(context, keys.lines.count * room(n, take, 0)), second_(context, keys.lines.count * room(n, take, 1)) {
  const std::int64_t rows = keys.lines.count;
  const cudaStream_t stream = stream_of(context);
  const std::uint32_t tile = static_cast<std::uint32_t>(std::min<std::int64_t>(kTile, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)))));
  Runs runs = tiles_of(n, take);
  Entry *from = first_.data(), *to = second_.data();
  launch(KERNEL(sort_tiles_kernel<Entry>), grid_for(rows * runs.count, 1), kThreads, 0, stream, keys, from, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(runs.count), tile,
         static_cast<std::uint32_t>(runs.length));
  while (runs.count > 1) {
    const Runs next = runs.merged(take);
    const std::int64_t items = rows * next.count * ceil_div<std::int64_t>(next.length, kMerged);
    launch(KERNEL(merge_runs_kernel<Entry>), grid_for(items, kThreads), kThreads, 0, stream, to, from, rows, static_cast<std::uint32_t>(runs.count),
           static_cast<std::uint32_t>(runs.length), static_cast<std::uint32_t>(next.length));
    std::swap(from, to);
    runs = next;
  }
  sorted_ = from;
}
template class SortedRows<NarrowEntry>;
template class SortedRows<WideEntry>;

void sort(Context& context, Strided values, Strided indices, Strided x, bool descending) { sort_any(context, values, indices, x, descending); }

void topk(Context& context, Strided values, Strided indices, Strided x) { sort_any(context, values, indices, x, true); }

}  // namespace cambium::kernels::cuda
