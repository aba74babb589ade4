// Counts the memory that a piece of code takes at most: replaces operator new in the programs that link it.
#pragma once

#include <cstddef>

namespace cambium::test {

/// Bytes taken since the making of this object, at their highest: operator new, and the library's own allocator for tensors.
class AllocationPeak {
 public:
  AllocationPeak();
  std::size_t bytes() const;

 private:
  std::size_t start_ = 0;
  std::size_t device_start_ = 0;
};

}  // namespace cambium::test
