// Device memory and pinned host memory: every allocation by itself, filled with NaN, with canaries and guard pages around it.
// Under sanitizers a block of the heap of exactly its size instead, so that they see its bounds, and that nobody frees it.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>

#include "internal.h"
#include "watchdog.h"

namespace kemu {

namespace {

constexpr bool kHeap = KEMU_ADDRESS_SANITIZER || KEMU_THREAD_SANITIZER;
constexpr std::size_t kPage = 4096, kAlignment = 256, kKeptMaps = 256;

struct Allocation {
  std::size_t size = 0;
  int device = 0;
  char* map = nullptr;  // with a guard page at both ends; the data ends at the upper one but for what its alignment needs
  std::size_t map_size = 0;
};

std::map<std::uintptr_t, Allocation>& allocations() {
  static auto* map = new std::map<std::uintptr_t, Allocation>;
  return *map;
}
std::map<std::uintptr_t, std::size_t>& pinned() {
  static auto* map = new std::map<std::uintptr_t, std::size_t>;
  return *map;
}
std::deque<std::pair<char*, std::size_t>> freed;  // stay inaccessible for a while, so that late accesses fault
std::map<int, std::size_t> used;

// Keys of the maps. LeakSanitizer must not take them for pointers that keep a block alive: the highest bit, which no address has, hides them and keeps their order.
constexpr std::uintptr_t kHidden = kHeap ? std::uintptr_t{1} << 63 : 0;
std::uintptr_t number(const void* p) { return reinterpret_cast<std::uintptr_t>(p) ^ kHidden; }

template <class Map>
auto find_block(Map& map, const void* p) {
  auto at = map.upper_bound(number(p));
  return at == map.begin() ? map.end() : --at;
}

const char* damage(const void* address, const Allocation& a) {
  if (kHeap) return nullptr;
  const auto* data = static_cast<const unsigned char*>(address);
  const auto* end = reinterpret_cast<const unsigned char*>(a.map + a.map_size - kPage);
  const auto* begin = data - std::min<std::size_t>(static_cast<std::size_t>(data - reinterpret_cast<const unsigned char*>(a.map + kPage)), 256);
  for (const auto* q = data + a.size; q < end; ++q)
    if (*q != kCanary) return "past the end";
  for (const auto* q = begin; q < data; ++q)
    if (*q != kCanary) return "before the start";
  return nullptr;
}

void protect_all(bool visible) {
  for (const auto& [address, a] : allocations()) mprotect(a.map + kPage, a.map_size - 2 * kPage, visible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

int visitors = 0;

cudaError_t allocate(void** result, std::size_t size) {
  explain_faults();
  *result = nullptr;
  if (size == 0) return cudaSuccess;
  const int device = current_device();
  // Asking for too much is an error of this call alone: callers free something and try again.
  if (size > settings().memory || used[device] > settings().memory - size) return cudaErrorMemoryAllocation;
  Allocation a{size, device, nullptr, 0};
  if (kHeap) {
    if (posix_memalign(result, kAlignment, size) != 0) return cudaErrorMemoryAllocation;
  } else {
    const std::size_t body = (size + kAlignment - 1) / kAlignment * kAlignment, pages = (body + kPage - 1) / kPage * kPage;
    a.map_size = pages + 2 * kPage;
    void* map = mmap(nullptr, a.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return cudaErrorMemoryAllocation;
    a.map = static_cast<char*>(map);
    mprotect(a.map + kPage, pages, PROT_READ | PROT_WRITE);
    char* data = a.map + kPage + pages - body;
    std::memset(a.map + kPage, kCanary, pages - body);
    std::memset(data + size, kCanary, body - size);
    *result = data;
  }
  std::memset(*result, kPoison, size);
  allocations()[number(*result)] = a;
  used[device] += size;
  ++mutable_counters().allocations;
  ++mutable_counters().live_allocations;
  mutable_counters().live_bytes += static_cast<std::int64_t>(size);
  if (settings().trap_host && !kHeap && visitors == 0) mprotect(a.map + kPage, a.map_size - 2 * kPage, PROT_NONE);
  return cudaSuccess;
}

cudaError_t release(void* p) {
  if (p == nullptr) return cudaSuccess;
  const auto at = allocations().find(number(p));
  if (at == allocations().end()) return set_error(cudaErrorInvalidValue, "cudaFree: the pointer is not that of an allocation, or is freed already");
  const Allocation a = at->second;
  if (kHeap) {
    std::free(p);
  } else {
    const DeviceVisible visible;
    if (const char* where = damage(p, a)) set_error(cudaErrorIllegalAddress, std::string("something wrote ") + where + " of a device allocation of " + std::to_string(a.size) + " bytes, found when it is freed");
  }
  allocations().erase(at);
  if (!kHeap) {
    mmap(a.map, a.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.emplace_back(a.map, a.map_size);
    if (freed.size() > kKeptMaps) {
      munmap(freed.front().first, freed.front().second);
      freed.pop_front();
    }
  }
  used[a.device] -= a.size;
  --mutable_counters().live_allocations;
  mutable_counters().live_bytes -= static_cast<std::int64_t>(a.size);
  return cudaSuccess;
}

}  // namespace

int device_of(const void* p, std::size_t bytes) {
  const auto at = find_block(allocations(), p);
  return at != allocations().end() && number(p) - at->first <= at->second.size && bytes <= at->second.size - (number(p) - at->first) ? at->second.device : -1;
}

bool is_pinned(const void* p) {
  const auto at = find_block(pinned(), p);
  return at != pinned().end() && number(p) - at->first < at->second;
}

DeviceVisible::DeviceVisible() {
  if (settings().trap_host && !kHeap && visitors++ == 0) protect_all(true);
}
DeviceVisible::~DeviceVisible() {
  if (settings().trap_host && !kHeap && --visitors == 0) protect_all(false);
}

void check_canaries(const char* culprit) {
  if (kHeap || pending_error() != cudaSuccess) return;
  for (const auto& [address, a] : allocations())
    if (const char* where = damage(reinterpret_cast<const void*>(address), a)) {
      set_error(cudaErrorIllegalAddress, std::string(culprit) + ": write " + where + " of a device allocation of " + std::to_string(a.size) + " bytes");
      return;
    }
}

std::string describe_address(const void* p) {
  for (const auto& [map, size] : freed)
    if (p >= map && p < map + size) return "that device memory is freed";
  for (const auto& [address, a] : allocations())
    if (p >= a.map && p < a.map + a.map_size) {
      std::ostringstream text;
      text << "an allocation of " << a.size << " bytes on device " << a.device << " begins at " << reinterpret_cast<const void*>(address);
      if (number(p) >= address && number(p) - address < a.size) text << ": the host may not touch it";
      return std::move(text).str();
    }
  return "no device memory is there";
}

}  // namespace kemu

using kemu::Lock;

extern "C" {

cudaError_t cudaMalloc(void** p, std::size_t size) {
  const Lock lock;
  return kemu::allocate(p, size);
}

cudaError_t cudaMallocAsync(void** p, std::size_t size, cudaStream_t) {
  const Lock lock;
  return kemu::allocate(p, size);
}

cudaError_t cudaFree(void* p) {
  const Lock lock;
  kemu::drain_everything();  // the real one waits for the device
  const cudaError_t status = kemu::release(p);
  return status != cudaSuccess ? status : kemu::pending_error();
}

cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  const Lock lock;
  if (p != nullptr && kemu::device_of(p) < 0) return kemu::set_error(cudaErrorInvalidValue, "cudaFreeAsync: not device memory");
  kemu::enqueue(stream, [p] { kemu::release(p); });
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** p, std::size_t size, unsigned) {
  const Lock lock;
  *p = nullptr;
  if (size == 0) return cudaSuccess;
  if (posix_memalign(p, 4096, size) != 0) return cudaErrorMemoryAllocation;
  kemu::pinned()[kemu::number(*p)] = size;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, std::size_t size) { return cudaHostAlloc(p, size, 0); }

cudaError_t cudaFreeHost(void* p) {
  const Lock lock;
  if (p == nullptr) return cudaSuccess;
  kemu::drain_everything();
  if (kemu::pinned().erase(kemu::number(p)) == 0) return kemu::set_error(cudaErrorInvalidValue, "cudaFreeHost: not pinned memory, or freed already");
  std::free(p);
  return kemu::pending_error();
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total) {
  const Lock lock;
  *total = kemu::settings().memory;
  *free_bytes = *total - kemu::used[kemu::current_device()];
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  const Lock lock;
  *attributes = {};
  const int device = kemu::device_of(p, 1);
  attributes->type = device >= 0 ? cudaMemoryTypeDevice : kemu::is_pinned(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  attributes->device = device >= 0 ? device : kemu::current_device();
  if (device >= 0) attributes->devicePointer = const_cast<void*>(p);
  else if (kemu::is_pinned(p)) attributes->hostPointer = const_cast<void*>(p);
  return cudaSuccess;
}
}
