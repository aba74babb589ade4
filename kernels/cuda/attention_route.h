// Which of the two kinds of attention kernels takes 16-bit floats: for tests and benches, which run both on one device.
#pragma once

#include <cstdint>

namespace cambium::kernels::cuda {

/// automatic: tensor cores from compute capability 8.0 on, for float16 from 7.5 on; tensor_cores: for bfloat16 from 7.5 on, too. float32 and float64, heads of more than 256 entries and those for
/// which a chip has too little shared memory always take multiply-adds.
enum class AttentionRoute : std::uint8_t { automatic, multiply_add, tensor_cores };

/// For the whole process, until it is set again.
void use_attention_route(AttentionRoute route);

}  // namespace cambium::kernels::cuda
