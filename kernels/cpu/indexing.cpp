// Gather, scatter-add, selection of slices by index and its adjoint.
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {

void gather(Context&, Strided out, Strided x, Strided index, int dim) {
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    visit_index(index.dtype, "gather", [&](auto index_tag) {
      using I = typename decltype(index_tag)::type;
      Strided base = x;  // x's strides over out's shape, standing still along dim
      for (int i = 0; i < x.rank; ++i) base.shape[i] = out.shape[i];
      const std::int64_t step = base.strides[dim];
      base.strides[dim] = 0;
      for_each_row<3>({out, base, index}, [&](const auto& p, const auto& s, std::int64_t count) {
        T* o = reinterpret_cast<T*>(p[0]);
        const T* from = reinterpret_cast<const T*>(p[1]);
        const I* at = reinterpret_cast<const I*>(p[2]);
        for (std::int64_t i = 0; i < count; ++i) o[i * s[0]] = from[i * s[1] + static_cast<std::int64_t>(at[i * s[2]]) * step];
      });
    });
  });
}

void scatter_add(Context&, Strided out, Strided index, Strided source, int dim) {
  visit_all(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    visit_index(index.dtype, "scatter_add", [&](auto index_tag) {
      using I = typename decltype(index_tag)::type;
      Strided lines = index;
      lines.shape[dim] = 1;
      Strided out_lines = lines, source_lines = lines;
      for (int i = 0; i < out.rank; ++i) {
        out_lines.strides[i] = out.strides[i];
        source_lines.strides[i] = source.strides[i];
      }
      parallel_for(lines.count(), [&](std::int64_t line) {
        T* to = out.as<T>() + offset_of(out_lines, line);
        const T* from = source.as<T>() + offset_of(source_lines, line);
        const I* at = index.as<I>() + offset_of(lines, line);
        for (std::int64_t i = 0; i < index.shape[dim]; ++i) {
          T& target = to[static_cast<std::int64_t>(at[i * index.strides[dim]]) * out.strides[dim]];
          target = convert<T>(convert<A>(target) + convert<A>(from[i * source.strides[dim]]));
        }
      });
    });
  });
}

void index_select(Context& context, Strided out, Strided x, Strided index, int dim) {
  visit_index(index.dtype, "index_select", [&](auto index_tag) {
    using I = typename decltype(index_tag)::type;
    for (std::int64_t i = 0; i < index.count(); ++i) {
      const auto at = static_cast<std::int64_t>(index.as<I>()[i * index.strides[0]]);
      Strided to = out, from = x;
      to.data = static_cast<std::byte*>(out.data) + i * out.strides[dim] * item_size(out.dtype);
      from.data = static_cast<std::byte*>(x.data) + at * x.strides[dim] * item_size(x.dtype);
      to.shape[dim] = from.shape[dim] = 1;
      copy(context, to, from);
    }
  });
}

void index_add(Context& context, Strided out, Strided index, Strided source, int dim) {
  visit_index(index.dtype, "index_add", [&](auto index_tag) {
    using I = typename decltype(index_tag)::type;
    for (std::int64_t i = 0; i < index.count(); ++i) {
      const auto at = static_cast<std::int64_t>(index.as<I>()[i * index.strides[0]]);
      Strided to = out, from = source;
      to.data = static_cast<std::byte*>(out.data) + at * out.strides[dim] * item_size(out.dtype);
      from.data = static_cast<std::byte*>(source.data) + i * source.strides[dim] * item_size(source.dtype);
      to.shape[dim] = from.shape[dim] = 1;
      binary(context, BinaryFunction::add, to, to, from);
    }
  });
}

}  // namespace cambium::kernels::cpu
