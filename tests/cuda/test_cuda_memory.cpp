// Memory of devices: the caching allocator, its limit, copies of all sizes and directions, several devices.
#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <numeric>
#include <vector>

#include "emulation.h"
#include "kernels/cuda/allocator.h"
#include "kernels/device.h"

using namespace cambium;
using namespace cambium::kernels;
using cuda::Allocator;

namespace {

constexpr Device kFirst{DeviceType::cuda, 0}, kSecond{DeviceType::cuda, 1};
constexpr std::size_t kMiB = std::size_t{1} << 20;

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 131 + i / 251 + seed) & 255);
  return out;
}

}  // namespace

TEST_CASE("blocks are cut from segments, joined again and found again") {
  const std::int64_t before = kemu::counters().live_bytes;
  Allocator memory(kFirst, 0, true);
  void *a = memory.allocate(1000), *b = memory.allocate(5000), *c = memory.allocate(512);
  CHECK(kemu::counters().live_bytes - before == static_cast<std::int64_t>(2 * kMiB));
  CHECK(static_cast<std::byte*>(b) - static_cast<std::byte*>(a) == 1024);
  CHECK(memory.statistics().live_blocks == 3);
  CHECK(memory.statistics().live_bytes == 1024 + 5120 + 512);
  CHECK(memory.statistics().cached_bytes == static_cast<std::int64_t>(2 * kMiB) - 6656);
  memory.deallocate(b);
  CHECK(memory.allocate(5000) == b);  // the smallest that fits
  memory.deallocate(a);
  memory.deallocate(c);
  memory.deallocate(b);
  CHECK(memory.statistics().live_bytes == 0);
  void* whole = memory.allocate(kMiB);
  CHECK(whole == a);  // all of it is one block again
  CHECK(memory.statistics().peak_bytes == static_cast<std::int64_t>(kMiB));
  memory.deallocate(whole);
  void* large = memory.allocate(11 * kMiB);
  CHECK(memory.statistics().live_bytes == static_cast<std::int64_t>(12 * kMiB));
  memory.deallocate(large);
  CHECK(memory.allocate(12 * kMiB) == large);
  memory.deallocate(large);
  memory.reset_peak();
  CHECK(memory.statistics().peak_bytes == 0);
  memory.release_cache();
  CHECK(memory.statistics().cached_bytes == 0);
  CHECK(kemu::counters().live_bytes == before);
  CHECK(memory.allocate(0) == nullptr);
}

TEST_CASE("full memory: the cache goes back first, then the error says what there is") {
  Allocator memory(kFirst, static_cast<std::int64_t>(64 * kMiB), true);
  void* a = memory.allocate(40 * kMiB);
  memory.deallocate(a);
  void* b = memory.allocate(50 * kMiB);  // does not fit beside the cached 40 MiB
  CHECK(memory.statistics().cached_bytes == 0);
  CHECK_THROWS_AS(memory.allocate(20 * kMiB), DeviceError);
  try {
    memory.allocate(20 * kMiB);
  } catch (const DeviceError& error) {
    const std::string text = error.what();
    for (const char* part : {"cuda:0 has no room for 0.02 GiB", "0.05 GiB in use", "the limit is 0.06 GiB", "use smaller batches"}) CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  }
  void* c = memory.allocate(12 * kMiB);  // what failed took nothing
  memory.deallocate(c);
  memory.set_limit(0);
  void* d = memory.allocate(100 * kMiB);
  for (void* p : {b, d}) memory.deallocate(p);
  // Without a limit it is the driver that refuses.
  CHECK_THROWS_AS(memory.allocate(kemu::settings().memory + kMiB), DeviceError);
  CHECK(cudaPeekAtLastError() == cudaSuccess);
}

TEST_CASE("settings of memory") {
  CHECK(cuda::parse_bytes("1000", "x") == 1000);
  CHECK(cuda::parse_bytes("1.5GiB", "x") == 3 * (std::int64_t{1} << 29));
  CHECK(cuda::parse_bytes("2MiB", "x") == 2 << 20);
  for (const char* bad : {"", "GiB", "-1", "0", "1GB", "1 GiB", "nan", "1e300"}) CHECK_THROWS_AS(cuda::parse_bytes(bad, "LIMIT"), ConfigError);
}

TEST_CASE("copies of every size and direction") {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{64} << 10, (std::size_t{64} << 10) + 1, 9 * kMiB + 13}) {
    const std::vector<std::byte> source = pattern(bytes, 1);
    std::vector<std::byte> back(bytes);
    void *a = allocate(kFirst, bytes), *b = allocate(kFirst, bytes), *c = allocate(kSecond, bytes);
    std::vector<std::byte> changed = source;
    copy_bytes(kFirst, a, Device{}, changed.data(), bytes);
    changed.assign(bytes, std::byte{0});  // it has been read
    copy_bytes(kFirst, b, kFirst, a, bytes);
    copy_bytes(kSecond, c, kFirst, b, bytes);
    copy_bytes(kFirst, a, Device{}, changed.data(), bytes);
    copy_bytes(Device{}, back.data(), kSecond, c, bytes);
    CHECK(back == source);
    copy_bytes(Device{}, back.data(), kFirst, a, bytes);
    CHECK(back == changed);
    deallocate(kFirst, a, bytes);
    deallocate(kFirst, b, bytes);
    deallocate(kSecond, c, bytes);
  }
  // More small ones than the ring has blocks.
  void* a = allocate(kFirst, 4000);
  for (int i = 0; i < 1000; ++i) copy_bytes(kFirst, static_cast<std::byte*>(a) + 4 * i, Device{}, &i, 4);
  std::vector<int> found(1000), expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  copy_bytes(Device{}, found.data(), kFirst, a, 4000);
  CHECK(found == expected);
  deallocate(kFirst, a, 4000);
}

TEST_CASE("the device that the program selected stays selected") {
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  void* a = allocate(kFirst, 100);
  const std::vector<std::byte> source = pattern(100, 2);
  copy_bytes(kFirst, a, Device{}, source.data(), 100);
  synchronize(kFirst);
  deallocate(kFirst, a, 100);
  int now = -1;
  REQUIRE(cudaGetDevice(&now) == cudaSuccess);
  CHECK(now == 1);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
}

TEST_CASE("names of devices") {
  CHECK(parse_device("cuda") == kFirst);
  CHECK(parse_device("cuda:1") == kSecond);
  CHECK(device_count(DeviceType::cuda) == 2);
  CHECK_THROWS_WITH_AS(parse_device("cuda:7"), "device: 'cuda:7': expected one of the 2 devices cuda:0 to cuda:1, see cambium devices", DeviceError);
  for (const char* bad : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "gpu", ""}) CHECK_THROWS_WITH_AS(parse_device(bad), ("device: expected cpu, cuda or cuda:N, found '" + std::string(bad) + "'").c_str(), DeviceError);
  CHECK(describe_device(kFirst).find("compute capability") != std::string::npos);
  CHECK_THROWS_AS(allocate(Device{DeviceType::cuda, 9}, 10), DeviceError);
}
