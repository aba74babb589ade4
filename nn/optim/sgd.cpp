// SGD: one kernel call for all tensors of a group.
#include "nn/optim/sgd.h"

#include "autograd/ops/support.h"

namespace cambium {

Sgd::Sgd(std::vector<ParameterGroup> groups, const SgdConfig& config)
    : Optimizer("SGD", std::move(groups), config.learning_rate, config.weight_decay, config.missing_gradient), config_(config) {
  check<ConfigError>(config.momentum >= 0.0, "SGD: momentum must not be negative, found ", config.momentum);
  check<ConfigError>(!config.nesterov || (config.momentum > 0.0 && config.dampening == 0.0), "SGD: nesterov needs a momentum above 0 and no dampening");
}
Sgd::Sgd(std::vector<NamedParameter> parameters, const SgdConfig& config) : Sgd(std::vector<ParameterGroup>{{std::move(parameters), {}, {}}}, config) {}
Sgd::Sgd(const std::vector<Tensor>& parameters, const SgdConfig& config) : Sgd(as_parameters(parameters), config) {}

std::vector<std::pair<std::string_view, Shape>> Sgd::state_layout(const Tensor& parameter) const {
  if (config_.momentum == 0.0) return {};
  return {{"momentum", parameter.shape()}};
}

void Sgd::update(std::span<Entry*> entries, const Rates& rates) {
  std::vector<kernels::OptimizerTensor> operands;
  for (const Entry* entry : entries)
    operands.push_back({entry->slot->tensor.mutable_view(), entry->gradient.view(), entry->state.empty() ? kernels::Strided{} : entry->state[0].mutable_view(), {}});
  detail::Run run(entries.front()->slot->tensor);
  run->sgd(run.context, operands.data(), static_cast<int>(operands.size()),
           {rates.learning_rate, config_.momentum, config_.dampening, rates.weight_decay, config_.nesterov, rates.step == 1});
}

}  // namespace cambium
