// Stochastic gradient descent with momentum.
#pragma once

#include "nn/optim/optimizer.h"

namespace cambium {

struct SgdConfig {
  double learning_rate = 1e-2;
  double momentum = 0.0, dampening = 0.0;
  double weight_decay = 0.0;  ///< added to the gradient
  bool nesterov = false;
  MissingGradient missing_gradient = MissingGradient::fail;
};

/// As torch.optim.SGD (Sutskever et al. 2013 for the momentum). State "momentum" when momentum is used.
class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<NamedParameter> parameters, const SgdConfig& config = {});
  Sgd(std::vector<ParameterGroup> groups, const SgdConfig& config = {});
  Sgd(const std::vector<Tensor>& parameters, const SgdConfig& config = {});

 protected:
  std::vector<std::pair<std::string_view, Shape>> state_layout(const Tensor& parameter) const override;
  void update(std::span<Entry*> entries, const Rates& rates) override;

 private:
  SgdConfig config_;
};

}  // namespace cambium
