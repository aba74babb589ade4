// What the replacements of cuBLAS and cuSOLVER share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "internal.h"

namespace kemu {

/// Elements from the first to the last of a column-major matrix.
inline std::size_t extent(std::int64_t rows, std::int64_t columns, std::int64_t leading) {
  return rows <= 0 || columns <= 0 ? 0 : static_cast<std::size_t>(leading * (columns - 1) + rows);
}

/// True if the operand lies inside one allocation of the device and is aligned to its elements; else records an error.
inline bool operand_fits(const char* call, const char* name, int device, const void* p, std::size_t elements, std::size_t size) {
  if (elements == 0) return true;
  const std::string who = std::string(call) + ": operand " + name;
  if (reinterpret_cast<std::uintptr_t>(p) % size != 0) return set_error(cudaErrorInvalidValue, who + " is not aligned to its elements"), false;
  const int owner = device_of(p, elements * size);
  if (owner == device) return true;
  set_error(cudaErrorIllegalAddress, who + " of " + std::to_string(elements * size) + " bytes from its first to its last element " +
                                         (owner >= 0 ? "is on device " + std::to_string(owner) : device_of(p, 1) >= 0 ? "reaches past its device allocation" : "is not in device memory"));
  return false;
}

}  // namespace kemu
