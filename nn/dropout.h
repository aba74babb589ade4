// Dropout: zeros a share of the values while training.
#pragma once

#include "nn/module.h"

namespace cambium {

/// While context.training: each value is zero with probability p, the others are scaled by 1 / (1 - p). Otherwise x itself.
/// The mask comes from the step's key and this module's path, so it does not depend on what else runs.
class Dropout final : public Layer {
 public:
  explicit Dropout(double p);  ///< ConfigError unless 0 <= p <= 1
  std::string_view type_name() const override { return "Dropout"; }
  std::shared_ptr<Module> copy() const override { return std::make_shared<Dropout>(p_); }
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  double p() const { return p_; }

 private:
  double p_;
};

}  // namespace cambium
