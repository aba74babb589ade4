// Optimizer steps and other work over lists of tensors on the device against the CPU's.
#include <deque>
#include <limits>

#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

// Tensors of every type, sizes around a thread's and a block's share, none, and more of them than one launch takes.
struct Lists {
  struct Types {
    DType parameter, gradient;
  };
  std::vector<std::deque<Array>> operands{4};  // parameters, gradients, states

  Lists() {
    const Types types[] = {{DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}, {DType::f16, DType::f16}, {DType::f16, DType::f32}, {DType::f64, DType::f64},
                           {DType::f64, DType::f32}};
    unsigned seed = 1;
    for (const std::int64_t n : {1, 3, 4, 1000, 4096, 9001, 0}) {
      for (const Types& t : types) add(t, n, seed++);
    }
    for (int i = 0; i < 60; ++i) add(types[0], 5 + i, seed++);
  }
  void add(const Types& t, std::int64_t n, unsigned seed) {
    const DType state = t.parameter == DType::f64 ? DType::f64 : DType::f32;
    operands[0].emplace_back(t.parameter, Shape{n}).random(seed);
    operands[1].emplace_back(t.gradient, Shape{n}).random(seed + 1000);
    operands[2].emplace_back(state, Shape{n}).random(seed + 2000);
    operands[3].emplace_back(state, Shape{n}).random(seed + 3000, 0, 2);
  }
  std::size_t size() const { return operands[0].size(); }
};

// Runs a step on the CPU's and the device's copies of the lists and compares all that it may have written. `skip` elements are left at the front of each
// tensor, so that nothing is aligned; states from `states` on are absent.
template <class Step>
void compare_step(std::int64_t skip, int states, Step&& step) {
  Lists host;
  std::vector<std::deque<DeviceArray>> device(4);
  for (std::size_t i = 0; i < 4; ++i)
    for (const Array& a : host.operands[i]) device[i].emplace_back(a);
  const auto tensors_of = [&](const auto& operands) {
    std::vector<OptimizerTensor> tensors;
    for (std::size_t k = 0; k < host.size(); ++k) {
      OptimizerTensor t{operands[0][k], operands[1][k], states > 0 ? Strided(operands[2][k]) : Strided{}, states > 1 ? Strided(operands[3][k]) : Strided{}};
      for (Strided* s : {&t.parameter, &t.gradient, &t.state1, &t.state2}) {
        if (!*s || s->shape[0] <= skip) continue;
        s->data = s->as<std::byte>() + skip * item_size(s->dtype);
        s->shape[0] -= skip;
      }
      tensors.push_back(t);
    }
    return tensors;
  };
  const std::vector<OptimizerTensor> on_cpu = tensors_of(host.operands), on_gpu = tensors_of(device);
  step(table(), test::cpu(), on_cpu.data(), static_cast<int>(on_cpu.size()));
  step(cuda::table(), gpu(), on_gpu.data(), static_cast<int>(on_gpu.size()));
  // A few roundings of numbers up to 2 in the type of the states, one to the parameter's.
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t k = 0; k < host.size(); ++k) {
      const double eps = epsilon(host.operands[0][k].view().dtype == DType::f64 ? DType::f64 : DType::f32);
      require_close(device[i][k].fetch(), host.operands[i][k], epsilon(host.operands[i][k].view().dtype) + 8 * eps, 16 * eps);
    }
  }
}

}  // namespace

TEST_CASE("AdamW steps all tensors at once") {
  for (const std::int64_t skip : {0, 1}) {
    for (const std::int64_t number : {1, 7}) {
      const AdamWOptions options{0.01, 0.9, 0.99, 1e-6, 0.1, number};
      compare_step(skip, 2, [&](const Kernels& k, Context& c, const OptimizerTensor* tensors, int n) { k.adamw(c, tensors, n, options); });
    }
  }
}

TEST_CASE("SGD with and without momentum, dampening and Nesterov's look ahead") {
  for (const SgdOptions& options : {SgdOptions{0.1, 0, 0, 0, false, true}, SgdOptions{0.1, 0.9, 0.1, 0.01, false, true}, SgdOptions{0.1, 0.9, 0.1, 0.01, false, false},
                                    SgdOptions{0.1, 0.9, 0, 0.01, true, false}})
    for (const std::int64_t skip : {0, 1})
      compare_step(skip, options.momentum != 0 ? 1 : 0, [&](const Kernels& k, Context& c, const OptimizerTensor* tensors, int n) { k.sgd(c, tensors, n, options); });
}

