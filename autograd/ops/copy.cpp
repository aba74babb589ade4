// Copies: contiguous, clone, detach, conversions, and writes in place.
#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;

namespace {

Tensor copied(const Tensor& x, DType dtype) {
  Tensor out = empty(x.shape(), dtype, x.device());
  Run run(x);
  run->copy(run.context, out.view(), x.view());
  return out;
}

// In-place writes go to leaves only, so that no recorded value is changed behind its op.
void check_writable(std::string_view what, const Tensor& destination) {
  detail::check_defined(what, destination);
  check<StateError>(destination.is_leaf(), what, ": the destination of shape ", destination.shape(), " is the result of a recorded op: use detach() first");
  check<StateError>(!grad_enabled() || !destination.requires_grad(), what, ": the destination of shape ", destination.shape(),
                    " requires a gradient: write to it under NoGrad");
  for (int i = 0; i < destination.rank(); ++i)
    check<StateError>(destination.shape()[i] <= 1 || destination.layout().strides[static_cast<std::size_t>(i)] != 0, what,
                      ": the destination of shape ", destination.shape(), " repeats its elements");
}

}  // namespace

Tensor clone(const Tensor& x) {
  detail::check_defined("clone", x);
  return record("clone", copied(x, x.dtype())).wrt(x, [](const Tensor& g) { return g; });
}

Tensor contiguous(const Tensor& x) {
  detail::check_defined("contiguous", x);
  return x.is_contiguous() ? x : clone(x);
}

Tensor detach(const Tensor& x) {
  detail::check_defined("detach", x);
  return detail::alias(x, x.layout());
}

Tensor to_dtype(const Tensor& x, DType dtype) {
  detail::check_defined("to_dtype", x);
  if (x.dtype() == dtype) return x;
  Tensor out = copied(x, dtype);
  if (!is_float(dtype)) return out;  // integers have no gradient
  return record("to_dtype", std::move(out)).wrt(x, [from = x.dtype()](const Tensor& g) { return to_dtype(g, from); });
}

Tensor to_device(const Tensor& x, Device device) {
  detail::check_defined("to_device", x);
  if (x.device() == device) return x;
  Tensor dense = x;
  if (!x.is_contiguous()) {
    NoGrad no_grad;
    dense = clone(x);
  }
  Tensor out = empty(x.shape(), x.dtype(), device);
  const auto bytes = static_cast<std::size_t>(x.count() * item_size(x.dtype()));
  if (bytes > 0) kernels::copy_bytes(device, out.view().data, x.device(), dense.view().data, bytes);
  // Integers from the host stay there, too: checks and models read them.
  if (bytes > 0 && x.device().type == DeviceType::cpu && !is_float(x.dtype())) out.storage()->keep_host_copy(dense.view().data);
  return record("to_device", std::move(out)).wrt(x, [from = x.device()](const Tensor& g) { return to_device(g, from); });
}

void copy_into(const Tensor& destination, const Tensor& source) {
  check_writable("copy_into", destination);
  detail::check_same_device("copy_into", destination, source);
  check<ShapeError>(destination.shape() == source.shape(), "copy_into: a source of shape ", source.shape(), " for a destination of shape ", destination.shape());
  check<StateError>(!needs_grad(source), "copy_into: the source requires a gradient, which would be lost: use detach() or NoGrad");
  const Tensor from = destination.storage() == source.storage() ? copied(source, source.dtype()) : source;
  Run run(destination);
  run->copy(run.context, destination.mutable_view(), from.view());
}

void fill_into(const Tensor& destination, double value) {
  check_writable("fill_into", destination);
  detail::repeated_scalar("fill_into", value, destination, {});
  Run run(destination);
  run->fill(run.context, destination.mutable_view(), value);
}

}  // namespace cambium
