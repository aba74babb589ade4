// Nothing is forgotten: every function of autograd/ops.h has a row for each of its overloads, and every kernel runs under some row.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <regex>
#include <set>
#include <vector>

#include "kernels/kernels.h"
#include "tests/data_paths.h"
#include "tests/op_table.h"

namespace cambium::test {

namespace {

#define CAMBIUM_KERNELS(ROW) \
  ROW(copy) ROW(fill) ROW(arange) ROW(dequantize) ROW(unary) ROW(unary_backward) ROW(binary) ROW(compare) ROW(where) ROW(gated) \
  ROW(gated_backward) ROW(reduce) ROW(arg_reduce) ROW(cumsum) ROW(sort) ROW(topk) ROW(gemm) ROW(layer_norm_forward) \
  ROW(layer_norm_backward) ROW(rms_norm_forward) ROW(rms_norm_backward) ROW(softmax_forward) ROW(softmax_backward) \
  ROW(cross_entropy_forward) ROW(cross_entropy_backward) ROW(gather) ROW(scatter_add) ROW(index_select) ROW(index_add) \
  ROW(attention_forward) ROW(attention_backward) ROW(rotary) ROW(random_uniform) ROW(random_normal) ROW(dropout) \
  ROW(lstm_cell_forward) ROW(lstm_cell_backward) ROW(adamw) ROW(sgd) ROW(sum_of_squares) ROW(scale_all) ROW(count_not_finite) \
  ROW(qr) ROW(svd)

// The kernel of the same name, counting its calls.
template <auto Member> struct Counted;
template <class... Arguments, void (*kernels::Kernels::*Member)(Arguments...)>
struct Counted<Member> {
  static inline std::atomic<long> calls{0};
  static void call(Arguments... arguments) {
    ++calls;
    (kernels::cpu::table().*Member)(arguments...);
  }
};

struct Replaced {
  explicit Replaced(const kernels::Kernels& table) { kernels::detail::replace_cpu_table(&table); }
  ~Replaced() { kernels::detail::replace_cpu_table(nullptr); }
};

#define CAMBIUM_ROW(name) +1
constexpr std::size_t kListed = 0 CAMBIUM_KERNELS(CAMBIUM_ROW);
#undef CAMBIUM_ROW
static_assert(sizeof(kernels::Kernels) == kListed * sizeof(void (*)()), "a kernel of kernels.h is missing in the list above");

}  // namespace

TEST_CASE("every kernel runs under some row") {
  static constexpr kernels::Kernels counting{
#define CAMBIUM_ROW(name) .name = &Counted<&kernels::Kernels::name>::call,
      CAMBIUM_KERNELS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  };
  {
    const Replaced replaced(counting);
    for (const OpRow& row : all_rows()) {
      const Inputs& sample = row.samples.back();
      Inputs inputs, asked;
      for (std::size_t i = 0; i < sample.size(); ++i) {
        const bool varies = row.differentiable && sample[i].defined() && is_float(sample[i].dtype()) && std::find(row.constant.begin(), row.constant.end(), static_cast<int>(i)) == row.constant.end();
        inputs.push_back(varies ? clone(sample[i]).set_requires_grad(true) : sample[i]);
        if (varies) asked.push_back(inputs.back());
      }
      const Tensor out = row.call(inputs);
      const Tensor upstream = ones(out.shape(), out.dtype());
      if (!asked.empty()) grad(std::span(&out, 1), asked, std::span(&upstream, 1));
    }
  }
  // What no op calls: steps of optimizers and clipping (test_optim.cpp) and blocks of GGUF files (test_gguf.cpp).
  const std::set<std::string> elsewhere{"adamw", "sgd", "sum_of_squares", "scale_all", "dequantize"};
  const std::vector<std::pair<std::string, long>> calls{
#define CAMBIUM_ROW(name) {#name, Counted<&kernels::Kernels::name>::calls.load()},
      CAMBIUM_KERNELS(CAMBIUM_ROW)
#undef CAMBIUM_ROW
  };
  for (const auto& kernel : calls) {
    INFO(kernel.first);
    CHECK((kernel.second > 0 || elsewhere.contains(kernel.first)));
  }
}

TEST_CASE("every function of ops.h, of ops/attention.h and of ops/scale.h has a row for each overload") {
  const std::string forms = read_text(source_file("autograd/ops/attention.h"));
  const std::string header = read_text(source_file("autograd/ops.h")) + forms.substr(0, forms.find("namespace cambium::detail")) + read_text(source_file("autograd/ops/scale.h"));
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
  for (const auto& function : declared) {
    const int found = rows[function.first];
    INFO(function.first, ": ", function.second, " declared, rows: ", found);
    CHECK(found >= function.second);
  }
}

}  // namespace cambium::test