TEST_CASE("steps and scaling give the same bits in every order of threads and blocks") {
  const auto bits_after = [](const auto& step) {
    Lists host;
    std::vector<std::deque<DeviceArray>> device(4);
    for (std::size_t i = 0; i < 4; ++i)
      for (const Array& a : host.operands[i]) device[i].emplace_back(a);
    std::vector<OptimizerTensor> tensors;
    for (std::size_t k = 0; k < host.size(); ++k) tensors.push_back({device[0][k], device[1][k], device[2][k], device[3][k]});
    step(tensors);
    std::vector<std::vector<std::byte>> bits;
    for (const auto& arrays : device)
      for (const DeviceArray& a : arrays) bits.push_back(a.fetch().bytes());
    return bits;
  };
  const auto check = [&](const auto& step) {
    std::vector<std::vector<std::byte>> first;
    for (const kemu::Order order : {kemu::Order::forward, kemu::Order::reverse, kemu::Order::random}) {
      kemu::settings().order = order;
      const auto bits = bits_after(step);
      kemu::settings().order = kemu::Order::forward;
      CHECK((first.empty() || bits == first));
      first = bits;
    }
  };
  check([](const std::vector<OptimizerTensor>& tensors) { cuda::table().adamw(gpu(), tensors.data(), static_cast<int>(tensors.size()), AdamWOptions{0.01, 0.9, 0.99, 1e-6, 0.1, 7}); });
  check([](const std::vector<OptimizerTensor>& tensors) { cuda::table().sgd(gpu(), tensors.data(), static_cast<int>(tensors.size()), SgdOptions{0.1, 0.9, 0.1, 0.01, true, false}); });
  check([](const std::vector<OptimizerTensor>& tensors) {
    std::vector<Strided> gradients;
    for (const OptimizerTensor& t : tensors) gradients.push_back(t.gradient);
    cuda::table().scale_all(gpu(), gradients.data(), static_cast<int>(gradients.size()), 0.37);
  });
}

TEST_CASE("gradients of another type are refused") {
  const DeviceArray parameter(Array(DType::f32, {4})), gradient(Array(DType::bf16, {4})), state(Array(DType::f32, {4}));
  const OptimizerTensor tensor{parameter, gradient, state, state};
  CHECK_THROWS_AS(cuda::table().adamw(gpu(), &tensor, 1, AdamWOptions{0.01, 0.9, 0.99, 1e-6, 0.1, 1}), DTypeError);
}

TEST_CASE("sums of squares and scaling of lists") {
  Lists host;
  std::deque<DeviceArray> device;
  std::vector<Strided> on_cpu, on_gpu;
  for (const std::deque<Array>& arrays : {host.operands[0], host.operands[1]}) {
    for (const Array& a : arrays) device.emplace_back(a);
  }
  for (std::size_t i = 0; i < 2; ++i)
    for (const Array& a : host.operands[i]) on_cpu.push_back(a.view());
  for (const DeviceArray& a : device) on_gpu.push_back(a);
  const int n = static_cast<int>(on_cpu.size());
  Array expected(DType::f64, {1});
  table().sum_of_squares(test::cpu(), expected, on_cpu.data(), n);
  double bits = 0;
  for (const kemu::Order order : {kemu::Order::forward, kemu::Order::reverse, kemu::Order::random}) {
    kemu::settings().order = order;
    const DeviceArray sum(Array(DType::f64, {1}));
    cuda::table().sum_of_squares(gpu(), sum, on_gpu.data(), n);
    const double found = sum.fetch()[0];
    CHECK(close(found, expected[0], 1e-13));
    CHECK((bits == 0 || found == bits));
    bits = found;
  }
  kemu::settings().order = kemu::Order::forward;
  table().scale_all(test::cpu(), on_cpu.data(), n, 0.37);
  cuda::table().scale_all(gpu(), on_gpu.data(), n, 0.37);
  for (std::size_t i = 0; i < device.size(); ++i) {
    const std::size_t half = host.size();
    require_close(device[i].fetch(), i < half ? host.operands[0][i] : host.operands[1][i - half], 0, 0);
  }
  const DeviceArray sum(Array(DType::f64, {1}));
  cuda::table().sum_of_squares(gpu(), sum, nullptr, 0);
  CHECK(sum.fetch()[0] == 0);
  cuda::table().scale_all(gpu(), nullptr, 0, 2);
}
