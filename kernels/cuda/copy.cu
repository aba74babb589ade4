// Copies with conversion between element types, fills and ranges.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32, kTileRows = 8;

template <class To, class From>
struct Convert {
  __device__ To operator()(From x) const { return convert_to<To>(x); }
};

__global__ void __launch_bounds__(kThreads) copy_strided_kernel(Layout<2> layout, Elements out, Elements x) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[2];
    layout.locate(i, at);
    visit_element(x.dtype, [&](auto tag) { out.store(at[0], x.load<typename decltype(tag)::type>(at[1])); });
  }
}

// A dimension of x that is contiguous where out's last one is not: the copy is a transpose of these two. -1: there is none.
int transposed_dimension(const Strided& out, const Strided& x) {
  if (out.dtype != x.dtype || out.stride(-1) != 1 || x.stride(-1) == 1 || out.size(-1) < 8) return -1;
  for (int i = 0; i + 1 < out.rank; ++i)
    if (x.strides[i] == 1 && x.shape[i] >= 8) return i;
  return -1;
}

struct Transpose {
  std::uint32_t rows, columns;  // of out; `rows` are contiguous in x
  std::int32_t out_step, x_step;
  Divisor row_tiles, column_tiles;
};

// Tiles of both dimensions go through shared memory, so that reads and writes alike are of neighbouring elements. `matrices` are the other dimensions.
template <class T>
__global__ void __launch_bounds__(kTile * kTileRows) copy_transposed_kernel(Layout<2> matrices, Transpose plan, T* out, const T* x, std::uint32_t tiles) {
  KSHARED(tile, T[kTile][kTile + 1]);
  const std::uint32_t lane = threadIdx.x % kTile, line = threadIdx.x / kTile;
  for (std::uint32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    const std::uint32_t above = plan.column_tiles.quotient(number), matrix = plan.row_tiles.quotient(above);
    const std::uint32_t column = (number - above * plan.column_tiles.value) * kTile, row = (above - matrix * plan.row_tiles.value) * kTile;
    std::int32_t at[2];
    matrices.locate(matrix, at);
    for (std::uint32_t j = line; j < kTile; j += kTileRows)
      if (row + lane < plan.rows && column + j < plan.columns)
        tile[j][lane] = x[at[1] + static_cast<std::int32_t>(row + lane) + static_cast<std::int32_t>(column + j) * plan.x_step];
    __syncthreads();
    for (std::uint32_t i = line; i < kTile; i += kTileRows)
      if (row + i < plan.rows && column + lane < plan.columns)
        out[at[0] + static_cast<std::int32_t>(row + i) * plan.out_step + static_cast<std::int32_t>(column + lane)] = tile[lane][i];
    __syncthreads();
  }
}

void copy_transposed(Context& context, Strided out, Strided x, int dim) {
  const int last = out.rank - 1;
  const std::int64_t rows = out.shape[dim], columns = out.shape[last];
  const std::int64_t row_tiles = ceil_div<std::int64_t>(rows, kTile), column_tiles = ceil_div<std::int64_t>(columns, kTile);
  const Transpose plan{static_cast<std::uint32_t>(rows), static_cast<std::uint32_t>(columns), static_cast<std::int32_t>(out.strides[dim]),
                       static_cast<std::int32_t>(x.strides[last]), Divisor(static_cast<std::uint32_t>(row_tiles)), Divisor(static_cast<std::uint32_t>(column_tiles))};
  out.shape[dim] = x.shape[dim] = out.shape[last] = x.shape[last] = 1;
  const std::int64_t tiles = out.count() * row_tiles * column_tiles;
  visit_size(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(KERNEL(copy_transposed_kernel<T>), grid_for(tiles, 1), kTile * kTileRows, 0, stream_of(context), Layout<2>({out, x}), plan, out.as<T>(), x.as<const T>(),
           static_cast<std::uint32_t>(tiles));
  });
}

bool copy_packs(Context& context, const std::array<Strided, 2>& part) {
  const DType to = part[0].dtype, from = part[1].dtype;
  if (to == from) {
    return visit_size(to, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return map_part<T, T>(context, Convert<T, T>{}, part);
    });
  }
  if (!is_float(to) || !is_float(from)) return false;
  return visit_float(to, "copy", [&](auto to_tag) {
    return visit_float(from, "copy", [&](auto from_tag) {
      using To = typename decltype(to_tag)::type;
      using From = typename decltype(from_tag)::type;
      if constexpr (std::is_same_v<To, From>) return false;
      else return map_part<To, From>(context, Convert<To, From>{}, part);
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(Layout<1> layout, RowCut cut, T* out, T value) {
  constexpr int V = kPack<T>;
  Pack<T, V> pack;
  for (int j = 0; j < V; ++j) pack.element[j] = value;
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[1];
    layout.locate(i, at);
    put<V>(out + at[0], pack, cut.pack_size<V>(i));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_strided_kernel(Layout<1> layout, T* out, T value) {
  for (std::uint32_t i = grid_index(); i < layout.count; i += grid_step()) {
    std::int32_t at[1];
    layout.locate(i, at);
    out[at[0]] = value;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) arange_kernel(T* out, std::int64_t count, double start, double step) {
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads()) store(out + i, start + rounded_product(static_cast<double>(i), step));
}

}  // namespace

void copy(Context& context, Strided out, Strided x) {
  for_each_part<2>({out, x}, [&](const std::array<Strided, 2>& part) {
    if (copy_packs(context, part)) return;
    const int transposed = transposed_dimension(part[0], part[1]);
    if (transposed >= 0) return copy_transposed(context, part[0], part[1], transposed);
    const Layout<2> layout(part);
    launch(KERNEL(copy_strided_kernel), grid_for(layout.count, kThreads), kThreads, 0, stream_of(context), layout, Elements(part[0]), Elements(part[1]));
  });
}

void fill(Context& context, Strided out, double value) {
  visit_all(out.dtype, [&](auto element_tag) {
    using E = typename decltype(element_tag)::type;
    const E element = convert<E>(value);
    visit_size(out.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      if constexpr (sizeof(T) == sizeof(E)) {
        const T bits = std::bit_cast<T>(element);
        for_each_part<1>({out}, [&](std::array<Strided, 1> part) {
          RowCut cut;
          const bool packs = cut_rows(part, kPack<T>, cut);
          const Layout<1> layout(part);
          const dim3 grid = grid_for(layout.count, kThreads);
          if (packs) launch(KERNEL(fill_kernel<T>), grid, kThreads, 0, stream_of(context), layout, cut, part[0].as<T>(), bits);
          else launch(KERNEL(fill_strided_kernel<T>), grid, kThreads, 0, stream_of(context), layout, part[0].as<T>(), bits);
        });
      }
    });
  });
}

void arange(Context& context, Strided out, double start, double step) {
  if (out.count() == 0) return;
  visit_all(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(KERNEL(arange_kernel<T>), grid_for(out.count(), kThreads), kThreads, 0, stream_of(context), out.as<T>(), out.count(), start, step);
  });
}

}  // namespace cambium::kernels::cuda
