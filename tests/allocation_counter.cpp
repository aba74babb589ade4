// Replaces every operator new and delete by counting ones. Sizes are those that malloc really gave.
#include "tests/allocation_counter.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/device.h"

namespace {

std::atomic<std::size_t> live{0}, peak{0};

void* take(std::size_t bytes, std::size_t alignment) noexcept {
  void* pointer = nullptr;
  if (alignment <= alignof(std::max_align_t)) pointer = std::malloc(bytes ? bytes : 1);
  else if (posix_memalign(&pointer, alignment, bytes ? bytes : 1) != 0) pointer = nullptr;
  if (!pointer) return nullptr;
  const std::size_t now = live += malloc_usable_size(pointer);
  std::size_t highest = peak;
  while (now > highest && !peak.compare_exchange_weak(highest, now)) {
  }
  return pointer;
}

void* take_or_throw(std::size_t bytes, std::size_t alignment = 1) {
  void* pointer = take(bytes, alignment);
  if (!pointer) throw std::bad_alloc();
  return pointer;
}

void give_back(void* pointer) noexcept {
  if (!pointer) return;
  live -= malloc_usable_size(pointer);
  std::free(pointer);
}

}  // namespace

void* operator new(std::size_t n) { return take_or_throw(n); }
void* operator new[](std::size_t n) { return take_or_throw(n); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n, 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) { return take_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return take_or_throw(n, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }

namespace cambium::test {

AllocationPeak::AllocationPeak() : start_(live) {
  peak = start_;
  kernels::reset_peak({});
  device_start_ = static_cast<std::size_t>(kernels::memory_statistics({}).live_bytes);
}

std::size_t AllocationPeak::bytes() const {
  return peak - start_ + static_cast<std::size_t>(kernels::memory_statistics({}).peak_bytes) - device_start_;
}

}  // namespace cambium::test
