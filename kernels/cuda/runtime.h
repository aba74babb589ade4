// What the host side of the CUDA backend shares: errors that name the call, the selected device, its stream, working memory.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/kernels.h"

namespace cambium::kernels::cuda {

[[noreturn]] void fail_call(cudaError_t status, const std::string& what);

/// DeviceError "<parts>: <CUDA's name and text of the error>" if a call of the runtime failed. The parts name the call and its sizes.
template <class... Parts>
void check_call(cudaError_t status, const Parts&... parts) {
  if (status != cudaSuccess) [[unlikely]] fail_call(status, concat_text(parts...));
}

int device_count();            ///< 0 if the driver has none, or there is no driver; asked once
std::string device_absence();  ///< why there is none

/// Selects a device for a scope; the thread's own choice comes back afterwards. The entries of table() and of the allocator hold one, so a launcher
/// finds its device selected.
class DeviceScope {
 public:
  explicit DeviceScope(Device device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = -1;  // nothing to put back
};

/// The stream of a context: its own if it has one, else the device's compute stream, on which kernels, copies and the reuse of memory are ordered.
/// A caller with a stream of its own orders it against that one.
cudaStream_t stream_of(const Context& context);

/// What launchers may want to know of a device. How sums are cut must not depend on it: results are the same bits on every GPU.
struct Properties {
  std::string name;
  int major = 0, minor = 0;              ///< compute capability
  int multiprocessors = 0;
  std::int64_t shared_bytes = 0;         ///< most shared memory of a block, after cudaFuncSetAttribute
  std::int64_t memory_bytes = 0;
};
const Properties& properties_of(Device device);

/// Working memory of a call, uninitialised, aligned to 256 bytes. It may go out of scope as soon as the kernels that use it are launched: whoever
/// gets the memory next comes behind them on the stream.
template <class T>
class Scratch {
 public:
  Scratch(const Context& context, std::int64_t count)
      : device_(context.device), bytes_(static_cast<std::size_t>(count) * sizeof(T)), data_(static_cast<T*>(allocate(device_, bytes_))) {}
  ~Scratch() { deallocate(device_, data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  Device device_;
  std::size_t bytes_;
  T* data_;
};

/// "float32 [2, 3]" for messages.
std::string shape_text(const Strided& s);

}  // namespace cambium::kernels::cuda
