// Rows of the matrix family.
#include "tests/op_table.h"

namespace cambium::test {

std::vector<OpRow> matrix_rows() { return {}; }

}  // namespace cambium::test
