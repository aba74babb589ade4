// The place of the CUDA backend in a build without it.
#include "kernels/backend.h"

namespace cambium::kernels {

const Backend* cuda_backend() { return nullptr; }

}  // namespace cambium::kernels
