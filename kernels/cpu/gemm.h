// Choice of the matrix product's route, and packing of frozen weights.
#pragma once

#include <cstdint>

#include "kernels/strided.h"

namespace cambium::kernels::cpu {

/// `own` unless the environment variable CAMBIUM_GEMM says openblas (ConfigError for another word). OpenBLAS takes f32 and f64 with an inner
/// stride of 1; everything else goes the own way in any case.
enum class GemmRoute : std::uint8_t { own, openblas };
GemmRoute gemm_route();
void set_gemm_route(GemmRoute route);

/// Bytes of a float weight (K, N) packed for the instruction set in use, and the packing into a block aligned to 64 bytes. The panels
/// hold floats whatever the dtype of the weight; a product with them has the bits of the packed route over the dense weight.
std::int64_t packed_weight_bytes(const Strided& weight);
void pack_weight(void* to, const Strided& weight);

}  // namespace cambium::kernels::cpu
