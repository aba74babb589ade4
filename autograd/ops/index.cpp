// Reading and adding at positions given by tensors of indices.
#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;

namespace {

// Shapes for gather and scatter_add: index (and source) no larger than x outside dim.
int check_lines(std::string_view what, const Tensor& x, int dim, const Tensor& index) {
  detail::check_same_device(what, x, index);
  const int at = normalize_dim(dim, x.rank(), what);
  bool fits = index.rank() == x.rank();
  for (int i = 0; fits && i < x.rank(); ++i) fits = i == at || index.shape()[i] <= x.shape()[i];
  check<ShapeError>(fits, what, ": an index of shape ", index.shape(), " does not fit ", x.shape(), " along dimension ", at);
  detail::check_indices(what, index, x.shape()[at]);
  return at;
}

int check_list(std::string_view what, const Tensor& x, int dim, const Tensor& index) {
  detail::check_same_device(what, x, index);
  check<ShapeError>(index.rank() == 1, what, ": expected a list of indices, found shape ", index.shape());
  const int at = normalize_dim(dim, x.rank(), what);
  detail::check_indices(what, index, x.shape()[at]);
  return at;
}

// A copy of x that `add(sum, source)` adds into, in float32 when x has 16 bits: many small terms would be lost one by one.
template <class F>
Tensor accumulated(const Tensor& x, const Tensor& source, F&& add) {
  NoGrad no_grad;
  if (!detail::is_half(x.dtype())) {
    Tensor sum = clone(x);
    add(sum, source);
    return sum;
  }
  const Tensor wide = to_dtype(x, DType::f32);
  add(wide, to_dtype(source, DType::f32));
  return to_dtype(wide, x.dtype());
}

Tensor zeros_of(const Shape& shape, const Tensor& like) { return zeros(shape, like.dtype(), like.device()); }

}  // namespace

Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  const int at = check_lines("gather", x, dim, index);
  Tensor out = empty(index.shape(), x.dtype(), x.device());
  Run run(x);
  run->gather(run.context, out.view(), x.view(), index.view(), at);
  return record("gather", std::move(out)).wrt(x, [at, index = saved(index), shape = x.shape()](const Tensor& g) {
    return scatter_add(zeros_of(shape, g), at, index.get(), g);
  });
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  const int at = check_lines("scatter_add", x, dim, index);
  detail::check_alike("scatter_add", x, source);
  check<ShapeError>(source.shape() == index.shape(), "scatter_add: a source of shape ", source.shape(), " for an index of shape ", index.shape());
  Tensor out = accumulated(x, source, [&](const Tensor& sum, const Tensor& part) {
    Run run(x);
    run->scatter_add(run.context, sum.view(), index.view(), part.view(), at);
  });
  return record("scatter_add", std::move(out))
      .wrt(x, [](const Tensor& g) { return g; })
      .wrt(source, [at, index = saved(index)](const Tensor& g) { return gather(g, at, index.get()); });
}

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  const int at = check_list("index_select", x, dim, index);
  Shape shape = x.shape();
  shape.set(at, index.count());
  Tensor out = empty(shape, x.dtype(), x.device());
  Run run(x);
  run->index_select(run.context, out.view(), x.view(), index.view(), at);
  return record("index_select", std::move(out)).wrt(x, [at, index = saved(index), from = x.shape()](const Tensor& g) {
    return index_add(zeros_of(from, g), at, index.get(), g);
  });
}

Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  const int at = check_list("index_add", x, dim, index);
  detail::check_alike("index_add", x, source);
  Shape expected = x.shape();
  expected.set(at, index.count());
  check<ShapeError>(source.shape() == expected, "index_add: a source of shape ", source.shape(), ", expected ", expected);
  Tensor out = accumulated(x, source, [&](const Tensor& sum, const Tensor& part) {
    Run run(x);
    run->index_add(run.context, sum.view(), index.view(), part.view(), at);
  });
  return record("index_add", std::move(out))
      .wrt(x, [](const Tensor& g) { return g; })
      .wrt(source, [at, index = saved(index)](const Tensor& g) { return index_select(g, at, index.get()); });
}

Tensor masked_select(const Tensor& x, const Tensor& mask) {
  detail::check_bool("masked_select", mask);
  detail::check_same_device("masked_select", x, mask);
  check<ShapeError>(broadcast_shapes(x.shape(), mask.shape(), "masked_select") == x.shape(), "masked_select: the mask ", mask.shape(),
                    " does not broadcast to ", x.shape());
  // How many there are decides the shape, so the mask is read by the host.
  const std::vector<std::uint8_t> bits = broadcast_to(mask, x.shape()).to_vector<std::uint8_t>();
  std::vector<std::int64_t> chosen;
  for (std::size_t i = 0; i < bits.size(); ++i)
    if (bits[i] != 0) chosen.push_back(static_cast<std::int64_t>(i));
  const Tensor index = from_vector(chosen, {static_cast<std::int64_t>(chosen.size())}, x.device());
  return index_select(reshape(x, {-1}), 0, index);
}

Tensor embedding(const Tensor& ids, const Tensor& weight, std::optional<std::int64_t> padding_index) {
  detail::check_same_device("embedding", ids, weight);
  check<ShapeError>(weight.rank() == 2, "embedding: expected a weight (rows, columns), found ", weight.shape());
  const std::int64_t rows = weight.size(0), columns = weight.size(1), count = ids.count();
  detail::check_indices("embedding", ids, rows);
  if (padding_index) {
    check<ShapeError>(*padding_index >= -rows && *padding_index < rows, "embedding: padding index ", *padding_index, " is out of range for ", rows, " rows");
    if (*padding_index < 0) *padding_index += rows;
  }
  const Tensor list = reshape(ids, std::initializer_list<std::int64_t>{count});
  std::vector<std::int64_t> sizes = ids.shape().to_vector();
  sizes.push_back(columns);
  const Shape shape(sizes);
  const Tensor out = empty(shape, weight.dtype(), weight.device());
  Run run(weight);
  run->index_select(run.context, detail::alias(out, Layout::contiguous({count, columns})).view(), weight.view(), list.view(), 0);
  return record("embedding", out).wrt(weight, [list = saved(list), padding_index, rows, columns, count](const Tensor& g) {
    Tensor part = reshape(g, {count, columns});
    if (padding_index) part = masked_fill(part, unsqueeze(equal(list.get(), static_cast<double>(*padding_index)), 1), 0.0);
    return index_add(zeros_of({rows, columns}, g), 0, list.get(), part);
  });
}

Tensor one_hot(const Tensor& ids, std::int64_t classes, DType dtype) {
  detail::check_indices("one_hot", ids, classes);
  return to_dtype(equal(unsqueeze(ids, -1), arange(classes, ids.dtype(), ids.device())), dtype);
}

}  // namespace cambium
