// Adafactor, composed of ops.
#include "nn/optim/adafactor.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cambium {

namespace {
// () on the tensor's device: a step waits for nothing.
Tensor root_mean_square(const Tensor& x) { return sqrt(sum(square(x)) * (1.0 / static_cast<double>(std::max<std::int64_t>(1, x.count())))); }
Tensor at_least(double least, const Tensor& x) { return clamp(x, least, std::numeric_limits<double>::infinity()); }
}  // namespace

Adafactor::Adafactor(std::vector<ParameterGroup> groups, const AdafactorConfig& config)
    : Optimizer("Adafactor", std::move(groups), config.learning_rate.value_or(1.0), config.weight_decay, config.missing_gradient), config_(config) {
  check<ConfigError>(config.learning_rate.has_value() != config.relative_step, "Adafactor: give a learning_rate or relative_step, not ", config.relative_step ? "both" : "neither");
  check<ConfigError>(!config.warmup_init || config.relative_step, "Adafactor: warmup_init needs relative_step");
  check<ConfigError>(config.clip_threshold > 0.0, "Adafactor: clip_threshold must be positive, found ", config.clip_threshold);
}
Adafactor::Adafactor(std::vector<NamedParameter> parameters, const AdafactorConfig& config)
    : Adafactor(std::vector<ParameterGroup>{{std::move(parameters), {}, {}}}, config) {}
Adafactor::Adafactor(const std::vector<Tensor>& parameters, const AdafactorConfig& config) : Adafactor(as_parameters(parameters), config) {}

std::vector<std::pair<std::string_view, Shape>> Adafactor::state_layout(const Tensor& parameter) const {
  std::vector<std::pair<std::string_view, Shape>> layout;
  const Shape& shape = parameter.shape();
  if (shape.rank() >= 2) {
    std::vector<std::int64_t> row = shape.to_vector(), column = row;
    row.pop_back();
    column.erase(column.end() - 2);
    layout.emplace_back("row", Shape(row));
    layout.emplace_back("column", Shape(column));
  } else {
    layout.emplace_back("v", shape);
  }
  if (config_.beta1) layout.emplace_back("m", shape);
  return layout;
}

void Adafactor::update(std::span<Entry*> entries, const Rates& rates) {
  const auto step = static_cast<double>(rates.step);
  const double beta2 = 1.0 - std::pow(step, config_.decay_rate);
  double base_rate = rates.learning_rate;
  if (config_.relative_step) base_rate *= std::min(config_.warmup_init ? 1e-6 * step : 1e-2, 1.0 / std::sqrt(step));
  for (Entry* entry : entries) {
    const DType sums = entry->state[0].dtype();
    Tensor parameter = to_dtype(entry->slot->tensor, sums);
    const Tensor gradient = to_dtype(entry->gradient, sums), squares = square(gradient) + config_.epsilon;
    const Tensor rate = (config_.scale_parameter ? at_least(config_.epsilon_scale, root_mean_square(parameter)) : ones({}, sums, parameter.device())) * base_rate;
    Tensor update;
    if (gradient.rank() >= 2) {
      const Tensor row = entry->state[0] * beta2 + mean(squares, {-1}) * (1.0 - beta2), column = entry->state[1] * beta2 + mean(squares, {-2}) * (1.0 - beta2);
      copy_into(entry->state[0], row);
      copy_into(entry->state[1], column);
      update = unsqueeze(rsqrt(row / mean(row, {-1}, true)), -1) * unsqueeze(rsqrt(column), -2) * gradient;
    } else {
      const Tensor second = entry->state[0] * beta2 + squares * (1.0 - beta2);
      copy_into(entry->state[0], second);
      update = rsqrt(second) * gradient;
    }
    update = update * (rate / at_least(1.0, root_mean_square(update) * (1.0 / config_.clip_threshold)));
    if (config_.beta1) {
      update = entry->state.back() * *config_.beta1 + update * (1.0 - *config_.beta1);
      copy_into(entry->state.back(), update);
    }
    if (rates.weight_decay != 0.0) parameter = parameter - parameter * (rate * rates.weight_decay);
    copy_into(entry->slot->tensor, parameter - update);
  }
}

}  // namespace cambium
