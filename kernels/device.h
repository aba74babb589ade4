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

/// "cpu", "cuda" or "cuda:N"; another text is a DeviceError, and so is CUDA in a build without it and a device that the machine does not have.
Device parse_device(const std::string& text);

/// How many devices of a type can be used now; 0 for CUDA in a build without it. One line about each: name, compute capability, memory.
int device_count(DeviceType type);
std::string describe_device(Device device);
/// Why device_count(cuda) is 0: no backend in this build, or what the driver said.
std::string cuda_absence();

/// What lives on a device now and at most: counts of blocks handed out and their bytes.
struct MemoryStatistics {
  std::int64_t live_blocks = 0, live_bytes = 0, peak_bytes = 0, cached_bytes = 0, total_allocations = 0;
};

namespace kernels {

/// `bytes` of uninitialised memory aligned to 64 bytes, from a caching allocator; throws std::bad_alloc, on a GPU DeviceError with the
/// numbers. 0 bytes give nullptr. Freed blocks (on the CPU large ones) are kept for the next step, which asks for the same sizes again, and
/// returned by release_cache(). On a GPU memory is handed on in the order of the device's stream.
void* allocate(Device device, std::size_t bytes);
void deallocate(Device device, void* pointer, std::size_t bytes) noexcept;
/// From and to any device, in the order of their streams. What comes from the host has been read, and what goes to it is there, on return.
void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes);
void synchronize(Device device);  ///< waits for all work given to the device; DeviceError if some of it failed
void release_cache(Device device);
/// The most bytes that a GPU's allocator takes from the driver, used and cached; 0: all there are. DeviceError for the CPU.
void set_memory_limit(Device device, std::int64_t bytes);
MemoryStatistics memory_statistics(Device device);
void reset_peak(Device device);

}  // namespace kernels
}  // namespace cambium
