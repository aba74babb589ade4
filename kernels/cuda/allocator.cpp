// The caching allocator: which block to take, when to ask the driver, what to do when it has no more.
#include "kernels/cuda/allocator.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

constexpr std::size_t kUnit = 512;
constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kMostSmall = kMiB, kSmallSegment = 2 * kMiB, kMostShared = 10 * kMiB, kSharedSegment = 20 * kMiB, kLargeUnit = 2 * kMiB;

constexpr std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::string gib(std::int64_t bytes) {
  const double hundredths = std::round(static_cast<double>(bytes) / 0x1p30 * 100.0);
  return bytes < (std::int64_t{1} << 24) ? concat_text(bytes, " bytes") : concat_text(hundredths / 100.0, " GiB");
}

}  // namespace

Allocator::~Allocator() { release_free_segments(); }

void* Allocator::from_driver(std::size_t bytes) {
  if (limit_ > 0 && reserved_ + static_cast<std::int64_t>(bytes) > limit_) return nullptr;
  const DeviceScope scope(device_);
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check_call(status, "cudaMalloc of ", bytes, " bytes on ", device_);
  reserved_ += static_cast<std::int64_t>(bytes);
  return memory;
}

Allocator::Block* Allocator::find(std::size_t size, bool small) {
  FreeBlocks& blocks = free_of(small);
  Block wanted{nullptr, size, 0, small, false, nullptr, nullptr};
  const auto at = blocks.lower_bound(&wanted);
  // A block of more than half as much again, among those with a segment each, would leave little for its own size.
  if (at == blocks.end() || (size > kMostShared && (*at)->size > size + size / 2)) return nullptr;
  Block* block = *at;
  blocks.erase(at);
  statistics_.cached_bytes -= static_cast<std::int64_t>(block->size);
  return block;
}

Allocator::Block* Allocator::add_segment(std::size_t size, std::size_t segment, bool small) {
  auto block = std::make_unique<Block>(Block{nullptr, segment, 0, small, false, nullptr, nullptr});
  void* memory = from_driver(segment);
  if (memory == nullptr) {
    release_free_segments();
    memory = from_driver(segment);
  }
  if (memory == nullptr && segment != size) {  // a whole segment does not fit any more, perhaps the block alone does
    block->size = size;
    memory = from_driver(size);
  }
  if (memory == nullptr) return nullptr;
  block->address = static_cast<std::byte*>(memory);
  return block.release();
}

void* Allocator::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  std::lock_guard lock(mutex_);
  const std::size_t size = caching_ ? rounded_up(bytes, bytes > kMostShared ? kLargeUnit : kUnit) : bytes;
  if (size < bytes) fail_full(bytes);
  const bool small = size <= kMostSmall;
  Block* block = caching_ ? find(size, small) : nullptr;
  if (block == nullptr) block = add_segment(size, !caching_ ? size : small ? kSmallSegment : size <= kMostShared ? kSharedSegment : size, small);
  if (block == nullptr) fail_full(bytes);
  const std::size_t rest = block->size - size;
  if (caching_ && rest >= (small ? kUnit : kMostSmall)) {
    Block* other = new Block{block->address + size, rest, 0, small, false, block, block->behind};
    if (other->behind) other->behind->before = other;
    block->behind = other;
    block->size = size;
    free_of(small).insert(other);
    statistics_.cached_bytes += static_cast<std::int64_t>(rest);
  }
  block->used = true;
  block->asked = bytes;
  used_.emplace(block->address, block);
  ++statistics_.live_blocks;
  ++statistics_.total_allocations;
  statistics_.live_bytes += static_cast<std::int64_t>(block->size);
  statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.live_bytes);
  return block->address;
}

