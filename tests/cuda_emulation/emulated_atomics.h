// CUDA's atomic functions: real atomics of no memory order, so that a race checker sees them as CUDA means them.
#pragma once

namespace kemu {

/// Replaces *p by f(*p) and returns what was there.
template <class T, class F>
T exchange_with(T* p, F f) {
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  static_assert(sizeof(Bits) == sizeof(T));
  Bits* bits = reinterpret_cast<Bits*>(p);
  Bits before = __atomic_load_n(bits, __ATOMIC_RELAXED), after;
  T value;
  do {
    std::memcpy(static_cast<void*>(&value), &before, sizeof(T));
    const T next = f(value);
    std::memcpy(&after, &next, sizeof(T));
  } while (!__atomic_compare_exchange_n(bits, &before, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return value;
}

template <class T>
constexpr bool kAtomicInteger = std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

}  // namespace kemu

template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return ::kemu::exchange_with(p, [=](T o) { return __float2bfloat16(__bfloat162float(o) + __bfloat162float(v)); });
  else if constexpr (std::is_same_v<T, __half>) return ::kemu::exchange_with(p, [=](T o) { return __float2half(__half2float(o) + __half2float(v)); });
  else {
    static_assert(::kemu::kAtomicInteger<T> || std::is_floating_point_v<T>);
    return ::kemu::exchange_with(p, [=](T o) { return static_cast<T>(o + v); });
  }
}
template <class T> T atomicSub(T* p, std::type_identity_t<T> v) { static_assert(sizeof(T) == 4); return ::kemu::exchange_with(p, [=](T o) { return static_cast<T>(o - v); }); }
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) { static_assert(::kemu::kAtomicInteger<T>); return ::kemu::exchange_with(p, [=](T o) { return o < v ? v : o; }); }
template <class T> T atomicMin(T* p, std::type_identity_t<T> v) { static_assert(::kemu::kAtomicInteger<T>); return ::kemu::exchange_with(p, [=](T o) { return v < o ? v : o; }); }
template <class T> T atomicAnd(T* p, std::type_identity_t<T> v) { static_assert(::kemu::kAtomicInteger<T>); return ::kemu::exchange_with(p, [=](T o) { return static_cast<T>(o & v); }); }
template <class T> T atomicOr(T* p, std::type_identity_t<T> v) { static_assert(::kemu::kAtomicInteger<T>); return ::kemu::exchange_with(p, [=](T o) { return static_cast<T>(o | v); }); }
template <class T> T atomicXor(T* p, std::type_identity_t<T> v) { static_assert(::kemu::kAtomicInteger<T>); return ::kemu::exchange_with(p, [=](T o) { return static_cast<T>(o ^ v); }); }
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) { return ::kemu::exchange_with(p, [=](T) { return v; }); }
template <class T> T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return ::kemu::exchange_with(p, [=](T o) { return o == expected ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) { return ::kemu::exchange_with(p, [=](unsigned o) { return o >= limit ? 0U : o + 1; }); }
inline unsigned atomicDec(unsigned* p, unsigned limit) { return ::kemu::exchange_with(p, [=](unsigned o) { return o == 0 || o > limit ? limit : o - 1; }); }
