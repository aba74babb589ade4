// Working memory of a task: one block per thread that grows and stays, so that kernels allocate nothing once warm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace cambium::kernels::cpu {

/// At least `bytes`, aligned to 64, uninitialised, until the next call on this thread. A task takes it once and calls nothing that takes it too.
inline std::byte* thread_scratch(std::int64_t bytes) {
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<std::byte[], Free> block;
  thread_local std::int64_t size = 0;
  if (bytes > size) {
    block.reset();
    size = 0;
    block.reset(static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(bytes), std::align_val_t{64})));
    size = bytes;
  }
  return block.get();
}

}  // namespace cambium::kernels::cpu
