// Devices as the CUDA runtime shows them: what was found, properties, the selected one, compute streams, errors.
#include "kernels/cuda/runtime.h"

#include <mutex>
#include <vector>

namespace cambium::kernels::cuda {

namespace {

struct DeviceState {
  std::once_flag stream_once, properties_once;
  cudaStream_t stream = nullptr;
  Properties properties;
};

struct Found {
  std::vector<DeviceState> devices;
  std::string absence;
};

// Never destroyed: tensors of static duration may outlive any order of destructors.
Found& found() {
  static Found* instance = [] {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
      cudaGetLastError();
      count = 0;
    }
    auto* f = new Found{std::vector<DeviceState>(static_cast<std::size_t>(count)), {}};
    if (status != cudaSuccess) f->absence = concat_text("no CUDA device can be used: ", cudaGetErrorString(status));
    else if (count == 0) f->absence = "no CUDA device was found";
    return f;
  }();
  return *instance;
}

DeviceState& state_of(Device device) {
  Found& f = found();
  check<DeviceError>(device.type == DeviceType::cuda && device.index >= 0 && static_cast<std::size_t>(device.index) < f.devices.size(),
                     "cuda: there is no device ", device, ", found ", f.devices.size());
  return f.devices[static_cast<std::size_t>(device.index)];
}

int attribute(cudaDeviceAttr which, int index) {
  int value = 0;
  check_call(cudaDeviceGetAttribute(&value, which, index), "cudaDeviceGetAttribute of cuda:", index);
  return value;
}

}  // namespace

void fail_call(cudaError_t status, const std::string& what) {
  const std::string name = cudaGetErrorName(status), text = cudaGetErrorString(status);
  cudaGetLastError();  // an error that is not sticky must not be reported a second time by the next call
  fail<DeviceError>(what, ": ", text, " (", name, ")");
}

int device_count() { return static_cast<int>(found().devices.size()); }
std::string device_absence() { return found().absence; }

DeviceScope::DeviceScope(Device device) {
  int current = 0;
  check_call(cudaGetDevice(&current), "cudaGetDevice");
  if (current == device.index) return;
  check_call(cudaSetDevice(device.index), "cudaSetDevice to ", device);
  before_ = current;
}

DeviceScope::~DeviceScope() {
  if (before_ >= 0) cudaSetDevice(before_);
}

cudaStream_t stream_of(const Context& context) {
  if (context.stream != nullptr) return static_cast<cudaStream_t>(context.stream);
  DeviceState& state = state_of(context.device);
  std::call_once(state.stream_once, [&] {
    const DeviceScope scope(context.device);
    check_call(cudaStreamCreateWithFlags(&state.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags on ", context.device);
  });
  return state.stream;
}

const Properties& properties_of(Device device) {
  DeviceState& state = state_of(device);
  std::call_once(state.properties_once, [&] {
    const int index = device.index;
    cudaDeviceProp all{};
    check_call(cudaGetDeviceProperties(&all, index), "cudaGetDeviceProperties of ", device);
    state.properties = {all.name,
                        attribute(cudaDevAttrComputeCapabilityMajor, index),
                        attribute(cudaDevAttrComputeCapabilityMinor, index),
                        attribute(cudaDevAttrMultiProcessorCount, index),
                        attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
                        static_cast<std::int64_t>(all.totalGlobalMem)};
  });
  return state.properties;
}

std::string shape_text(const Strided& s) {
  if (!s) return "absent";
  return concat_text(s.dtype, " ", std::vector<std::int64_t>(s.shape, s.shape + s.rank));
}

}  // namespace cambium::kernels::cuda
