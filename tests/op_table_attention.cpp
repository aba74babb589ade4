// Rows of the attention family.
#include "tests/op_table.h"

namespace cambium::test {

std::vector<OpRow> attention_rows() { return {}; }

}  // namespace cambium::test
