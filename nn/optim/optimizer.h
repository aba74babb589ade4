// Optimizer: what all optimizers share: parameters in groups, their gradients, their state by name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/module.h"

namespace cambium {

/// What step() does with a parameter that has no gradient.
enum class MissingGradient : std::uint8_t {
  fail,  ///< StateError naming it at the very first step: it is not part of the graph. Later steps skip it (a batch need not reach every parameter)
  skip,  ///< it stays as it is and its own step count does not advance, as torch.optim does with `grad is None`
  zero,  ///< its gradient is taken as zero: momentum goes on and weight decay applies
};

/// Parameters with a learning rate or a weight decay of their own.
struct ParameterGroup {
  std::vector<NamedParameter> parameters;
  std::optional<double> learning_rate, weight_decay;  ///< default: the optimizer's
};

/// Tensors as parameters, named "0", "1", …; for models that are not built of modules. StateError for one that is mapped from a file.
std::vector<NamedParameter> as_parameters(std::span<const Tensor> tensors);

/// Made before the first forward pass: parameters that are mapped from a file are copied into memory, once, when an optimizer takes them.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update of all parameters from their gradients. StateError when none has a gradient, and see MissingGradient; then nothing is changed.
  void step();
  void zero_grad();
  /// All parameters, group after group.
  const std::vector<NamedParameter>& parameters() const { return parameters_; }

  /// Rate of all groups without a rate of their own, before the factor of the schedule.
  void set_learning_rate(double rate);
  /// A schedule's factor: multiplies the rate of every group.
  void set_learning_rate_factor(double factor);
  /// What the next step uses in the given group.
  double learning_rate(std::size_t group = 0) const;

  /// State for checkpoints: "<parameter>.step" (int64 scalar) and the optimizer's own tensors, "<parameter>.m", "<parameter>.v" and so on;
  /// of parameters that were updated at least once. The tensors are shared with the optimizer, which writes them in place: save or clone them before the next step.
  std::vector<NamedTensor> state() const;
  /// Puts saved state back (copies). NameError, ShapeError or DTypeError, and nothing is changed, when it does not belong to these parameters.
  void load_state(const std::vector<NamedTensor>& state);

 protected:
  struct Entry {
    std::string name;
    std::shared_ptr<ParameterSlot> slot;
    std::int64_t step = 0;      ///< updates made so far
    std::vector<Tensor> state;  ///< as state_names(); empty before the first update
    Tensor gradient;            ///< during update(): contiguous
  };
  /// Rates of one call of update(); `step` counts from 1.
  struct Rates {
    double learning_rate, weight_decay;
    std::int64_t step;
  };

  Optimizer(std::string_view name, std::vector<ParameterGroup> groups, double learning_rate, double weight_decay, MissingGradient missing);
  /// Names of the state tensors of a parameter and their shapes, in the order of Entry::state.
  virtual std::vector<std::pair<std::string_view, Shape>> state_layout(const Tensor& parameter) const = 0;
  /// Updates `entries`, which share rates and step count; runs under NoGrad.
  virtual void update(std::span<Entry*> entries, const Rates& rates) = 0;

 private:
  struct Group {
    std::vector<Entry> entries;
    std::optional<double> learning_rate, weight_decay;
  };
  void check_entry(const Entry& entry) const;

  std::string_view name_;
  std::vector<Group> groups_;
  std::vector<NamedParameter> parameters_;
  double learning_rate_, weight_decay_, factor_ = 1.0;
  MissingGradient missing_;
  bool stepped_ = false;
};

}  // namespace cambium
