// Copies with conversion between element types, fills and ranges.
#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kTile = 32;

// A dimension of x that is contiguous where out's last one is not: the copy is a transpose of these two. -1: there is none.
int transposed_dimension(const Strided& out, const Strided& x) {
  if (out.dtype != x.dtype || out.stride(-1) != 1 || x.stride(-1) == 1 || out.size(-1) < 8) return -1;
  for (int i = 0; i + 1 < out.rank; ++i)
    if (x.strides[i] == 1 && x.shape[i] >= 8) return i;
  return -1;
}

// Tiles of both dimensions, so that reads and writes alike use whole cache lines.
template <class T>
void transpose_tile(T* out, std::int64_t out_step, const T* x, std::int64_t x_step, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) out[i * out_step + j] = x[i + j * x_step];
}

void copy_transposed(Strided out, Strided x, int dim) {
  const int last = out.rank - 1;
  const std::int64_t rows = out.shape[dim], columns = out.shape[last], out_step = out.strides[dim], x_step = x.strides[last];
  const std::int64_t row_tiles = (rows + kTile - 1) / kTile, column_tiles = (columns + kTile - 1) / kTile;
  out.shape[dim] = x.shape[dim] = out.shape[last] = x.shape[last] = 1;
  const auto run = [&]<class T>(TypeTag<T>) {
    parallel_ranges(out.count() * row_tiles * column_tiles, kGrain / (kTile * kTile), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t tile = begin; tile < end; ++tile) {
        const std::int64_t j = tile % column_tiles * kTile, i = tile / column_tiles % row_tiles * kTile, matrix = tile / column_tiles / row_tiles;
        transpose_tile(out.as<T>() + offset_of(out, matrix) + i * out_step + j, out_step, x.as<T>() + offset_of(x, matrix) + i + j * x_step,
                       x_step, std::min(kTile, rows - i), std::min(kTile, columns - j));
      }
    });
  };
  switch (item_size(out.dtype)) {
    case 8: return run(TypeTag<std::uint64_t>{});
    case 4: return run(TypeTag<std::uint32_t>{});
    case 2: return run(TypeTag<std::uint16_t>{});
    default: return run(TypeTag<std::uint8_t>{});
  }
}

}  // namespace

void copy(Context&, Strided out, Strided x) {
  if (out.count() == 0) return;
  Strided* operands[] = {&out, &x};
  order_dimensions(operands, 2);
  collapse(operands, 2);
  const int transposed = transposed_dimension(out, x);
  if (transposed >= 0) return copy_transposed(out, x, transposed);
  const ConvertRow convert = convert_row(out.dtype, x.dtype);
  for_each_row<2>({out, x}, [&](const auto& p, const auto& strides, std::int64_t count) {
    convert(p[0], strides[0], p[1], strides[1], count);
  });
}

void fill(Context&, Strided out, double value) {
  visit_all(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T element = convert<T>(value);
    for_each_row<1>({out}, [&](const auto& p, const auto& strides, std::int64_t count) {
      T* o = reinterpret_cast<T*>(p[0]);
      if (strides[0] == 1) std::fill_n(o, count, element);
      else for (std::int64_t i = 0; i < count; ++i) o[i * strides[0]] = element;
    });
  });
}

void arange(Context&, Strided out, double start, double step) {
  visit_all(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_ranges(out.count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) out.as<T>()[i] = convert<T>(start + static_cast<double>(i) * step);
    });
  });
}

}  // namespace cambium::kernels::cpu
