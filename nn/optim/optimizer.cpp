// The shared part of optimizers: collecting gradients, grouping by rate and step, state by name.
#include "nn/optim/optimizer.h"

#include <cmath>
#include <map>
#include <set>

#include "autograd/ops/support.h"

namespace cambium {

std::vector<NamedParameter> as_parameters(std::span<const Tensor> tensors) {
  std::vector<NamedParameter> out;
  for (const Tensor& tensor : tensors) {
    check<StateError>(!tensor.defined() || tensor.storage()->kind() != Storage::Kind::mapped, "optimizer: tensor ", out.size(), " lies in a mapped file and cannot be written: clone it first");
    auto slot = std::make_shared<ParameterSlot>();
    slot->tensor = tensor;
    out.emplace_back(std::to_string(out.size()), std::move(slot));
  }
  return out;
}

Optimizer::Optimizer(std::string_view name, std::vector<ParameterGroup> groups, double learning_rate, double weight_decay, MissingGradient missing)
    : name_(name), learning_rate_(learning_rate), weight_decay_(weight_decay), missing_(missing) {
  const auto check_rate = [&](double value, std::string_view what) {
    check<ConfigError>(std::isfinite(value) && value >= 0.0, name_, ": ", what, " must be finite and not negative, found ", value);
  };
  check_rate(learning_rate, "learning_rate");
  check_rate(weight_decay, "weight_decay");
  std::set<const ParameterSlot*> seen;
  std::set<std::string> names;
  for (ParameterGroup& group : groups) {
    if (group.learning_rate) check_rate(*group.learning_rate, "learning_rate of a group");
    if (group.weight_decay) check_rate(*group.weight_decay, "weight_decay of a group");
    Group& made = groups_.emplace_back();
    made.learning_rate = group.learning_rate;
    made.weight_decay = group.weight_decay;
    for (auto& [parameter_name, slot] : group.parameters) {
      check<ConfigError>(slot != nullptr && slot->tensor.defined(), name_, ": parameter '", parameter_name, "' has no tensor");
      check<DTypeError>(is_float(slot->tensor.dtype()), name_, ": parameter '", parameter_name, "' is ", slot->tensor.dtype(), ", expected a floating type");
      check<ConfigError>(seen.insert(slot.get()).second && names.insert(parameter_name).second, name_, ": parameter '", parameter_name, "' is given twice");
      parameters_.emplace_back(parameter_name, slot);
      made.entries.push_back({parameter_name, slot, 0, {}, {}});
    }
  }
  check<ConfigError>(!parameters_.empty(), name_, ": there are no parameters to optimize");
  // What is mapped from a file cannot be written: parameters of a model get memory of their own here, where it is certain that they are to be trained.
  NoGrad no_grad;
  for (const NamedParameter& parameter : parameters_) {
    Tensor& tensor = parameter.second->tensor;
    if (tensor.storage()->kind() != Storage::Kind::mapped) continue;
    const bool trained = tensor.requires_grad();
    tensor = clone(tensor);
    tensor.set_requires_grad(trained);
  }
}

void Optimizer::zero_grad() {
  for (const NamedParameter& parameter : parameters_) parameter.second->tensor.reset_grad();
}

void Optimizer::set_learning_rate(double rate) {
  check<ConfigError>(std::isfinite(rate) && rate >= 0.0, name_, ": learning_rate must be finite and not negative, found ", rate);
  learning_rate_ = rate;
}

void Optimizer::set_learning_rate_factor(double factor) {
  check<ConfigError>(std::isfinite(factor) && factor >= 0.0, name_, ": the factor of the learning rate must be finite and not negative, found ", factor);
  factor_ = factor;
}

double Optimizer::learning_rate(std::size_t group) const {
  check<ConfigError>(group < groups_.size(), name_, ": there is no parameter group ", group);
  return groups_[group].learning_rate.value_or(learning_rate_) * factor_;
}

void Optimizer::check_entry(const Entry& entry) const {
  const Tensor& parameter = entry.slot->tensor;
  check<StateError>(parameter.defined(), name_, ": parameter '", entry.name, "' has lost its tensor");
  check<StateError>(parameter.is_leaf() && parameter.is_contiguous(), name_, ": parameter '", entry.name, "' must be a contiguous leaf to be updated in place");
  check<StateError>(parameter.storage()->kind() == Storage::Kind::owned, name_, ": parameter '", entry.name, "' lies in a mapped file and cannot be written: make the optimizer after the model is loaded");
  const auto stays = [&](const Tensor& tensor, std::string_view what) {
    const NamedParameter& first = parameters_.front();
    check<DeviceError>(tensor.device() == first.second->tensor.device(), name_, ": ", what, "parameter '", entry.name, "' is on ", tensor.device(), ", '", first.first, "' on ",
                       first.second->tensor.device(), ": an optimizer's parameters are on one device");
  };
  stays(parameter, "");
  if (parameter.grad().defined()) stays(parameter.grad(), "the gradient of ");
  if (entry.state.empty()) return;
  const auto layout = state_layout(parameter);
  for (std::size_t i = 0; i < layout.size(); ++i)
    check<StateError>(entry.state[i].shape() == layout[i].second, name_, ": parameter '", entry.name, "' now has shape ", parameter.shape(), ", its state '", layout[i].first,
                      "' has ", entry.state[i].shape(), ": make a new optimizer");
}

void Optimizer::step() {
  NoGrad no_grad;
  std::size_t found = 0;
  for (const Group& group : groups_)
    for (const Entry& entry : group.entries) {
      check_entry(entry);
      const bool has = entry.slot->tensor.grad().defined();
      found += has;
      check<StateError>(has || stepped_ || missing_ != MissingGradient::fail, name_, ": parameter '", entry.name,
                        "' has no gradient at the first step: it is not part of the loss; freeze it, leave it out, or choose MissingGradient::skip or zero");
    }
  check<StateError>(found > 0, name_, ": no parameter has a gradient: call backward() before step()");
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    std::map<std::int64_t, std::vector<Entry*>> by_step;
    for (Entry& entry : groups_[g].entries) {
      const Tensor& parameter = entry.slot->tensor;
      const Tensor gradient = parameter.grad();
      if (!gradient.defined() && missing_ != MissingGradient::zero) continue;
      entry.gradient = gradient.defined() ? detail::dense(gradient) : zeros_like(parameter);
      for (Tensor& part : entry.state) part = to_device(part, parameter.device());  // the model may have been moved since the last step
      if (entry.state.empty())
        for (const auto& [name, shape] : state_layout(parameter)) entry.state.push_back(zeros(shape, detail::accumulator(parameter.dtype()), parameter.device()));
      by_step[++entry.step].push_back(&entry);
    }
    for (auto& [step, entries] : by_step) {
      update(entries, {learning_rate(g), groups_[g].weight_decay.value_or(weight_decay_), step});
      for (Entry* entry : entries) entry->gradient = Tensor();
    }
  }
  stepped_ = true;
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> out;
  for (const Group& group : groups_)
    for (const Entry& entry : group.entries) {
      if (entry.step == 0) continue;
      out.emplace_back(entry.name + ".step", from_vector(std::vector<std::int64_t>{entry.step}, {}));
      const auto layout = state_layout(entry.slot->tensor);
      for (std::size_t i = 0; i < layout.size(); ++i) out.emplace_back(entry.name + "." + std::string(layout[i].first), entry.state[i]);
    }
  return out;
}

