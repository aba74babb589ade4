// The functions compiled once per instruction set. A family is: a header with a struct of function pointers, a .cpp that defines
// `extern const FamilyTable family_table` in the set's namespace, a member here, a line in table.cpp, and the file in meson.build.
#pragma once

#include <stdint.h>

namespace cambium::kernels::cpu {

enum class Isa : uint8_t { portable, avx2, avx512 };

struct AttentionTable;
struct ElementwiseTable;
struct GemmTable;
struct NormTable;
struct PointwiseTable;
struct SoftmaxTable;
struct StreamTable;

struct IsaTable {
  Isa isa;
  int float_lanes;
  const AttentionTable* attention;
  const ElementwiseTable* elementwise;
  const GemmTable* gemm;
  const NormTable* norm;
  const PointwiseTable* pointwise;
  const SoftmaxTable* softmax;
  const StreamTable* streams;
};

namespace portable { extern const IsaTable isa_table; }
namespace avx2 { extern const IsaTable isa_table; }
namespace avx512 { extern const IsaTable isa_table; }

}  // namespace cambium::kernels::cpu
