// gated: f(gate) up, the activation computed again in the backward pass.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

Tensor gated(UnaryFunction f, const Tensor& gate, const Tensor& up) {
  detail::check_float("gated", "gate", gate);
  detail::check_alike("gated", "gate", gate, "up", up);
  check<ShapeError>(gate.shape() == up.shape(), "gated: gate and up must have one shape, found ", gate.shape(), " and ", up.shape());
  check<ConfigError>(f == UnaryFunction::silu || f == UnaryFunction::gelu_tanh || f == UnaryFunction::gelu_erf || f == UnaryFunction::relu,
                     "gated: the function must be silu, gelu_tanh, gelu_erf or relu");
  Tensor out = empty(gate.shape(), gate.dtype(), gate.device());
  detail::Run run(gate);
  const Tensor x = detail::dense(gate), y = detail::dense(up);
  run->gated(run.context, f, out.view(), x.view(), y.view());
  return record("gated", out).wrt({gate, up}, [f, gate = saved(gate), up = saved(up)](const Tensor& g, Needed) {
    const Tensor &from_gate = gate.get(), &from_up = up.get();
    const Tensor left = detail::dense(from_gate), right = detail::dense(from_up), upstream = detail::dense(g);
    Tensor dgate = empty(left.shape(), left.dtype(), left.device()), dup = empty_like(dgate);
    detail::Run backward_run(left);
    backward_run->gated_backward(backward_run.context, f, dgate.view(), dup.view(), upstream.view(), left.view(), right.view());
    return std::vector<Tensor>{detail::once("gated", dgate, {g, from_gate, from_up}), detail::once("gated", dup, {g, from_gate, from_up})};
  });
}

}  // namespace cambium
