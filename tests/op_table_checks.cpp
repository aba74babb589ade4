#include "tests/op_table_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cambium::test {

namespace {
bool listed(const std::vector<int>& places, std::size_t i) { return std::find(places.begin(), places.end(), static_cast<int>(i)) != places.end(); }
}  // namespace

const std::vector<OpRow>& all_rows() {
  static const std::vector<OpRow> rows = [] {
    std::vector<OpRow> all;
    for (auto family : {pointwise_rows, binary_rows, compare_rows, reduce_rows, shape_rows, index_rows, random_rows, matrix_rows, norm_rows, attention_rows})
      for (OpRow& row : family()) all.push_back(std::move(row));
    return all;
  }();
  return rows;
}

bool floating(const Tensor& t) { return t.defined() && is_float(t.dtype()); }

Inputs leaves(const OpRow& row, const Inputs& sample, DType dtype, bool grads, Device device) {
  Inputs out;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (!floating(sample[i])) {
      out.push_back(sample[i].defined() ? to_device(sample[i], device) : sample[i]);
      continue;
    }
    const Tensor x = clone(to_device(listed(row.wide, i) ? detach(sample[i]) : to_dtype(detach(sample[i]), dtype), device));
    if (grads && row.differentiable && !listed(row.constant, i)) x.set_requires_grad(true);
    out.push_back(x);
  }
  return out;
}

Inputs varied(const Inputs& inputs) {
  Inputs out;
  for (const Tensor& x : inputs)
    if (x.defined() && x.requires_grad()) out.push_back(x);
  return out;
}

std::vector<Array> arrays(const Inputs& inputs) {
  std::vector<Array> out;
  for (const Tensor& x : inputs) out.emplace_back(x);
  return out;
}

double distance(const Array& a, const Array& b) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (a.shape != b.shape) return infinity;
  double worst = 0.0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    const double x = a.values[i], y = b.values[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double d = std::fabs(x - y) / (1.0 + std::fabs(y));
    worst = std::max(worst, std::isfinite(d) ? d : infinity);
  }
  return worst;
}

double tolerance(DType dtype) {
  switch (dtype) {
    case DType::f64: return 2e-13;
    case DType::f32: return 4e-6;
    case DType::bf16: return 1.6e-2;
    default: return 2e-3;
  }
}

Inputs gradients(const Tensor& out, const Inputs& inputs, bool create_graph, bool strided) {
  if (inputs.empty() || out.count() == 0) return {};
  Tensor weights = to_dtype(random_uniform(out.shape(), RandomKey{5, 6}, 0.5, 1.5, DType::f64, out.device()), out.dtype());
  if (strided && out.rank() >= 2) weights = transpose(contiguous(transpose(weights)));
  return grad(std::span(&out, 1), inputs, std::span(&weights, 1), {.create_graph = create_graph});
}

Tensor in_transposed(const Tensor& x) { return x.rank() < 2 ? x : transpose(contiguous(transpose(x, 0, -1)), 0, -1); }
Tensor in_sliced(const Tensor& x) {
  if (x.rank() == 0) return select(stack(Inputs{x, x, x}), 0, 1);
  return slice(slice(repeat_interleave(pad(x, 1, 2, -1), 2, -1), -1, 2), -1, 0, 2 * x.size(-1), 2);
}
Tensor in_repeated(const Tensor& x) {
  if (x.rank() == 0 || x.size(0) == 0) return x;
  return broadcast_to(slice(x, 0, 0, 1), x.shape());
}

}  // namespace cambium::test
