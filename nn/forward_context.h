// ForwardContext: what a call of forward depends on besides the model and its input.
#pragma once

#include <string>
#include <vector>

#include "autograd/random.h"

namespace cambium {

/// Models do not change while they run: all that varies from call to call stands here, so that several sessions can share one model.
struct ForwardContext {
  bool training = false;  ///< dropout acts. Nothing else: freezing is set_requires_grad
  RandomKey key;          ///< of this step; each dropout folds its module's path into it
  /// Adapters to use instead of the model's active ones: none at all, or these names.
  bool override_adapters = false;
  std::vector<std::string> adapters;
};

}  // namespace cambium
