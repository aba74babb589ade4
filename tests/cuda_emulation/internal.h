// What the parts of the emulator share.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>

#include "emulation.h"

#if !defined(KEMU_ADDRESS_SANITIZER)
#if defined(__SANITIZE_ADDRESS__)
#define KEMU_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEMU_ADDRESS_SANITIZER 1
#endif
#endif
#endif
#if !defined(KEMU_THREAD_SANITIZER)
#if defined(__SANITIZE_THREAD__)
#define KEMU_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KEMU_THREAD_SANITIZER 1
#endif
#endif
#endif
#if !defined(KEMU_ADDRESS_SANITIZER)
#define KEMU_ADDRESS_SANITIZER 0
#endif
#if !defined(KEMU_THREAD_SANITIZER)
#define KEMU_THREAD_SANITIZER 0
#endif

namespace kemu {

constexpr unsigned char kPoison = 0xFF;  // NaN in every float type, -1 in every integer type
constexpr unsigned char kCanary = 0x11;  // a small normal number: sums and products that run over it change it, which they would not do to NaN

/// Remembers the first error until somebody asks for it, and prints it.
cudaError_t set_error(cudaError_t error, std::string text);
cudaError_t pending_error();

// Memory (memory.cpp).
/// The device whose allocation holds all of [p, p + bytes), or -1. The end of an allocation counts as its own for 0 bytes.
int device_of(const void* p, std::size_t bytes = 0);
bool is_pinned(const void* p);
/// In the mode that traps the host: device memory can be reached only while one of these is alive.
class DeviceVisible {
 public:
  DeviceVisible();
  ~DeviceVisible();
  DeviceVisible(const DeviceVisible&) = delete;
  DeviceVisible& operator=(const DeviceVisible&) = delete;
};
/// Looks for writes past the end of allocations; `culprit` is named in the error.
void check_canaries(const char* culprit);
std::string describe_address(const void* p);

// Streams (streams.cpp). All state of the emulator is behind one lock.
class Lock {
 public:
  Lock();
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};
int current_device();
void enqueue(cudaStream_t stream, std::function<void()> work);
int device_of_stream(cudaStream_t stream);
void drain_everything();

Counters& mutable_counters();
std::size_t most_shared_memory();  // of a block on the emulated chip
std::size_t dynamic_limit(const void* function);
/// Logs a launch; true if the settings leave this kernel out.
bool note_launch(const char* name, unsigned threads);

// Work on memory that sanitizers see.
void visible_fill(char* to, int value, std::size_t bytes);
void visible_copy(char* to, const char* from, std::size_t bytes, std::size_t source_bytes);

// Blocks (engine.cpp); returns "" or what went wrong.
std::string run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

}  // namespace kemu
