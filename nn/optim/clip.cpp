// Clipping by norm: one reduction over all gradients, one pass to scale them.
#include "nn/optim/clip.h"

#include <cmath>
#include <limits>

#include "autograd/ops/support.h"
#include "nn/optim/optimizer.h"

namespace cambium {

double clip_grad_norm(std::span<const NamedParameter> parameters, double max_norm, const ClipOptions& options) {
  check<ConfigError>(max_norm > 0.0, "clip_grad_norm: max_norm must be positive, found ", max_norm);
  const bool largest = std::isinf(options.norm_type);
  check<ConfigError>(options.norm_type == 1.0 || options.norm_type == 2.0 || (largest && options.norm_type > 0.0), "clip_grad_norm: norm_type must be 1, 2 or infinity, found ",
                     options.norm_type);
  NoGrad no_grad;
  std::vector<Tensor> gradients;
  std::vector<const std::string*> names;
  for (const auto& [name, slot] : parameters) {
    Tensor gradient = slot->tensor.grad();
    if (!gradient.defined() || gradient.count() == 0) continue;
    if (!gradient.is_contiguous()) {
      gradient = detail::dense(gradient);
      slot->tensor.set_grad(gradient);
    }
    check<DeviceError>(gradients.empty() || gradient.device() == gradients.front().device(), "clip_grad_norm: the gradient of '", name, "' is on ", gradient.device(), ", that of '",
                       names.empty() ? name : *names.front(), "' on ", gradients.empty() ? gradient.device() : gradients.front().device(), ": use to_device");
    gradients.push_back(gradient);
    names.push_back(&name);
  }
  if (gradients.empty()) return 0.0;

  detail::Run run(gradients.front());
  double norm = 0.0;
  if (options.norm_type == 2.0) {
    std::vector<kernels::Strided> views;
    for (const Tensor& gradient : gradients) views.push_back(gradient.view());
    const Tensor total = empty({1}, DType::f64, gradients.front().device());
    run->sum_of_squares(run.context, total.view(), views.data(), static_cast<int>(views.size()));
    norm = std::sqrt(total.item());
  } else {
    for (const Tensor& gradient : gradients) {
      const double part = (largest ? amax(abs(gradient)) : sum(abs(gradient))).item();
      if (!largest) norm += part;
      else if (std::isnan(part) || part > norm) norm = std::isnan(norm) ? norm : part;
    }
  }
  if (!std::isfinite(norm)) {
    if (options.allow_not_finite) return norm;
    for (std::size_t i = 0; i < gradients.size(); ++i)
      if (const std::int64_t bad = count_not_finite(gradients[i]); bad > 0)
        fail<StateError>("clip_grad_norm: the gradient of '", *names[i], "' has ", bad, " of ", gradients[i].count(), " entries that are NaN or infinite");
    fail<StateError>("clip_grad_norm: the norm of the gradients is ", norm, " although every entry is finite");
  }
  const double factor = max_norm / (norm + 1e-6);
  if (factor < 1.0) {
    std::vector<kernels::Strided> views;
    for (const Tensor& gradient : gradients) views.push_back(gradient.mutable_view());
    run->scale_all(run.context, views.data(), static_cast<int>(views.size()), factor);
  }
  return norm;
}

double clip_grad_norm(std::span<const Tensor> parameters, double max_norm, const ClipOptions& options) {
  const std::vector<NamedParameter> named = as_parameters(parameters);
  return clip_grad_norm(std::span<const NamedParameter>(named), max_norm, options);
}

}  // namespace cambium