void Optimizer::load_state(const std::vector<NamedTensor>& state) {
  std::map<std::string, Tensor> given;
  for (const auto& [name, tensor] : state) check<NameError>(given.emplace(name, tensor).second, name_, ": state '", name, "' is given twice");
  std::vector<std::pair<Entry*, Entry>> loaded;
  for (Group& group : groups_)
    for (Entry& entry : group.entries) {
      Entry fresh{entry.name, entry.slot, 0, {}, {}};
      const auto step = given.find(entry.name + ".step");
      if (step != given.end()) {
        fresh.step = static_cast<std::int64_t>(step->second.item());
        check<StateError>(fresh.step > 0, name_, ": state '", step->first, "' must be positive, found ", fresh.step);
        given.erase(step);
        const Tensor& parameter = entry.slot->tensor;
        for (const auto& [name, shape] : state_layout(parameter)) {
          const auto found = given.find(entry.name + "." + std::string(name));
          check<NameError>(found != given.end(), name_, ": state '", entry.name, ".", name, "' is missing");
          check<ShapeError>(found->second.shape() == shape, name_, ": state '", found->first, "' must have shape ", shape, ", found ", found->second.shape());
          check<DTypeError>(is_float(found->second.dtype()), name_, ": state '", found->first, "' must be floating, found ", found->second.dtype());
          NoGrad no_grad;
          Tensor copy = empty(shape, detail::accumulator(parameter.dtype()), parameter.device());
          detail::Run run(copy);
          run->copy(run.context, copy.view(), to_device(found->second, parameter.device()).view());
          fresh.state.push_back(copy);
          given.erase(found);
        }
      }
      loaded.emplace_back(&entry, std::move(fresh));
    }
  check<NameError>(given.empty(), name_, ": state '", given.empty() ? "" : given.begin()->first, "' belongs to no parameter");
  for (auto& [entry, fresh] : loaded) *entry = std::move(fresh);
  for (const Group& group : groups_)
    for (const Entry& entry : group.entries) stepped_ = stepped_ || entry.step > 0;
}

}  // namespace cambium
