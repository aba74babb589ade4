// AdamW: one kernel call for all tensors of a group; the rare variants are composed of ops.
#include "nn/optim/adamw.h"

#include <cmath>

#include "autograd/ops/support.h"

namespace cambium {

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWConfig& config)
    : Optimizer("AdamW", std::move(groups), config.learning_rate, config.weight_decay, config.missing_gradient), config_(config) {
  for (const auto& [name, beta] : {std::pair{"beta1", config.beta1}, std::pair{"beta2", config.beta2}})
    check<ConfigError>(beta >= 0.0 && beta < 1.0, "AdamW: ", name, " must be at least 0 and below 1, found ", beta);
  check<ConfigError>(config.epsilon >= 0.0, "AdamW: epsilon must not be negative, found ", config.epsilon);
}
AdamW::AdamW(std::vector<NamedParameter> parameters, const AdamWConfig& config) : AdamW(std::vector<ParameterGroup>{{std::move(parameters), {}, {}}}, config) {}
AdamW::AdamW(const std::vector<Tensor>& parameters, const AdamWConfig& config) : AdamW(as_parameters(parameters), config) {}

std::vector<std::pair<std::string_view, Shape>> AdamW::state_layout(const Tensor& parameter) const {
  std::vector<std::pair<std::string_view, Shape>> layout{{"m", parameter.shape()}, {"v", parameter.shape()}};
  if (config_.amsgrad) layout.emplace_back("v_max", parameter.shape());
  return layout;
}

void AdamW::update(std::span<Entry*> entries, const Rates& rates) {
  if (config_.amsgrad || !config_.decoupled) {
    for (Entry* entry : entries) update_composed(*entry, rates);
    return;
  }
  std::vector<kernels::OptimizerTensor> operands;
  for (const Entry* entry : entries)
    operands.push_back({entry->slot->tensor.mutable_view(), entry->gradient.view(), entry->state[0].mutable_view(), entry->state[1].mutable_view()});
  detail::Run run(entries.front()->slot->tensor);
  run->adamw(run.context, operands.data(), static_cast<int>(operands.size()),
             {rates.learning_rate, config_.beta1, config_.beta2, config_.epsilon, rates.weight_decay, rates.step});
}

void AdamW::update_composed(Entry& entry, const Rates& rates) const {
  const DType sums = entry.state[0].dtype();
  Tensor parameter = to_dtype(entry.slot->tensor, sums), gradient = to_dtype(entry.gradient, sums);
  if (config_.decoupled) parameter = parameter * (1.0 - rates.learning_rate * rates.weight_decay);
  else gradient = gradient + parameter * rates.weight_decay;
  const Tensor m = entry.state[0] * config_.beta1 + gradient * (1.0 - config_.beta1);
  const Tensor v = entry.state[1] * config_.beta2 + square(gradient) * (1.0 - config_.beta2);
  copy_into(entry.state[0], m);
  copy_into(entry.state[1], v);
  Tensor largest = v;
  if (config_.amsgrad) {
    largest = maximum(entry.state[2], v);
    copy_into(entry.state[2], largest);
  }
  const double correction1 = 1.0 - std::pow(config_.beta1, static_cast<double>(rates.step)), correction2 = 1.0 - std::pow(config_.beta2, static_cast<double>(rates.step));
  const Tensor divisor = sqrt(largest) * (1.0 / std::sqrt(correction2)) + config_.epsilon;
  copy_into(entry.slot->tensor, parameter - m / divisor * (rates.learning_rate / correction1));
}

}  // namespace cambium
