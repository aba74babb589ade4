// The CUDA backend as kernels/device.cpp and the choice of tables see it.
#include "kernels/backend.h"

#include "kernels/cuda/allocator.h"
#include "kernels/cuda/copies.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels {

namespace cuda {
namespace {

std::string description(Device device) {
  const Properties& p = properties_of(device);
  return concat_text(p.name, ", compute capability ", p.major, ".", p.minor, ", ", p.multiprocessors, " multiprocessors, ", p.memory_bytes >> 20, " MiB");
}

constexpr Backend kBackend{
    .count = &device_count,
    .absence = &device_absence,
    .description = &description,
    .table = &cuda::table,
    .allocate = [](Device device, std::size_t bytes) { return allocator_of(device).allocate(bytes); },
    .deallocate = [](Device device, void* pointer, std::size_t) noexcept { allocator_of(device).deallocate(pointer); },
    .copy = &cuda::copy_bytes,
    .synchronize = &cuda::synchronize,
    .release_cache = [](Device device) { allocator_of(device).release_cache(); },
    .set_memory_limit = [](Device device, std::int64_t bytes) { allocator_of(device).set_limit(bytes); },
    .statistics = [](Device device) { return allocator_of(device).statistics(); },
    .reset_peak = [](Device device) { allocator_of(device).reset_peak(); },
};

}  // namespace
}  // namespace cuda

const Backend* cuda_backend() { return &cuda::kBackend; }

}  // namespace cambium::kernels
