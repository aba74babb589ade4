// Parts of a factorisation around cuSOLVER's calls. Internal to the CUDA backend.
#pragma once

#include "kernels/kernels.h"

namespace cambium::kernels::cuda {

/// r (K, N) dense = the upper triangle of the first K rows of a column-major matrix of M rows, zeros below it.
void upper_triangle(Context&, Strided r, const void* a, std::int64_t M);

}  // namespace cambium::kernels::cuda
