// What a backend beside the CPU offers. A build links exactly one definition of cuda_backend(): kernels/cuda/backend.cpp or kernels/no_cuda.cpp.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace cambium::kernels {

/// Functions of one type of device; the device's index has been checked. See device.h for what they do.
struct Backend {
  int (*count)();                       ///< devices that can be used now
  std::string (*absence)();             ///< why there are none: what the driver said
  std::string (*description)(Device);   ///< one line: name, compute capability, memory
  const Kernels& (*table)();
  void* (*allocate)(Device, std::size_t bytes);
  void (*deallocate)(Device, void* pointer, std::size_t bytes) noexcept;
  void (*copy)(Device to, void* destination, Device from, const void* source, std::size_t bytes);
  void (*synchronize)(Device);
  void (*release_cache)(Device);
  void (*set_memory_limit)(Device, std::int64_t bytes);
  MemoryStatistics (*statistics)(Device);
  void (*reset_peak)(Device);
};

/// nullptr in a build without CUDA.
const Backend* cuda_backend();

}  // namespace cambium::kernels
