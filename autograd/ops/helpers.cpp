// Checks of operands and undoing a broadcast, shared by all ops.
#include "autograd/ops/helpers.h"

#include <cmath>

namespace cambium::detail {

void check_same_device(std::string_view what, const Tensor& a, const Tensor& b) {
  check_defined(what, a);
  check_defined(what, b);
  check<DeviceError>(a.device() == b.device(), what, ": a tensor of shape ", a.shape(), " is on ", a.device(), ", one of shape ", b.shape(), " on ", b.device(), ": use to_device");
}

void check_alike(std::string_view what, const Tensor& a, const Tensor& b) {
  check_same_device(what, a, b);
  check<DTypeError>(a.dtype() == b.dtype(), what, ": tensors of ", a.dtype(), " and ", b.dtype(), ": use to_dtype");
}

void check_indices(std::string_view what, const Tensor& index, std::int64_t size) {
  check_defined(what, index);
  check<DTypeError>(index.dtype() == DType::i64 || index.dtype() == DType::i32, what, ": expected int64 or int32 indices, found ", index.dtype());
  if (index.count() == 0) return;
  if (index.storage()->host_copy() != nullptr) {  // without waiting for the device
    for (const std::int64_t value : index.to_vector<std::int64_t>()) check<Error>(value >= 0 && value < size, what, ": index ", value, " is out of range for size ", size);
    return;
  }
  Run run(index);
  Shape one = index.shape();
  for (int i = 0; i < one.rank(); ++i) one.set(i, 1);
  const Tensor bound = empty(one, index.dtype(), index.device());
  for (kernels::Reduction which : {kernels::Reduction::minimum, kernels::Reduction::maximum}) {
    run->reduce(run.context, which, bound.view(), index.view());
    const std::int64_t value = bound.to_vector<std::int64_t>().front();
    check<Error>(value >= 0 && value < size, what, ": index ", value, " is out of range for size ", size);
  }
}

Tensor repeated_scalar(std::string_view what, double value, const Tensor& like, const Shape& shape) {
  if (!is_float(like.dtype())) {
    const bool fits = visit_all(like.dtype(), [&]<class T>(TypeTag<T>) {
      if constexpr (is_float_v<T>) return true;
      else return std::floor(value) == value && std::fabs(value) <= 0x1p53 && static_cast<double>(static_cast<T>(static_cast<std::int64_t>(value))) == value;
    });
    check<DTypeError>(fits, what, ": ", value, " is no ", like.dtype());
  }
  const Tensor one = scalar(value, like.dtype(), like.device());
  return alias(one, one.layout().broadcast_to(shape));
}

Tensor sum_to(const Tensor& g, const Shape& shape) {
  if (g.shape() == shape) return g;
  const int added = g.rank() - shape.rank();
  std::vector<int> dims;
  for (int i = 0; i < g.rank(); ++i)
    if (i < added || (shape[i - added] == 1 && g.shape()[i] != 1)) dims.push_back(i);
  if (dims.empty()) return g;
  const Tensor total = sum(g, std::span<const int>(dims), true);
  return reshape(total, std::span(shape.begin(), shape.end()));
}

Tensor slice_scatter(const Tensor& g, const Shape& shape, int dim, std::int64_t start, std::int64_t end, std::int64_t step) {
  Tensor out = zeros(shape, g.dtype(), g.device());
  const Tensor part = alias(out, out.layout().slice(dim, start, end, step));
  Run run(g);
  run->copy(run.context, part.view(), g.view());
  return record("slice_scatter", std::move(out)).wrt(g, [=](const Tensor& gg) { return slice(gg, dim, start, end, step); });
}

}  // namespace cambium::detail
