// Cross-entropy of a head that carries adapters, in chunks of rows: logits are never whole. Internal: not installed.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "tensor/tensor.h"

namespace cambium::detail {

/// Mean cross-entropy of logits(hidden) (R, V) against targets (R); `count` is what the sum is divided by, default the targets that are not -100.
/// `logits(rows, chunk)` is called for rows one after the other, each time under a graph of its own whose gradients are taken at once; `parameters` are the leaves it uses besides.
Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& targets, std::optional<double> count, std::int64_t classes, std::span<const Tensor> parameters,
                             const std::function<Tensor(const Tensor& rows, std::uint64_t chunk)>& logits);

}  // namespace cambium::detail
