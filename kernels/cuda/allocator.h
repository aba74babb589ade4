// Caching allocator of a GPU's memory: segments from the driver, cut into blocks and joined again.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>

#include "kernels/device.h"

namespace cambium::kernels::cuda {

/// Memory of one device. cudaMalloc and cudaFree stop the whole device, so blocks are kept and handed on at once: all work of a device is on one
/// stream, and whoever gets a block next comes behind the work that still reads it.
///
/// Blocks are multiples of 512 bytes. Up to 1 MiB they are cut from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, larger ones have a
/// segment each, a multiple of 2 MiB. The smallest free block that fits is taken, at the lowest address of equals, and joined with free neighbours when it comes back.
class Allocator {
 public:
  /// The limit on segments in bytes, 0 for none. Without `caching` each block is a cudaMalloc of its exact size, so that checkers of memory see it on its own.
  Allocator(Device device, std::int64_t limit, bool caching) : device_(device), limit_(limit), caching_(caching) {}
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  ~Allocator();  ///< gives free segments back

  /// DeviceError with the numbers if neither the free segments that could be given back nor the driver make room.
  void* allocate(std::size_t bytes);
  void deallocate(void* pointer) noexcept;
  void release_cache();
  void set_limit(std::int64_t bytes);
  MemoryStatistics statistics() const;
  void reset_peak();

 private:
  struct Block {
    std::byte* address;
    std::size_t size, asked;
    bool small, used;
    Block *before, *behind;  // neighbours in the segment
  };
  struct BySize {
    bool operator()(const Block* a, const Block* b) const { return a->size != b->size ? a->size < b->size : a->address < b->address; }
  };
  using FreeBlocks = std::set<Block*, BySize>;
  FreeBlocks& free_of(bool small) { return small ? small_ : large_; }

  Block* find(std::size_t size, bool small);
  Block* add_segment(std::size_t size, std::size_t segment, bool small);
  void* from_driver(std::size_t bytes);
  void release_free_segments() noexcept;
  [[noreturn]] void fail_full(std::size_t bytes);

  const Device device_;
  mutable std::mutex mutex_;
  std::int64_t limit_;
  std::int64_t reserved_ = 0;  // bytes of all segments
  const bool caching_;
  FreeBlocks small_, large_;
  std::map<void*, Block*> used_;
  MemoryStatistics statistics_;
};

/// The allocator of a device, made at its first use. CAMBIUM_CUDA_MEMORY_LIMIT (bytes, or a number with MiB or GiB) and CAMBIUM_CUDA_CACHING (1 or 0) set it up; ConfigError for other texts.
Allocator& allocator_of(Device device);

/// Bytes of "1073741824", "512MiB" or "1.5GiB"; ConfigError naming `what` for anything else.
std::int64_t parse_bytes(const std::string& text, const std::string& what);

}  // namespace cambium::kernels::cuda
