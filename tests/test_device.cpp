// The caching allocator: blocks are found again, and sizes that never come back do not pile up.
#include <doctest/doctest.h>

#include <algorithm>

#include "kernels/device.h"

using namespace cambium;
using namespace cambium::kernels;

TEST_CASE("blocks of ever new sizes do not pile up in the cache") {
  release_cache(Device{});
  reset_peak(Device{});
  std::int64_t most = 0;
  for (std::size_t mib = 8; mib < 72; ++mib) {  // 2.5 GiB in all, one at a time; never touched
    void* block = allocate(Device{}, mib << 20);
    const MemoryStatistics s = memory_statistics(Device{});
    most = std::max(most, s.live_bytes + s.cached_bytes);
    deallocate(Device{}, block, mib << 20);
  }
  const MemoryStatistics s = memory_statistics(Device{});
  CHECK(most <= s.peak_bytes + s.peak_bytes / 2 + (std::int64_t{64} << 20));
  CHECK(s.cached_bytes >= 0);
  release_cache(Device{});
  CHECK(memory_statistics(Device{}).cached_bytes == 0);
}
