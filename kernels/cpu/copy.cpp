// Copies with conversion between element types, fills and ranges.
#include <cstring>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

template <class To, class From>
void convert_elements(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t count) {
  To* t = static_cast<To*>(to);
  const From* f = static_cast<const From*>(from);
  if constexpr (std::is_same_v<To, From>) {
    if (to_stride == 1 && from_stride == 1) {
      std::memcpy(t, f, static_cast<std::size_t>(count) * sizeof(To));
      return;
    }
  }
  if (to_stride == 1 && from_stride == 1) {
    for (std::int64_t i = 0; i < count; ++i) t[i] = convert<To>(f[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) t[i * to_stride] = convert<To>(f[i * from_stride]);
  }
}

}  // namespace

ConvertRow convert_row(DType to, DType from) {
  return visit_all(to, [&](auto to_tag) {
    return visit_all(from, [&](auto from_tag) -> ConvertRow {
      return &convert_elements<typename decltype(to_tag)::type, typename decltype(from_tag)::type>;
    });
  });
}

void copy(Context&, Strided out, Strided x) {
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
      for (std::int64_t i = 0; i < count; ++i) o[i * strides[0]] = element;
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