void Allocator::deallocate(void* pointer) noexcept {
  if (pointer == nullptr) return;
  std::lock_guard lock(mutex_);
  const auto at = used_.find(pointer);
  if (at == used_.end()) return;
  Block* block = at->second;
  used_.erase(at);
  block->used = false;
  --statistics_.live_blocks;
  statistics_.live_bytes -= static_cast<std::int64_t>(block->size);
  if (!caching_) {
    reserved_ -= static_cast<std::int64_t>(block->size);
    cudaFree(pointer);  // at the end of a program the driver may be gone already: nothing to do about that
    delete block;
    return;
  }
  statistics_.cached_bytes += static_cast<std::int64_t>(block->size);
  const auto join = [&](Block* left, Block* right) {
    left->size += right->size;
    left->behind = right->behind;
    if (left->behind) left->behind->before = left;
    delete right;
    return left;
  };
  FreeBlocks& blocks = free_of(block->small);
  if (block->behind && !block->behind->used) {
    blocks.erase(block->behind);
    join(block, block->behind);
  }
  if (block->before && !block->before->used) {
    blocks.erase(block->before);
    block = join(block->before, block);
  }
  blocks.insert(block);
}

void Allocator::release_free_segments() noexcept {
  for (FreeBlocks* blocks : {&small_, &large_})
    for (auto at = blocks->begin(); at != blocks->end();) {
      Block* block = *at;
      if (block->before || block->behind) {
        ++at;
        continue;
      }
      at = blocks->erase(at);
      statistics_.cached_bytes -= static_cast<std::int64_t>(block->size);
      reserved_ -= static_cast<std::int64_t>(block->size);
      cudaFree(block->address);  // waits for the work that still reads it
      delete block;
    }
}

void Allocator::release_cache() {
  std::lock_guard lock(mutex_);
  release_free_segments();
}

void Allocator::set_limit(std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  limit_ = bytes;
  if (limit_ > 0 && reserved_ > limit_) release_free_segments();
}

MemoryStatistics Allocator::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void Allocator::reset_peak() {
  std::lock_guard lock(mutex_);
  statistics_.peak_bytes = statistics_.live_bytes;
}

void Allocator::fail_full(std::size_t bytes) {
  std::size_t free = 0, total = 0;
  const DeviceScope scope(device_);
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  fail<DeviceError>("allocate: ", device_, " has no room for ", gib(static_cast<std::int64_t>(bytes)), ": ", gib(statistics_.live_bytes), " in use, ", gib(statistics_.cached_bytes),
                    " cached in parts, the driver has ", gib(static_cast<std::int64_t>(free)), " of ", gib(static_cast<std::int64_t>(total)),
                    limit_ > 0 ? ", the limit is " + gib(limit_) : std::string(), ": use smaller batches, gradient checkpointing or bfloat16");
}

std::int64_t parse_bytes(const std::string& text, const std::string& what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const double scale = unit.empty() ? 1.0 : unit == "MiB" ? 0x1p20 : unit == "GiB" ? 0x1p30 : 0.0;
  check<ConfigError>(error == std::errc() && scale > 0 && value > 0 && value * scale < 0x1p62, what, ": expected bytes, or a number with MiB or GiB, found '", text, "'");
  return static_cast<std::int64_t>(value * scale);
}

Allocator& allocator_of(Device device) {
  struct All {
    std::vector<std::unique_ptr<Allocator>> devices;
  };
  static All* all = [] {  // never destroyed: tensors of static duration may outlive any order of destructors
    const char *limit = std::getenv("CAMBIUM_CUDA_MEMORY_LIMIT"), *caching = std::getenv("CAMBIUM_CUDA_CACHING");
    const std::string choice = caching != nullptr ? caching : "1";
    check<ConfigError>(choice == "0" || choice == "1", "CAMBIUM_CUDA_CACHING: expected 1 or 0, found '", choice, "'");
    const std::int64_t bytes = limit != nullptr ? parse_bytes(limit, "CAMBIUM_CUDA_MEMORY_LIMIT") : 0;
    auto made = std::make_unique<All>();
    for (int i = 0; i < device_count(); ++i) made->devices.push_back(std::make_unique<Allocator>(Device{DeviceType::cuda, i}, bytes, choice == "1"));
    return made.release();
  }();
  check<DeviceError>(device.index >= 0 && static_cast<std::size_t>(device.index) < all->devices.size(), "allocate: there is no device ", device, ", found ", all->devices.size());
  return *all->devices[static_cast<std::size_t>(device.index)];
}

}  // namespace cambium::kernels::cuda
