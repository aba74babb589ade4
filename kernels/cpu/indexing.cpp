// Gather, scatter-add, selection of slices by index and its adjoint.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kAddedColumns = 256;  // of a task that adds rows, at most

// out[.., i, ..] = x[.., index[.., i, ..], ..] with the index of out's shape; where it stands still along a row, the row is one copy.
void gather_rows(const Strided& out, Strided x, const Strided& index, int dim) {
  const std::int64_t step = x.strides[dim];
  for (int i = 0; i < x.rank; ++i) x.shape[i] = out.shape[i];
  x.strides[dim] = 0;
  const auto run = [&]<class T>(TypeTag<T>) {
    visit_index(index.dtype, "gather", [&](auto tag) {
      using I = typename decltype(tag)::type;
      for_each_row<3>({out, x, index}, [&](const auto& p, const auto& s, std::int64_t count) {
        T* o = reinterpret_cast<T*>(p[0]);
        const T* from = reinterpret_cast<const T*>(p[1]);
        const I* at = reinterpret_cast<const I*>(p[2]);
        if (s[2] == 0) {
          from += static_cast<std::int64_t>(*at) * step;
          if (s[0] == 1 && s[1] == 1) std::memcpy(o, from, static_cast<std::size_t>(count) * sizeof(T));
          else for (std::int64_t i = 0; i < count; ++i) o[i * s[0]] = from[i * s[1]];
        } else {
          for (std::int64_t i = 0; i < count; ++i) o[i * s[0]] = from[i * s[1] + static_cast<std::int64_t>(at[i * s[2]]) * step];
        }
      });
    });
  };
  switch (item_size(out.dtype)) {
    case 8: return run(TypeTag<std::uint64_t>{});
    case 4: return run(TypeTag<std::uint32_t>{});
    case 2: return run(TypeTag<std::uint16_t>{});
    default: return run(TypeTag<std::uint8_t>{});
  }
}

template <class A>
A add(A a, A b) {
  if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  else return a + b;
}

}  // namespace

void gather(Context&, Strided out, Strided x, Strided index, int dim) { gather_rows(out, x, index, dim); }

void index_select(Context&, Strided out, Strided x, Strided index, int dim) {
  Strided expanded = out;
  expanded.data = index.data;
  expanded.dtype = index.dtype;
  for (int i = 0; i < out.rank; ++i) expanded.strides[i] = i == dim ? index.strides[0] : 0;
  gather_rows(out, x, expanded, dim);
}

void scatter_add(Context&, Strided out, Strided index, Strided source, int dim) {
  if (index.count() == 0) return;
  visit_all(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    visit_index(index.dtype, "scatter_add", [&](auto index_tag) {
      using I = typename decltype(index_tag)::type;
      const std::int64_t n = index.shape[dim];
      Strided lines = index;
      lines.shape[dim] = 1;
      Strided out_lines = lines, source_lines = lines;
      for (int i = 0; i < out.rank; ++i) {
        out_lines.strides[i] = out.strides[i];
        source_lines.strides[i] = source.strides[i];
      }
      parallel_ranges(lines.count(), std::max<std::int64_t>(1, kGrain / n), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t line = begin; line < end; ++line) {
          T* to = out.as<T>() + offset_of(out_lines, line);
          const T* from = source.as<T>() + offset_of(source_lines, line);
          const I* at = index.as<I>() + offset_of(lines, line);
          for (std::int64_t i = 0; i < n; ++i) {
            T& target = to[static_cast<std::int64_t>(at[i * index.strides[dim]]) * out.strides[dim]];
            target = convert<T>(add(convert<A>(target), convert<A>(from[i * source.strides[dim]])));
          }
        }
      });
    });
  });
}

// Slices of equal index are found by a stable sort and summed in the type that is computed in before they are rounded to out's: repeated tokens of
// a batch do not lose digits one by one. Tasks own columns, so that no two write to one place.
void index_add(Context&, Strided out, Strided index, Strided source, int dim) {
  const std::int64_t n = index.count();
  if (n == 0 || source.count() == 0) return;
  std::vector<std::int64_t> target(static_cast<std::size_t>(n)), order(static_cast<std::size_t>(n));
  convert_row(DType::i64, index.dtype)(target.data(), 1, index.data, index.strides[0], n);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) { return target[static_cast<std::size_t>(i)] < target[static_cast<std::size_t>(j)]; });

  const std::int64_t out_step = out.strides[dim], source_step = source.strides[dim];
  out.shape[dim] = source.shape[dim] = 1;
  Strided* operands[] = {&out, &source};
  order_dimensions(operands, 2);
  collapse(operands, 2);
  const std::int64_t width = out.size(-1), out_stride = out.stride(-1), source_stride = source.stride(-1);
  const std::int64_t columns = std::min(kAddedColumns, std::max<std::int64_t>(16, kGrain / n)), blocks = (width + columns - 1) / columns;
  out.rank = source.rank = out.rank - 1;
  visit_compute(out.dtype, [&](auto tag) {
    using A = typename decltype(tag)::type;
    const ConvertRow load_out = convert_row(dtype_of<A>, out.dtype), load = convert_row(dtype_of<A>, source.dtype),
                     store = convert_row(out.dtype, dtype_of<A>);
    const bool direct = source.dtype == dtype_of<A> && source_stride == 1;
    parallel_for(out.count() * blocks, [&](std::int64_t task) {
      const std::int64_t first = task % blocks * columns, count = std::min(columns, width - first);
      std::byte* to = static_cast<std::byte*>(out.data) + (offset_of(out, task / blocks) + first * out_stride) * item_size(out.dtype);
      const std::byte* from = static_cast<const std::byte*>(source.data) + (offset_of(source, task / blocks) + first * source_stride) * item_size(source.dtype);
      A sums[kAddedColumns], buffer[kAddedColumns];
      for (std::int64_t i = 0; i < n;) {
        const std::int64_t slice = target[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
        std::byte* row = to + slice * out_step * item_size(out.dtype);
        load_out(sums, 1, row, out_stride, count);
        for (; i < n; ++i) {
          const std::int64_t at = order[static_cast<std::size_t>(i)];
          if (target[static_cast<std::size_t>(at)] != slice) break;
          const A* values = reinterpret_cast<const A*>(from + at * source_step * item_size(source.dtype));
          if (!direct) {
            load(buffer, 1, values, source_stride, count);
            values = buffer;
          }
          for (std::int64_t j = 0; j < count; ++j) sums[j] = add(sums[j], values[j]);
        }
        store(row, out_stride, sums, 1, count);
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
