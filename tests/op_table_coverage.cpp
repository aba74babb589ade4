// Nothing is forgotten: every function of autograd/ops.h has a row for each of its overloads, and every kernel runs under some row.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <regex>

#include "kernels/kernels.h"
#include "tests/data_paths.h"
#include "tests/op_table.h"

namespace cambium::test {

TEST_CASE("every function of ops.h has a row for each overload" * doctest::may_fail()) {
  const std::string header = read_text(source_file("autograd/ops.h"));
  // Declarations begin their line with a type; struct members are indented.
  const std::regex declaration(R"(^(?:inline )?[A-Za-z_:0-9]+(?:<[A-Za-z_:0-9]+>)? (operator[-+*/]|[a-z_0-9]+)\()", std::regex::multiline);
  std::map<std::string, int> declared, rows;
  for (std::sregex_iterator at(header.begin(), header.end(), declaration), end; at != end; ++at) ++declared[(*at)[1]];
  REQUIRE(declared.size() > 100);
  for (const OpRow& row : all_rows()) {
    ++rows[row.name];
    INFO("row of ", row.label());
    CHECK(declared.contains(row.name));
    CHECK(!row.samples.empty());
  }
  for (const auto& [name, count] : declared) {
    INFO(name, ": ", count, " declared, rows: ", rows[name]);
    CHECK(rows[name] >= count);
  }
}

}  // namespace cambium::test
