// The table of one instruction set.
#include "kernels/cpu/isa/table.h"

#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

extern const AttentionTable attention_table;
extern const ElementwiseTable elementwise_table;
extern const GemmTable gemm_table;
extern const NormTable norm_table;
extern const PointwiseTable pointwise_table;
extern const SoftmaxTable softmax_table;
extern const StreamTable stream_table;

constinit const IsaTable isa_table = {
    .isa = Isa::CAMBIUM_ISA,
    .float_lanes = kLanes,
    .attention = &attention_table,
    .elementwise = &elementwise_table,
    .gemm = &gemm_table,
    .norm = &norm_table,
    .pointwise = &pointwise_table,
    .softmax = &softmax_table,
    .streams = &stream_table,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
