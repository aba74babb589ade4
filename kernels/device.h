// Devices, their memory and the statistics of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/error.h"

namespace cambium {

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};
inline std::ostream& operator<<(std::ostream& stream, Device device) {
  if (device.type == DeviceType::cpu) return stream << "cpu";
  return stream << "cuda:" << device.index;
}

/// "cpu", "cuda" or "cuda:N"; another text is a DeviceError, and so is CUDA in a build without it.
Device parse_device(const std::string& text);

/// What lives on a device now and at most: counts of blocks handed out and their bytes.
struct MemoryStatistics {
  std::int64_t live_blocks = 0, live_bytes = 0, peak_bytes = 0, cached_bytes = 0, total_allocations = 0;
};

namespace kernels {

/// `bytes` of uninitialised memory aligned to 64 bytes, from a caching allocator; throws std::bad_alloc. 0 bytes give nullptr.
/// Freed large blocks are kept for the next step, which asks for the same sizes again, and returned by release_cache().
void* allocate(Device device, std::size_t bytes);
void deallocate(Device device, void* pointer, std::size_t bytes) noexcept;
void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes);
void synchronize(Device device);
void release_cache(Device device);
MemoryStatistics memory_statistics(Device device);
void reset_peak(Device device);

}  // namespace kernels
}  // namespace cambium
