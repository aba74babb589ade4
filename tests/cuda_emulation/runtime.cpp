// What is left of the CUDA run-time: errors, properties of devices, attributes of kernels, launches.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "emulated_device.h"
#include "internal.h"

namespace kemu {

namespace {

cudaError_t error = cudaSuccess;
std::string error_text;          // of the last error that set_error saw, also after it was reported
cudaError_t described = cudaSuccess;
std::map<const void*, std::size_t> shared_limits;
std::set<std::pair<int, int>> peers;  // the first may reach the second's memory

// Errors that nobody asked for must not go by unseen.
struct AtExit {
  AtExit() {
    std::atexit([] {
      if (error == cudaSuccess) return;
      std::fprintf(stderr, "kemu: the program ends with an error that it never asked for: %s\n", error_text.c_str());
      std::_Exit(86);
    });
  }
};

cudaError_t refuse(cudaError_t status, const char* kernel, const std::string& why) { return set_error(status, std::string("kernel ") + kernel + ": " + why); }

}  // namespace

Counters& mutable_counters() {
  static Counters instance;
  return instance;
}
const Counters& counters() { return mutable_counters(); }

cudaError_t set_error(cudaError_t status, std::string text) {
  static const AtExit at_exit;
  if (!settings().quiet) std::fprintf(stderr, "kemu: %s\n", text.c_str());
  if (error == cudaSuccess) {
    error = described = status;
    error_text = std::move(text);
  }
  return status;
}
cudaError_t pending_error() { return error; }
std::string last_error() {
  const Lock lock;
  return error == cudaSuccess ? "" : error_text;
}
std::string take_error() {
  const Lock lock;
  std::string text = last_error();
  error = cudaSuccess;
  return text;
}

std::size_t dynamic_limit(const void* function) {
  const auto at = shared_limits.find(function);
  return at == shared_limits.end() ? 48 * 1024 : at->second;
}

void visible_fill(char* to, int value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) static_cast<volatile char*>(to)[i] = static_cast<char>(value);
}
void visible_copy(char* to, const char* from, std::size_t bytes, std::size_t source_bytes) {
  for (std::size_t i = 0; i < bytes; ++i) static_cast<volatile char*>(to)[i] = i < source_bytes ? from[i] : static_cast<char>(0);
}

cudaError_t launch_raw(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, const void* function, std::function<void()> body,
                       const void* const* pointers, int n_pointers) {
  const Lock lock;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7FFFFFFFU)
    return refuse(cudaErrorInvalidConfiguration, name, "a grid or block of a size that CUDA does not have");
  if (shared_bytes > dynamic_limit(function))
    return refuse(cudaErrorInvalidValue, name, std::to_string(shared_bytes) + " bytes of dynamic shared memory, " + std::to_string(dynamic_limit(function)) + " are allowed (cudaFuncSetAttribute)");
  const int device = device_of_stream(stream);
  if (device < 0) return refuse(cudaErrorInvalidResourceHandle, name, "the stream does not exist (any more)");
  if (device != current_device()) return refuse(cudaErrorInvalidResourceHandle, name, "the stream belongs to device " + std::to_string(device) + ", " + std::to_string(current_device()) + " is selected");
  const std::vector<const void*> given(pointers, pointers + n_pointers);
  const auto check_pointers = [given, device]() -> std::string {
    for (std::size_t i = 0; i < given.size() && settings().check_pointers; ++i) {
      const int owner = given[i] == nullptr ? device : device_of(given[i]);
      if (owner == device || (owner >= 0 && peers.contains({device, owner}))) continue;
      return "argument " + std::to_string(i) + " points " + (owner < 0 ? "to no device memory" : "to memory of device " + std::to_string(owner));
    }
    return "";
  };
  if (const std::string wrong = check_pointers(); !wrong.empty()) return refuse(cudaErrorIllegalAddress, name, wrong);
  ++mutable_counters().launches;
  if (note_launch(name, static_cast<unsigned>(threads))) return cudaSuccess;
  enqueue(stream, [=, kernel = std::string(name), body = std::move(body)] {
    if (const std::string wrong = check_pointers(); !wrong.empty()) return (void)refuse(cudaErrorIllegalAddress, kernel.c_str(), wrong + ", which was freed before the kernel ran");
    const DeviceVisible visible;
    const std::string wrong = run_grid(kernel.c_str(), grid, block, shared_bytes, body);
    if (!wrong.empty()) set_error(cudaErrorLaunchFailure, wrong);
    check_canaries(("kernel " + kernel).c_str());
  });
  return cudaSuccess;
}

}  // namespace kemu

using namespace kemu;

extern "C" {

cudaError_t cudaGetLastError() {
  const Lock lock;
  const cudaError_t status = error;
  error = cudaSuccess;
  return status;
}
cudaError_t cudaPeekAtLastError() { return pending_error(); }
const char* cudaGetErrorString(cudaError_t status) {
  static thread_local std::string text;  // what happened, which a real device would not tell
  text = status == cudaSuccess ? "no error" : status == cudaErrorMemoryAllocation ? "out of memory" : status == described ? error_text : "error " + std::to_string(status);
  return text.c_str();
}
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorPeerAccessAlreadyEnabled: return "cudaErrorPeerAccessAlreadyEnabled";
    default: return "another CUDA error";
  }
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const Lock lock;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;  // hints
  if (value < 0 || static_cast<std::size_t>(value) > most_shared_memory())
    return set_error(cudaErrorInvalidValue, "cudaFuncSetAttribute: " + std::to_string(value) + " bytes of dynamic shared memory, a block has " + std::to_string(most_shared_memory()));
  shared_limits[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const Lock lock;
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(dynamic_limit(function));
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, std::size_t shared_bytes) {
  const std::size_t by_shared = shared_bytes == 0 ? 16 : most_shared_memory() / shared_bytes;
  *blocks = static_cast<int>(std::min<std::size_t>({16, by_shared, threads > 0 ? static_cast<std::size_t>(1536 / threads) : 0}));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = settings().capability / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = settings().capability % 10; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(most_shared_memory()); return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = static_cast<int>(most_shared_memory()) + 1024; return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 1536; return cudaSuccess;
    case cudaDevAttrWarpSize: *value = 32; return cudaSuccess;
    case cudaDevAttrClockRate: *value = 1000000; return cudaSuccess;
    case cudaDevAttrMaxGridDimX: *value = 0x7FFFFFFF; return cudaSuccess;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; return cudaSuccess;
    default: return set_error(cudaErrorInvalidValue, "cudaDeviceGetAttribute: the emulator does not know attribute " + std::to_string(attribute));
  }
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
  std::memset(static_cast<void*>(p), 0, sizeof *p);
  std::snprintf(p->name, sizeof p->name, "Emulated GPU %d", device);
  p->major = settings().capability / 10;
  p->minor = settings().capability % 10;
  p->totalGlobalMem = settings().memory;
  p->multiProcessorCount = 4;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 1536;
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = most_shared_memory();
  p->sharedMemPerMultiprocessor = most_shared_memory() + 1024;
  p->regsPerBlock = 65536;
  p->maxGridSize[0] = 0x7FFFFFFF;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int other) { return *can = device != other, cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int other, unsigned) {
  const Lock lock;
  if (other < 0 || other >= settings().devices || other == current_device()) return cudaErrorInvalidDevice;
  return peers.emplace(current_device(), other).second ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
}
cudaError_t cudaDeviceDisablePeerAccess(int other) {
  const Lock lock;
  return peers.erase({current_device(), other}) != 0 ? cudaSuccess : cudaErrorPeerAccessNotEnabled;
}
}
