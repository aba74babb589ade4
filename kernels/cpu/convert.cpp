// Rows of one element type to rows of another.
#include "kernels/cpu/convert.h"

#include <cstring>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/isa/elementwise.h"

namespace cambium::kernels::cpu {
namespace {

template <class T> inline constexpr bool is_half_v = std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

// Contiguous rows between float and the 16-bit types have instructions of their own.
template <class To, class From>
void convert_contiguous(To* to, const From* from, std::int64_t count) {
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(To));
  } else if constexpr (std::is_same_v<To, float> && is_half_v<From>) {
    const ElementwiseTable& table = *isa().elementwise;
    (std::is_same_v<From, bfloat16> ? table.bf16_to_float : table.f16_to_float)(to, reinterpret_cast<const std::uint16_t*>(from), count);
  } else if constexpr (is_half_v<To> && std::is_same_v<From, float>) {
    const ElementwiseTable& table = *isa().elementwise;
    (std::is_same_v<To, bfloat16> ? table.float_to_bf16 : table.float_to_f16)(reinterpret_cast<std::uint16_t*>(to), from, count);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = convert<To>(from[i]);
  }
}

template <class To, class From>
void convert_elements(void* to, std::int64_t to_stride, const void* from, std::int64_t from_stride, std::int64_t count) {
  To* t = static_cast<To*>(to);
  const From* f = static_cast<const From*>(from);
  if (to_stride == 1 && from_stride == 1) return convert_contiguous(t, f, count);
  if (from_stride == 0) {
    const To value = convert<To>(*f);
    for (std::int64_t i = 0; i < count; ++i) t[i * to_stride] = value;
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

}  // namespace cambium::kernels::cpu
