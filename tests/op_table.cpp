// Properties of every op, tested over all rows of the table: values, gradients, views, element types, memory, errors.
#include <doctest/doctest.h>

#include "autograd/gradcheck.h"
#include "kernels/device.h"
#include "tests/op_table_checks.h"

namespace cambium::test {

namespace {

std::int64_t live_blocks() { return kernels::memory_statistics(Device{}).live_blocks; }

}  // namespace

TEST_CASE("values in float64 are those of the references") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const Inputs inputs = leaves(row, sample, DType::f64, false);
    CHECK(distance(Array(row.call(inputs)), row.reference(arrays(inputs))) <= tolerance(DType::f64) * row.slack);
  });
}

TEST_CASE("values and gradients in narrower types are within rounding of float64") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for_all([dtype](const OpRow& row, const Inputs& sample) {
      if (!row.narrow) return;
      INFO("in ", std::string(name_of(dtype)));
      const Inputs inputs = leaves(row, sample, dtype, true), exact = leaves(row, inputs, DType::f64, true);
      const Tensor out = row.call(inputs);
      CHECK(distance(Array(out), row.reference(arrays(exact))) <= tolerance(dtype) * row.slack);
      if (!row.differentiable) return;
      const Inputs narrow = gradients(out, varied(inputs), false), wide = gradients(row.call(exact), varied(exact), false);
      for (std::size_t i = 0; i < narrow.size(); ++i) {
        REQUIRE(narrow[i].defined() == wide[i].defined());
        if (narrow[i].defined()) CHECK(distance(Array(narrow[i]), Array(wide[i])) <= 4.0 * tolerance(dtype) * row.slack);
      }
    });
}

TEST_CASE("gradients agree with difference quotients") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const Inputs inputs = leaves(row, sample, DType::f64, true);
    if (varied(inputs).empty()) return;
    CHECK(gradcheck([&](std::span<const Tensor> x) { return row.call(Inputs(x.begin(), x.end())); }, inputs) <= 1e-8 * row.slack);
  });
}

TEST_CASE("second derivatives agree with difference quotients") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const Inputs inputs = leaves(row, sample, DType::f64, true);
    if (varied(inputs).empty() || !row.second_order) return;
    CHECK(gradcheck([&](std::span<const Tensor> x) { return row.call(Inputs(x.begin(), x.end())); }, inputs, {.second_order = true}) <= 1e-7 * row.slack);
  });
}

TEST_CASE("a recorded backward pass gives the same gradients, and so does a strided upstream gradient") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const Inputs inputs = leaves(row, sample, DType::f64, true), asked = varied(inputs);
    const Inputs plain = gradients(row.call(inputs), asked, false);
    const Inputs strided = gradients(row.call(inputs), asked, false, true);
    const Inputs recorded = row.second_order ? gradients(row.call(inputs), asked, true) : plain;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      REQUIRE(plain[i].defined() == recorded[i].defined());
      if (!plain[i].defined()) continue;
      CHECK(plain[i].shape() == asked[i].shape());
      CHECK(distance(Array(plain[i]), Array(recorded[i])) <= 1e-12 * row.slack);
      CHECK(distance(Array(plain[i]), Array(strided[i])) <= 1e-12 * row.slack);
    }
  });
}

TEST_CASE("transposed, sliced and repeated inputs give the same results and gradients") {
  for_all([](const OpRow& row, const Inputs& sample) {
    if (!row.views) return;
    const Inputs inputs = leaves(row, sample, DType::f64, true);
    const Inputs expected = gradients(row.call(inputs), varied(inputs), false);
    const Array value(row.call(inputs));
    for (auto arrange : {in_transposed, in_sliced}) {
      Inputs viewed;
      for (const Tensor& x : inputs) viewed.push_back(x.defined() ? arrange(x) : x);
      const Tensor out = row.call(viewed);
      CHECK(distance(Array(out), value) <= 1e-13 * row.slack);
      const Inputs got = gradients(out, varied(inputs), false);
      REQUIRE(got.size() == expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        REQUIRE(got[i].defined() == expected[i].defined());
        if (got[i].defined()) CHECK(distance(Array(got[i]), Array(expected[i])) <= 1e-12 * row.slack);
      }
    }
    Inputs repeated, copied;
    for (const Tensor& x : sample) {
      repeated.push_back(floating(x) ? in_repeated(x) : x);
      copied.push_back(floating(x) ? clone(repeated.back()) : x);
    }
    CHECK(distance(Array(row.call(repeated)), Array(row.call(copied))) <= 1e-13 * row.slack);
  });
}

TEST_CASE("frozen inputs record and keep nothing, and all memory returns") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const std::int64_t start = live_blocks();
    {
      const Inputs inputs = leaves(row, sample, DType::f64, false);
      const std::int64_t before = live_blocks();
      const Tensor out = row.call(inputs);
      CHECK(out.is_leaf());
      CHECK(!out.requires_grad());
      CHECK(live_blocks() <= before + 1);
    }
    CHECK(live_blocks() == start);
    {
      const Inputs inputs = leaves(row, sample, DType::f64, true);
      const Tensor unused = row.call(inputs);  // a graph that is never run
      gradients(row.call(inputs), varied(inputs), false);
      if (row.second_order) gradients(row.call(inputs), varied(inputs), true);
      if (varied(inputs).empty()) CHECK(unused.is_leaf());
      else CHECK(unused.requires_grad());
      NoGrad no_grad;
      CHECK(!row.call(inputs).node());
    }
    CHECK(live_blocks() == start);
  });
}

TEST_CASE("bad inputs are refused with the op's name and the values") {
  for (const OpRow& row : all_rows())
    for (const BadInput& bad : row.bad) {
      INFO(row.label(), " should say: ", bad.words);
      std::string message = "nothing was thrown";
      try {
        bad.call();
      } catch (const Error& error) {
        message = error.what();
      }
      INFO("it said: ", message);
      CHECK(message.find(bad.words) != std::string::npos);
    }
}

}  // namespace cambium::test
