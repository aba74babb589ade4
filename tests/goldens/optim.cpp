// Optimizers, schedules and clipping against trajectories of the reference implementations, in float64.
#include "tests/goldens/optim.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "autograd/ops.h"
#include "nn/optim/adafactor.h"
#include "nn/optim/adamw.h"
#include "nn/optim/clip.h"
#include "nn/optim/schedules.h"
#include "nn/optim/sgd.h"
#include "tests/goldens/base_models.h"

namespace cambium::test {

namespace {

constexpr double kTolerance = 1e-10;

using Tensors = std::map<std::string, Tensor>;

std::unique_ptr<Optimizer> make(const std::string& kind, const Json& o, const std::vector<Tensor>& parameters) {
  const auto number = [&](const char* key) { return o.at(key).get<double>(); };
  if (kind == "AdamW" || kind == "Adam")
    return std::make_unique<AdamW>(parameters, AdamWConfig{.learning_rate = number("lr"), .beta1 = o.at("betas")[0], .beta2 = o.at("betas")[1], .epsilon = number("eps"),
                                                           .weight_decay = number("weight_decay"), .amsgrad = o.at("amsgrad"), .decoupled = o.at("decoupled_weight_decay")});
  if (kind == "SGD")
    return std::make_unique<Sgd>(parameters, SgdConfig{.learning_rate = number("lr"), .momentum = number("momentum"), .dampening = number("dampening"),
                                                       .weight_decay = number("weight_decay"), .nesterov = o.at("nesterov")});
  check<ConfigError>(kind == "Adafactor", "optimizer '", kind, "' is not known");
  const auto optional = [&](const char* key) { return o.at(key).is_null() ? std::optional<double>() : std::optional<double>(number(key)); };
  return std::make_unique<Adafactor>(parameters, AdafactorConfig{.learning_rate = optional("lr"), .epsilon = o.at("eps")[0], .epsilon_scale = o.at("eps")[1],
                                                                 .clip_threshold = number("clip_threshold"), .decay_rate = number("decay_rate"), .beta1 = optional("beta1"),
                                                                 .weight_decay = number("weight_decay"), .scale_parameter = o.at("scale_parameter"),
                                                                 .relative_step = o.at("relative_step"), .warmup_init = o.at("warmup_init")});
}

Schedule make_schedule(const Json& entry) {
  const Json& a = entry.at("arguments");
  const std::string function = entry.at("function");
  const auto steps = [&](const char* key) { return a.value(key, std::int64_t{0}); };
  const std::int64_t warmup = steps("num_warmup_steps"), total = steps("num_training_steps");
  if (function == "get_constant_schedule" || function == "get_constant_schedule_with_warmup") return constant_schedule(warmup);
  if (function == "get_linear_schedule_with_warmup") return linear_schedule(warmup, total);
  if (function == "get_cosine_schedule_with_warmup") return cosine_schedule(warmup, total, a.value("num_cycles", 0.5));
  if (function == "get_cosine_with_hard_restarts_schedule_with_warmup") return cosine_restarts_schedule(warmup, total, a.value("num_cycles", 1.0));
  if (function == "get_polynomial_decay_schedule_with_warmup")
    return polynomial_schedule(warmup, total, entry.at("base_lr"), a.value("lr_end", 1e-7), a.value("power", 1.0));
  if (function == "get_inverse_sqrt_schedule") return inverse_sqrt_schedule(warmup);
  if (function == "get_cosine_with_min_lr_schedule_with_warmup") return cosine_schedule(warmup, total, 0.5, a.at("min_lr_rate").get<double>());
  check<ConfigError>(function == "get_wsd_schedule", "schedule '", function, "' is not known");
  return warmup_stable_decay_schedule(warmup, steps("num_decay_steps"), total);
}

void compare_trajectory(const Json& entry, const Tensors& tensors, Comparison& out) {
  const std::string name = entry.at("name");
  std::vector<Tensor> parameters;
  for (const char* p : {"/p0", "/p1"}) parameters.push_back(clone(to_device(tensors.at(name + p + ".start"), comparison_device())).set_requires_grad(true));
  const auto optimizer = make(entry.at("optimizer"), entry.at("options"), parameters);
  for (std::int64_t step = 0; step < entry.at("steps").get<std::int64_t>(); ++step) {
    // A saved and loaded state in the middle must change nothing.
    if (step == 5) {
      std::vector<NamedTensor> state;
      for (const auto& [key, tensor] : optimizer->state()) state.emplace_back(key, clone(tensor));
      optimizer->load_state(state);
    }
    for (std::size_t i = 0; i < 2; ++i) parameters[i].set_grad(to_device(contiguous(select(tensors.at(name + "/p" + std::to_string(i) + ".grads"), 0, step)), comparison_device()));
    optimizer->step();
    for (std::size_t i = 0; i < 2; ++i)
      out.close(name, detach(parameters[i]), contiguous(select(tensors.at(name + "/p" + std::to_string(i) + ".after"), 0, step)), kTolerance);
  }
}

void compare_schedule(const std::string& name, const Json& entry, Comparison& out) {
  const Schedule schedule = make_schedule(entry);
  const double rate = entry.at("base_lr");
  const std::vector<double> expected = entry.at("lr");
  for (std::size_t step = 0; step < expected.size(); ++step)
    out.within(name, std::fabs(rate * schedule(static_cast<std::int64_t>(step)) - expected[step]), 1e-12);
}

void compare_clipping(const Json& entry, const Tensors& tensors, Comparison& out) {
  const std::string name = entry.at("name");
  std::vector<Tensor> parameters;
  for (int i = 0; i < 3; ++i) {
    const Tensor g = to_device(tensors.at(name + "/g" + std::to_string(i) + ".before"), comparison_device());
    parameters.push_back(zeros(g.shape(), g.dtype(), g.device()).set_requires_grad(true));
    parameters.back().set_grad(clone(g));
  }
  const Json& type = entry.at("norm_type");
  const double norm = clip_grad_norm(parameters, entry.at("max_norm"), {.norm_type = type.is_string() ? std::numeric_limits<double>::infinity() : type.get<double>()});
  const double expected = entry.at("total_norm").get<double>();
  out.within(name + " norm", std::fabs(norm - expected), 1e-12 * std::max(1.0, expected));
  for (int i = 0; i < 3; ++i) out.close(name, parameters[static_cast<std::size_t>(i)].grad(), tensors.at(name + "/g" + std::to_string(i) + ".after"), kTolerance);
}

}  // namespace

Comparison compare_optimizers(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const Json json = read_json_file((std::filesystem::path(folder) / "optim.json").string());
  const Tensors tensors = read_tensors((std::filesystem::path(folder) / "optim.safetensors").string());
  for (const Json& entry : json.at("optimizers")) compare_trajectory(entry, tensors, out);
  for (const auto& [key, entry] : json.at("schedules").items()) compare_schedule(key, entry, out);
  for (const Json& entry : json.at("clipping")) compare_clipping(entry, tensors, out);
  out.same("counts", json.at("optimizers").size() >= 11 && json.at("schedules").size() >= 12 && json.at("clipping").size() >= 4, "the file has too few cases");
  return out;
}

}  // namespace cambium::test
