// Copies from, to and between GPUs.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace cambium::kernels::cuda {

/// At least one of the two is a GPU. See copy_bytes() of kernels/device.h.
void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes);
void synchronize(Device device);

}  // namespace cambium::kernels::cuda
