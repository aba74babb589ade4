// Optimizers beyond their numbers: groups, missing gradients, state by name, refusals, clipping of bad gradients.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "gradient_by_projection.h"
#include "nn/models/model.h"
#include "nn/optim/adamw.h"
#include "nn/optim/clip.h"
#include "nn/optim/schedules.h"
#include "nn/optim/sgd.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

Tensor parameter(double value, std::int64_t n = 3, DType dtype = DType::f64) { return full({n}, value, dtype).set_requires_grad(true); }
double first(const Tensor& x) { return x.to_vector<double>().front(); }

}  // namespace

TEST_CASE("groups have their own rate and decay, and the schedule scales all") {
  const Tensor a = parameter(1.0), b = parameter(1.0);
  const auto named = as_parameters(std::vector<Tensor>{a, b});
  Sgd sgd(std::vector<ParameterGroup>{{{named[0]}, {}, {}}, {{named[1]}, 0.5, 0.1}}, {.learning_rate = 0.1});
  a.set_grad(ones({3}, DType::f64));
  b.set_grad(ones({3}, DType::f64));
  sgd.set_learning_rate_factor(0.5);
  CHECK(sgd.learning_rate(0) == 0.05);
  CHECK(sgd.learning_rate(1) == 0.25);
  sgd.step();
  CHECK(first(a) == doctest::Approx(1.0 - 0.05));
  CHECK(first(b) == doctest::Approx(1.0 - 0.25 * 1.1));
  sgd.zero_grad();
  CHECK(!a.grad().defined());
}

TEST_CASE("a parameter without gradient") {
  const Tensor with = parameter(1.0), without = parameter(1.0);
  with.set_grad(ones({3}, DType::f64));
  AdamW strict({with, without}, {.learning_rate = 0.1});
  check_throws<StateError>([&] { strict.step(); }, {"AdamW", "'1'", "no gradient"});
  CHECK(first(with) == 1.0);
  AdamW skipping({with, without}, {.learning_rate = 0.1, .weight_decay = 0.5, .missing_gradient = MissingGradient::skip});
  skipping.step();
  CHECK(first(with) != 1.0);
  CHECK(first(without) == 1.0);
  AdamW decaying({with, without}, {.learning_rate = 0.1, .weight_decay = 0.5, .missing_gradient = MissingGradient::zero});
  decaying.step();
  CHECK(first(without) == doctest::Approx(0.95));
  decaying.zero_grad();
  check_throws<StateError>([&] { decaying.step(); }, {"AdamW", "backward"});
}

TEST_CASE("state goes into a new optimizer and the run continues bit for bit") {
  const Tensor a = parameter(1.0), b = parameter(1.0);
  AdamW one({a}, {.learning_rate = 0.1}), two({b}, {.learning_rate = 0.1});
  for (int i = 0; i < 3; ++i) {
    a.set_grad(full({3}, 0.3 * i - 0.2, DType::f64));
    one.step();
  }
  {
    NoGrad no_grad;
    copy_into(b, a);
  }
  std::vector<NamedTensor> state = one.state();
  REQUIRE(state.size() == 3);
  CHECK(state[0].first == "0.step");
  CHECK(state[0].second.item() == 3.0);
  two.load_state(state);
  for (const Tensor& x : {a, b}) x.set_grad(full({3}, 0.7, DType::f64));
  one.step();
  two.step();
  CHECK(a.to_vector<double>() == b.to_vector<double>());

  std::vector<NamedTensor> wrong = state;
  wrong[1].second = zeros({4});
  check_throws<ShapeError>([&] { two.load_state(wrong); }, {"'0.m'", "[3]", "[4]"});
  wrong = state;
  wrong.pop_back();
  check_throws<NameError>([&] { two.load_state(wrong); }, {"'0.v'", "missing"});
  wrong = state;
  wrong.emplace_back("9.m", zeros({3}));
  check_throws<NameError>([&] { two.load_state(wrong); }, {"'9.m'"});
  CHECK(two.state()[0].second.item() == 4.0);
}

