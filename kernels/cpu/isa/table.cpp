// The table of one instruction set.
#include "kernels/cpu/isa/table.h"

#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

extern const AttentionTable attention_table;
extern const ElementwiseTable elementwise_table;
extern const GemmTable gemm_table;

constinit const IsaTable isa_table = {
    .isa = Isa::CAMBIUM_ISA,
    .float_lanes = kLanes,
    .attention = &attention_table,
    .elementwise = &elementwise_table,
    .gemm = &gemm_table,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
