// Class numbers that losses are asked for: checked once, with what the losses need to know of them. Internal.
#pragma once

#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace cambium::detail {

struct Targets {
  Tensor ids;                            ///< int64 (R), contiguous
  std::vector<std::int64_t> labelled;    ///< rows whose target is not ignore_index, ascending
};

/// Checks that `targets` has shape `expected` and holds class numbers below `classes`, or ignore_index, on the device of what they are compared with.
Targets check_targets(std::string_view op, const Tensor& targets, const Shape& expected, std::int64_t classes, std::int64_t ignore_index, Device device);

}  // namespace cambium::detail
