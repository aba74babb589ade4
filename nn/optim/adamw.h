// AdamW, and Adam with L2 regularisation.
#pragma once

#include "nn/optim/optimizer.h"

namespace cambium {

struct AdamWConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.0;  ///< torch's AdamW has 0.01 here; fine-tuning tools use 0
  bool amsgrad = false;       ///< divides by the largest second moment so far: Reddi et al. 2018
  bool decoupled = true;      ///< false: weight_decay is added to the gradient, as the older Adam does
  MissingGradient missing_gradient = MissingGradient::fail;
};

/// Loshchilov and Hutter 2019, arXiv 1711.05101. State "m", "v" (and "v_max"): float32, float64 beside float64 parameters.
class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<NamedParameter> parameters, const AdamWConfig& config = {});
  AdamW(std::vector<ParameterGroup> groups, const AdamWConfig& config = {});
  AdamW(const std::vector<Tensor>& parameters, const AdamWConfig& config = {});

 protected:
  std::vector<std::pair<std::string_view, Shape>> state_layout(const Tensor& parameter) const override;
  void update(std::span<Entry*> entries, const Rates& rates) override;

 private:
  void update_composed(Entry& entry, const Rates& rates) const;
  AdamWConfig config_;
};

}  // namespace cambium
