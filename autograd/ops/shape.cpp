// Other shapes of the same elements: views wherever the strides allow.
#include "autograd/ops/helpers.h"

namespace cambium {

namespace {
Record view(std::string_view name, const Tensor& x, const Layout& layout) { return record(name, detail::alias(x, layout)); }
}  // namespace

Tensor reshape(const Tensor& x, std::span<const std::int64_t> sizes) {
  detail::check_defined("reshape", x);
  const Shape shape = infer_shape(sizes, x.count(), "reshape");
  if (shape == x.shape()) return x;
  const auto back = [from = x.shape()](const Tensor& g) { return reshape(g, std::span(from.begin(), from.end())); };
  if (const auto layout = x.layout().reshape(shape)) return view("reshape", x, *layout).wrt(x, back);
  Tensor dense;
  {
    NoGrad no_grad;
    dense = clone(x);
  }
  return view("reshape", dense, *dense.layout().reshape(shape)).wrt(x, back);
}

Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> shape) { return reshape(x, std::span(shape.begin(), shape.size())); }

Tensor transpose(const Tensor& x, int a, int b) {
  detail::check_defined("transpose", x);
  return view("transpose", x, x.layout().transpose(a, b)).wrt(x, [a, b](const Tensor& g) { return transpose(g, a, b); });
}

Tensor detail::permute_by(const Tensor& x, const std::vector<int>& order) {
  const Layout layout = x.layout().permute(order);
  std::vector<int> inverse(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) inverse[static_cast<std::size_t>(order[i] < 0 ? order[i] + x.rank() : order[i])] = static_cast<int>(i);
  return view("permute", x, layout).wrt(x, [inverse](const Tensor& g) { return permute_by(g, inverse); });
}

Tensor permute(const Tensor& x, std::initializer_list<int> order) {
  detail::check_defined("permute", x);
  return detail::permute_by(x, std::vector<int>(order));
}

Tensor slice(const Tensor& x, int dim, std::int64_t start, std::int64_t end, std::int64_t step) {
  detail::check_defined("slice", x);
  const Layout layout = x.layout().slice(dim, start, end, step);
  if (layout.shape == x.shape()) return x;
  return view("slice", x, layout).wrt(x, [=, shape = x.shape()](const Tensor& g) { return detail::slice_scatter(g, shape, dim, start, end, step); });
}

Tensor select(const Tensor& x, int dim, std::int64_t index) {
  detail::check_defined("select", x);
  const Layout layout = x.layout().select(dim, index);
  const int at = normalize_dim(dim, x.rank(), "select");
  const std::int64_t start = index < 0 ? index + x.shape()[at] : index;
  return view("select", x, layout).wrt(x, [=, shape = x.shape()](const Tensor& g) { return detail::slice_scatter(unsqueeze(g, at), shape, at, start, start + 1, 1); });
}

Tensor unsqueeze(const Tensor& x, int dim) {
  detail::check_defined("unsqueeze", x);
  const Layout layout = x.layout().unsqueeze(dim);
  return view("unsqueeze", x, layout).wrt(x, [dim](const Tensor& g) { return squeeze(g, dim); });
}

Tensor squeeze(const Tensor& x, int dim) {
  detail::check_defined("squeeze", x);
  const Layout layout = x.layout().squeeze(dim);
  return view("squeeze", x, layout).wrt(x, [dim](const Tensor& g) { return unsqueeze(g, dim); });
}

Tensor flatten(const Tensor& x, int first, int last) {
  detail::check_defined("flatten", x);
  if (x.rank() == 0) return reshape(x, {1});
  first = normalize_dim(first, x.rank(), "flatten");
  last = normalize_dim(last, x.rank(), "flatten");
  check<ShapeError>(first <= last, "flatten: dimension ", first, " comes after ", last);
  std::vector<std::int64_t> sizes;
  for (int i = 0; i < x.rank(); ++i) {
    if (i > first && i <= last) sizes.back() *= x.shape()[i];
    else sizes.push_back(x.shape()[i]);
  }
  return reshape(x, std::span<const std::int64_t>(sizes));
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  detail::check_defined("broadcast_to", x);
  if (x.shape() == shape) return x;
  const Layout layout = x.layout().broadcast_to(shape);
  return view("broadcast_to", x, layout).wrt(x, [from = x.shape()](const Tensor& g) { return detail::sum_to(g, from); });
}

}  // namespace cambium
