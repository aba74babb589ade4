// Rows of the norm family.
#include "tests/op_table.h"

namespace cambium::test {

std::vector<OpRow> norm_rows() { return {}; }

}  // namespace cambium::test
