// The CPU's caching allocator, names of devices, and the way to the backend of a device.
#include "kernels/backend.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#include <sys/mman.h>

namespace cambium {

Device parse_device(const std::string& text) {
  if (text == "cpu") return {};
  int index = 0;
  if (text != "cuda") {
    const char* end = text.data() + text.size();
    const bool numbered = text.starts_with("cuda:") && text.size() > 5 && text[5] != '-';
    const auto [last, error] = std::from_chars(text.data() + (numbered ? 5 : 0), end, index);
    check<DeviceError>(numbered && last == end && error == std::errc(), "device: expected cpu, cuda or cuda:N, found '", text, "'");
  }
  check<DeviceError>(kernels::cuda_backend() != nullptr, "device: '", text, "': this build has no CUDA backend: use cpu");
  const int found = device_count(DeviceType::cuda);
  check<DeviceError>(found > 0, "device: '", text, "': ", cuda_absence(), ": use cpu");
  check<DeviceError>(index < found, "device: '", text, "': expected one of the ", found, " devices cuda:0 to cuda:", found - 1, ", see cambium devices");
  return {DeviceType::cuda, index};
}

int device_count(DeviceType type) {
  if (type == DeviceType::cpu) return 1;
  const kernels::Backend* backend = kernels::cuda_backend();
  return backend != nullptr ? backend->count() : 0;
}

std::string cuda_absence() {
  const kernels::Backend* backend = kernels::cuda_backend();
  return backend != nullptr ? backend->absence() : "this build has no CUDA backend";
}

namespace kernels {
namespace {

// Sanitizers see every block on its own only when blocks are not reused.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCaching = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif
#else
constexpr bool kCaching = true;
#endif

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLarge = std::size_t{1} << 18;      // blocks from here on are cached
constexpr std::size_t kHugePage = std::size_t{1} << 21;

std::size_t rounded(std::size_t bytes) {
  // Large sizes are rounded to an eighth of their magnitude, so that a batch a little longer than the last finds its blocks again.
  if (bytes < kLarge) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::size_t step = kLarge / 8;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

struct MemoryPool {
  std::mutex mutex;
  std::multimap<std::size_t, void*> free_blocks;
  MemoryStatistics statistics;
};

MemoryPool& pool() {
  static MemoryPool* instance = new MemoryPool;  // never destroyed: tensors of static duration may outlive any order of destructors
  return *instance;
}

// Batches of ever new lengths would leave blocks of ever new sizes behind. Beyond half as much again as was ever in use at once (and 64 MiB), cached blocks go back,
// largest first, before a new one is made. Called with the pool locked.
void make_room(MemoryPool& p, std::size_t size) {
  const MemoryStatistics& s = p.statistics;
  const std::int64_t allowed = s.peak_bytes + s.peak_bytes / 2 + (std::int64_t{64} << 20);
  while (!p.free_blocks.empty() && s.live_bytes + s.cached_bytes + static_cast<std::int64_t>(size) > allowed) {
    const auto last = std::prev(p.free_blocks.end());
    std::free(last->second);
    p.statistics.cached_bytes -= static_cast<std::int64_t>(last->first);
    p.free_blocks.erase(last);
  }
}

void* system_allocate(std::size_t bytes) {
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block == nullptr) throw std::bad_alloc();
  if (bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
  return block;
}

/// The backend of a device that is not the CPU.
const Backend& backend_of(Device device, const char* what) {
  const Backend* backend = cuda_backend();
  check<DeviceError>(backend != nullptr, what, ": this build has no device ", device);
  const int found = backend->count();
  check<DeviceError>(device.index >= 0 && device.index < found, what, ": there is no device ", device, ", found ", found);
  return *backend;
}

void* allocate_host(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const std::size_t size = rounded(bytes);
  if (size < bytes) throw std::bad_alloc();
  MemoryPool& p = pool();
  void* block = nullptr;
  {
    std::lock_guard lock(p.mutex);
    if (kCaching && size >= kLarge) {
      auto found = p.free_blocks.lower_bound(size);
      if (found != p.free_blocks.end() && found->first == size) {
        block = found->second;
        p.statistics.cached_bytes -= static_cast<std::int64_t>(size);
        p.free_blocks.erase(found);
      } else {
        make_room(p, size);
      }
    }
    MemoryStatistics& s = p.statistics;
    ++s.live_blocks;
    ++s.total_allocations;
    s.live_bytes += static_cast<std::int64_t>(size);
    s.peak_bytes = std::max(s.peak_bytes, s.live_bytes);
  }
  if (block == nullptr) {
    try {
      block = system_allocate(kCaching ? size : bytes);
    } catch (...) {
      std::lock_guard lock(p.mutex);
      --p.statistics.live_blocks;
      p.statistics.live_bytes -= static_cast<std::int64_t>(size);
      throw;
    }
  }
  return block;
}

void deallocate_host(void* pointer, std::size_t bytes) noexcept {
  const std::size_t size = rounded(bytes);
  MemoryPool& p = pool();
  {
    std::lock_guard lock(p.mutex);
    --p.statistics.live_blocks;
    p.statistics.live_bytes -= static_cast<std::int64_t>(size);
    if (kCaching && size >= kLarge) {
      try {
        p.free_blocks.emplace(size, pointer);
        p.statistics.cached_bytes += static_cast<std::int64_t>(size);
        return;
      } catch (...) {  // no memory for the bookkeeping: give the block back instead
      }
    }
  }
  std::free(pointer);
}

}  // namespace

void* allocate(Device device, std::size_t bytes) {
  return device.type == DeviceType::cpu ? allocate_host(bytes) : backend_of(device, "allocate").allocate(device, bytes);
}

void deallocate(Device device, void* pointer, std::size_t bytes) noexcept {
  if (pointer == nullptr) return;
  if (device.type == DeviceType::cpu) deallocate_host(pointer, bytes);
  else cuda_backend()->deallocate(device, pointer, bytes);
}

void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  if (to.type == DeviceType::cpu && from.type == DeviceType::cpu) std::memcpy(destination, source, bytes);
  else backend_of(to.type == DeviceType::cpu ? from : to, "copy").copy(to, destination, from, source, bytes);
}

void synchronize(Device device) {
  if (device.type != DeviceType::cpu) backend_of(device, "synchronize").synchronize(device);
}

void release_cache(Device device) {
  if (device.type != DeviceType::cpu) return backend_of(device, "release_cache").release_cache(device);
  MemoryPool& p = pool();
  std::lock_guard lock(p.mutex);
  for (auto& [size, block] : p.free_blocks) std::free(block);
  p.free_blocks.clear();
  p.statistics.cached_bytes = 0;
}

void set_memory_limit(Device device, std::int64_t bytes) {
  check<DeviceError>(device.type != DeviceType::cpu, "set_memory_limit: the memory of the CPU has no limit of its own");
  check<ConfigError>(bytes >= 0, "set_memory_limit: expected bytes, or 0 for no limit, found ", bytes);
  backend_of(device, "set_memory_limit").set_memory_limit(device, bytes);
}

MemoryStatistics memory_statistics(Device device) {
  if (device.type != DeviceType::cpu) return backend_of(device, "memory_statistics").statistics(device);
  MemoryPool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.statistics;
}

void reset_peak(Device device) {
  if (device.type != DeviceType::cpu) return backend_of(device, "reset_peak").reset_peak(device);
  MemoryPool& p = pool();
  std::lock_guard lock(p.mutex);
  p.statistics.peak_bytes = p.statistics.live_bytes;
}

}  // namespace kernels

std::string describe_device(Device device) {
  if (device.type == DeviceType::cpu) return "cpu";
  return kernels::backend_of(device, "describe_device").description(device);
}

}  // namespace cambium
