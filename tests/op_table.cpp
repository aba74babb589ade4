// Properties of every op, tested over all rows of the table: values, gradients, views, element types, memory, errors.
#include "tests/op_table.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/gradcheck.h"
#include "kernels/device.h"

namespace cambium::test {

const std::vector<OpRow>& all_rows() {
  static const std::vector<OpRow> rows = [] {
    std::vector<OpRow> all;
    for (auto family : {pointwise_rows, binary_rows, compare_rows, reduce_rows, shape_rows, index_rows, random_rows, matrix_rows, norm_rows, attention_rows})
      for (OpRow& row : family()) all.push_back(std::move(row));
    return all;
  }();
  return rows;
}

namespace {

bool listed(const std::vector<int>& places, std::size_t i) { return std::find(places.begin(), places.end(), static_cast<int>(i)) != places.end(); }
bool floating(const Tensor& t) { return t.defined() && is_float(t.dtype()); }

// The sample in another dtype; floating inputs are leaves that require a gradient where the row says so.
Inputs leaves(const OpRow& row, const Inputs& sample, DType dtype, bool grads) {
  Inputs out;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (!floating(sample[i])) {
      out.push_back(sample[i]);
      continue;
    }
    const Tensor x = listed(row.wide, i) ? clone(detach(sample[i])) : clone(to_dtype(detach(sample[i]), dtype));
    if (grads && row.differentiable && !listed(row.constant, i)) x.set_requires_grad(true);
    out.push_back(x);
  }
  return out;
}

Inputs varied(const Inputs& inputs) {
  Inputs out;
  for (const Tensor& x : inputs)
    if (x.defined() && x.requires_grad()) out.push_back(x);
  return out;
}

std::vector<Array> arrays(const Inputs& inputs) {
  std::vector<Array> out;
  for (const Tensor& x : inputs) out.emplace_back(x);
  return out;
}

// Largest |a - b| / (1 + |b|); infinite when shapes differ or only one is finite.
double distance(const Array& a, const Array& b) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (a.shape != b.shape) return infinity;
  double worst = 0.0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    const double x = a.values[i], y = b.values[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double d = std::fabs(x - y) / (1.0 + std::fabs(y));
    worst = std::max(worst, std::isfinite(d) ? d : infinity);
  }
  return worst;
}

// Roundings of a handful of operations in the type's own precision.
double tolerance(DType dtype) {
  switch (dtype) {
    case DType::f64: return 2e-13;
    case DType::f32: return 4e-6;
    case DType::bf16: return 1.6e-2;
    default: return 2e-3;
  }
}

// Gradients of <out, weights> with weights that depend on the position only.
Inputs gradients(const Tensor& out, const Inputs& inputs, bool create_graph, bool strided = false) {
  if (inputs.empty() || out.count() == 0) return {};
  Tensor weights = to_dtype(random_uniform(out.shape(), RandomKey{5, 6}, 0.5, 1.5, DType::f64), out.dtype());
  if (strided && out.rank() >= 2) weights = transpose(contiguous(transpose(weights)));
  return grad(std::span(&out, 1), inputs, std::span(&weights, 1), {.create_graph = create_graph});
}

// The same values in other memory: transposed, or every second element of something larger.
Tensor in_transposed(const Tensor& x) { return x.rank() < 2 ? x : transpose(contiguous(transpose(x, 0, -1)), 0, -1); }
Tensor in_sliced(const Tensor& x) {
  if (x.rank() == 0) return select(stack(Inputs{x, x, x}), 0, 1);
  return slice(slice(repeat_interleave(pad(x, 1, 2, -1), 2, -1), -1, 2), -1, 0, 2 * x.size(-1), 2);
}
Tensor in_repeated(const Tensor& x) {
  if (x.rank() == 0 || x.size(0) == 0) return x;
  return broadcast_to(slice(x, 0, 0, 1), x.shape());
}

std::int64_t live_blocks() { return kernels::memory_statistics(Device{}).live_blocks; }

template <class F>
void for_all(F&& f) {
  for (const OpRow& row : all_rows())
    for (std::size_t i = 0; i < row.samples.size(); ++i) {
      INFO(row.label(), ", sample ", i);
      f(row, row.samples[i]);
    }
}

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
