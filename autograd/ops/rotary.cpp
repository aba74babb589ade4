// rotary: position by rotation; the gradient is the inverse rotation.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

Tensor rotate(const Tensor& x, const Tensor& positions, const Tensor& frequencies, double scale, bool interleaved, bool inverse) {
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  detail::Run run(x);
  run->rotary(run.context, out.view(), x.view(), positions.view(), frequencies.view(), scale, interleaved, inverse);
  return record("rotary", out).wrt(x, [positions = saved(positions), frequencies = saved(frequencies), scale, interleaved, inverse](const Tensor& g) {
    return rotate(g, positions.get(), frequencies.get(), scale, interleaved, !inverse);
  });
}

}  // namespace

Tensor rotary(const Tensor& x, const Tensor& positions, const Tensor& frequencies, double scale, bool interleaved) {
  detail::check_float("rotary", "the input", x);
  check<ShapeError>(x.rank() == 4, "rotary: the input must be (batch, time, heads, head size), found shape ", x.shape());
  check<StateError>(positions.defined() && frequencies.defined(), "rotary: positions and frequencies must be given");
  check<DTypeError>(positions.dtype() == DType::i64, "rotary: positions must be int64, found ", positions.dtype());
  check<DTypeError>(frequencies.dtype() == DType::f32, "rotary: frequencies must be float32, found ", frequencies.dtype());
  check<DeviceError>(positions.device() == x.device() && frequencies.device() == x.device(), "rotary: the input is on ", x.device(), ", the positions on ", positions.device(),
                     ", the frequencies on ", frequencies.device(), ": use to_device");
  check<ShapeError>(frequencies.rank() == 1 && 2 * frequencies.count() <= x.shape()[-1], "rotary: frequencies must be a vector of at most half the head size ",
                    x.shape()[-1], ", found shape ", frequencies.shape());
  const std::int64_t b = x.shape()[0], t = x.shape()[1];
  const bool shared = positions.shape() == Shape{t} || positions.shape() == Shape{1, t};
  check<ShapeError>(shared || positions.shape() == Shape{b, t}, "rotary: positions must have shape [", t, "] or [", b, ", ", t, "], found ", positions.shape());
  const Tensor expanded = detail::alias(positions, positions.layout().broadcast_to({b, t}));
  return rotate(x, expanded, detail::dense(frequencies), scale, interleaved, false);
}

}  // namespace cambium
