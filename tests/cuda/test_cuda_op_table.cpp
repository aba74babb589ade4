// The table of ops on the device: values, gradients and second derivatives are the CPU's, in every type and layout, the same bits in every order of threads,
// and all memory returns. With KEMU_PERTURB=1 the same bounds hold although the device's functions are wrong by up to their documented error.
#include <string>
#include <vector>

#include "emulation.h"
#include "kernels/device.h"
#include "tests/op_table_checks.h"

namespace cambium::test {

namespace {

constexpr Device kGpu{DeviceType::cuda, 0};

// For rows that make tensors of no tensors.
struct CreatedOn {
  explicit CreatedOn(Device device) { created_on() = device; }
  ~CreatedOn() { created_on() = Device{}; }
};

std::int64_t live_blocks() { return kernels::memory_statistics(kGpu).live_blocks; }

Tensor on_device(const OpRow& row, const Inputs& inputs) {
  const CreatedOn created(kGpu);
  const Tensor out = row.call(inputs);
  CHECK(out.device() == kGpu);
  return out;
}

void require_near(const Inputs& found, const Inputs& expected, double bound) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i].defined() == expected[i].defined());
    if (!found[i].defined()) continue;
    CHECK(found[i].device() == kGpu);
    CHECK(distance(Array(found[i]), Array(expected[i])) <= bound);
  }
}

// Derivatives of <first derivatives, weights>; undefined where nothing depends on an input.
Inputs second_gradients(const OpRow& row, const Inputs& inputs) {
  const Inputs asked = varied(inputs);
  Inputs second;
  for (const Tensor& first : gradients(row.call(inputs), asked, true)) {
    if (!first.defined() || !first.requires_grad()) continue;
    for (const Tensor& g : gradients(first, asked, true)) second.push_back(g);
  }
  return second;
}

std::vector<std::byte> bits_of(const Tensor& t) {
  const Tensor host = contiguous(to_device(detach(t), Device{}));
  const auto* data = host.view().as<const std::byte>();
  return {data, data + host.count() * item_size(host.dtype())};
}

}  // namespace

TEST_CASE("values and gradients in every type are within rounding of the CPU's in float64") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
    for_all([dtype](const OpRow& row, const Inputs& sample) {
      if (dtype != DType::f64 && !row.narrow) return;
      INFO("in ", std::string(name_of(dtype)));
      const Inputs exact = leaves(row, leaves(row, sample, dtype, false), DType::f64, true), inputs = leaves(row, sample, dtype, true, kGpu);
      const Tensor out = on_device(row, inputs), expected = row.call(exact);
      CHECK(distance(Array(out), Array(expected)) <= tolerance(dtype) * row.slack);
      if (!row.differentiable) return;
      require_near(gradients(out, varied(inputs), false), gradients(expected, varied(exact), false), 4.0 * tolerance(dtype) * row.slack);
    });
}

TEST_CASE("results have the CPU's type") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
    for_all([dtype](const OpRow& row, const Inputs& sample) {
      if (dtype != DType::f64 && !row.narrow) return;
      CHECK(on_device(row, leaves(row, sample, dtype, false, kGpu)).dtype() == row.call(leaves(row, sample, dtype, false)).dtype());
    });
}

TEST_CASE("second derivatives are the CPU's") {
  for_all([](const OpRow& row, const Inputs& sample) {
    if (!row.second_order) return;
    const Inputs host = leaves(row, sample, DType::f64, true), inputs = leaves(row, sample, DType::f64, true, kGpu);
    if (varied(inputs).empty()) return;
    require_near(second_gradients(row, inputs), second_gradients(row, host), 16.0 * tolerance(DType::f64) * row.slack);
  });
}

TEST_CASE("transposed, sliced and repeated inputs give the same results and gradients, and so does a strided upstream gradient") {
  for (DType dtype : {DType::f64, DType::f32})
    for_all([dtype](const OpRow& row, const Inputs& sample) {
      if (!row.views || (dtype != DType::f64 && !row.narrow)) return;
      const Inputs inputs = leaves(row, sample, dtype, true, kGpu);
      const Tensor out = on_device(row, inputs);
      const Inputs expected = gradients(out, varied(inputs), false);
      const double bound = 4.0 * tolerance(dtype) * row.slack;
      require_near(gradients(on_device(row, inputs), varied(inputs), false, true), expected, bound);
      for (auto arrange : {in_transposed, in_sliced}) {
        Inputs viewed;
        for (const Tensor& x : inputs) viewed.push_back(x.defined() ? arrange(x) : x);
        const Tensor seen = on_device(row, viewed);
        CHECK(distance(Array(seen), Array(out)) <= bound);
        require_near(gradients(seen, varied(inputs), false), expected, bound);
      }
      Inputs repeated, copied;
      for (const Tensor& x : leaves(row, sample, dtype, false, kGpu)) {
        repeated.push_back(floating(x) ? in_repeated(x) : x);
        copied.push_back(floating(x) ? clone(repeated.back()) : x);
      }
      CHECK(distance(Array(on_device(row, repeated)), Array(on_device(row, copied))) <= bound);
    });
}

TEST_CASE("every order of threads and blocks gives the same bits") {
  const kemu::Order before = kemu::settings().order;
  for (DType dtype : {DType::f32, DType::bf16})
    for_all([dtype](const OpRow& row, const Inputs& sample) {
      if (!row.narrow) return;
      std::vector<std::vector<std::byte>> first;
      for (const kemu::Order order : {kemu::Order::forward, kemu::Order::reverse, kemu::Order::random}) {
        kemu::settings().order = order;
        const Inputs inputs = leaves(row, sample, dtype, true, kGpu);
        const Tensor out = on_device(row, inputs);
        std::vector<std::vector<std::byte>> bits{bits_of(out)};
        if (row.differentiable)
          for (const Tensor& g : gradients(out, varied(inputs), false)) bits.push_back(g.defined() ? bits_of(g) : std::vector<std::byte>{});
        if (first.empty()) first = bits;
        CHECK(bits == first);
      }
    });
  kemu::settings().order = before;
}

TEST_CASE("frozen inputs record and keep nothing, and all memory returns") {
  for_all([](const OpRow& row, const Inputs& sample) {
    const std::int64_t start = live_blocks();
    {
      const Inputs inputs = leaves(row, sample, DType::f64, false, kGpu);
      const std::int64_t given = live_blocks();
      const Tensor out = on_device(row, inputs);
      CHECK(!out.requires_grad());
      CHECK(live_blocks() <= given + 1);
    }
    CHECK(live_blocks() == start);
    {
      const Inputs inputs = leaves(row, sample, DType::f64, true, kGpu);
      const Tensor unused = on_device(row, inputs);  // a graph that is never run
      gradients(on_device(row, inputs), varied(inputs), false);
      if (row.second_order) gradients(on_device(row, inputs), varied(inputs), true);
    }
    CHECK(live_blocks() == start);
  });
}

TEST_CASE("inputs on two devices are an error that names the op and both") {
  for_all([](const OpRow& row, const Inputs& sample) {
    Inputs inputs = leaves(row, sample, DType::f64, false);
    std::size_t defined = 0, last = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].defined()) ++defined, last = i;
    if (defined < 2 || inputs[last].count() == 0) return;
    inputs[last] = to_device(inputs[last], kGpu);
    std::string message = "nothing was thrown";
    try {
      row.call(inputs);
    } catch (const Error& error) {
      message = error.what();
    }
    INFO("it said: ", message);
    CHECK(message.find("cpu") != std::string::npos);
    CHECK(message.find("cuda:0") != std::string::npos);
  });
}

}  // namespace cambium::test
