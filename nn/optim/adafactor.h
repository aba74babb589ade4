// Adafactor: Adam's second moment as an outer product of row and column means.
#pragma once

#include "nn/optim/optimizer.h"

namespace cambium {

struct AdafactorConfig {
  std::optional<double> learning_rate;          ///< must be absent with relative_step
  double epsilon = 1e-30, epsilon_scale = 1e-3; ///< added to squared gradients; least scale of a parameter
  double clip_threshold = 1.0;                  ///< root mean square that an update may have
  double decay_rate = -0.8;                     ///< exponent of the second moment's decay over time
  std::optional<double> beta1;                  ///< keeps a first moment
  double weight_decay = 0.0;
  bool scale_parameter = true, relative_step = true, warmup_init = false;
  MissingGradient missing_gradient = MissingGradient::fail;
};

/// Shazeer and Stern 2018, arXiv 1804.04235, as transformers.Adafactor computes it. State "row" and "column" (matrices and higher) or "v", and "m" with beta1.
class Adafactor final : public Optimizer {
 public:
  Adafactor(std::vector<NamedParameter> parameters, const AdafactorConfig& config = {});
  Adafactor(std::vector<ParameterGroup> groups, const AdafactorConfig& config = {});
  Adafactor(const std::vector<Tensor>& parameters, const AdafactorConfig& config = {});

 protected:
  std::vector<std::pair<std::string_view, Shape>> state_layout(const Tensor& parameter) const override;
  void update(std::span<Entry*> entries, const Rates& rates) override;

 private:
  AdafactorConfig config_;
};

}  // namespace cambium