TEST_CASE("sixteen-bit parameters keep float32 state") {
  const Tensor p = parameter(1.0, 4, DType::bf16);
  AdamW adam({p}, {.learning_rate = 0.125});
  p.set_grad(ones({4}, DType::bf16));
  adam.step();
  CHECK(adam.state()[1].second.dtype() == DType::f32);
  CHECK(first(p) == 0.875);
}

TEST_CASE("what cannot be optimized is refused") {
  const Tensor p = parameter(1.0);
  check_throws<ConfigError>([&] { AdamW({p}, {.learning_rate = -1.0}); }, {"AdamW", "learning_rate"});
  check_throws<ConfigError>([&] { AdamW({p}, {.beta1 = 1.0}); }, {"beta1"});
  check_throws<ConfigError>([&] { AdamW(std::vector<Tensor>{}); }, {"no parameters"});
  const auto named = as_parameters(std::vector<Tensor>{p});
  check_throws<ConfigError>([&] { Sgd({named[0], named[0]}); }, {"'0'", "twice"});
  check_throws<ConfigError>([&] { Sgd({p}, {.nesterov = true}); }, {"nesterov"});
  check_throws<ConfigError>([&] { warmup_stable_decay_schedule(5, 6, 10); }, {"schedule"});
}

TEST_CASE("a model that is mapped from its file is trained in full; the file stays as it was") {
  const TemporaryFolder folder;
  {
    NoGrad no_grad;
    save_pretrained(*tiny_llama(), folder.path());
  }
  const std::string file = folder.file("model.safetensors"), before = read_all(file);
  const auto model = AutoModelForCausalLM::from_pretrained(folder.path());
  const auto parameters = model->named_parameters();
  REQUIRE(parameters.front().second->tensor.storage()->kind() == Storage::Kind::mapped);
  check_throws<StateError>([&] { AdamW({parameters.front().second->tensor}); }, {"tensor 0", "mapped", "clone"});
  model->set_requires_grad(true);
  const auto start = values_of(*model);
  AdamW optimizer(parameters, {.learning_rate = 1e-2});
  CHECK(values_of(*model) == start);
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  std::vector<double> losses;
  for (int step = 0; step < 3; ++step) {
    const Tensor loss = model->forward(input).loss;
    losses.push_back(loss.item());
    backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  CHECK(losses[2] < losses[0]);
  const auto after = values_of(*model);
  for (std::size_t i = 0; i < after.size(); ++i) CHECK_MESSAGE(after[i].second != start[i].second, after[i].first);
  CHECK(read_all(file) == before);
}

TEST_CASE("clipping skips absent gradients and names bad ones") {
  const Tensor a = parameter(0.0), b = parameter(0.0), c = parameter(0.0);
  a.set_grad(full({3}, 4.0, DType::f64));
  CHECK(clip_grad_norm(std::vector<Tensor>{a, b, c}, std::numeric_limits<double>::infinity()) == doctest::Approx(std::sqrt(48.0)));
  CHECK(first(a.grad()) == 4.0);
  c.set_grad(full({3}, std::numeric_limits<double>::quiet_NaN(), DType::f64));
  check_throws<StateError>([&] { clip_grad_norm(std::vector<Tensor>{a, b, c}, 1.0); }, {"clip_grad_norm", "'2'", "3 of 3"});
  CHECK(first(a.grad()) == 4.0);
  CHECK(std::isnan(clip_grad_norm(std::vector<Tensor>{a, b, c}, 1.0, {.allow_not_finite = true})));
  CHECK(std::isnan(clip_grad_norm(std::vector<Tensor>{a, b, c}, 1.0, {.norm_type = std::numeric_limits<double>::infinity(), .allow_not_finite = true})));
  CHECK(first(a.grad()) == 4.0);
  check_throws<ConfigError>([&] { clip_grad_norm(std::vector<Tensor>{a}, 0.0); }, {"max_norm"});
  CHECK(clip_grad_norm(std::vector<Tensor>{b}, 1.0) == 0.0);
}
