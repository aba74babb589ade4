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
  /// One adapter for each row of the batch, "__base__" for none: a batch in which rows use different adapters. Empty: one set for all rows. Adapted layers see as many rows as there are names
  /// (ShapeError), the names must be there (NameError), nothing may be merged (StateError).
  std::vector<std::string> adapter_names;

  /// For rows chosen out of (batch time): each keeps the adapter of the row of the batch that it came from.
  ForwardContext for_rows(const std::vector<std::int64_t>& rows, std::int64_t time) const {
    ForwardContext out = *this;
    out.adapter_names.clear();
    if (!adapter_names.empty())
      for (const std::int64_t row : rows) out.adapter_names.push_back(adapter_names.at(static_cast<std::size_t>(row / time)));
    return out;
  }
};

}  // namespace cambium
