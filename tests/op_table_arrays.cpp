// Arrays and samples for the table of ops.
#include <algorithm>
#include <numeric>

#include "tests/op_table.h"

namespace cambium::test {

namespace {
std::int64_t product(const std::vector<std::int64_t>& shape) { return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()); }

std::size_t place(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& index) {
  const std::size_t added = index.size() - shape.size();
  std::int64_t at = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) at = at * shape[i] + (shape[i] == 1 ? 0 : index[i + added]);
  return static_cast<std::size_t>(at);
}
}  // namespace

Array::Array(std::vector<std::int64_t> sizes) : shape(std::move(sizes)), values(static_cast<std::size_t>(product(shape)), 0.0) {}
Array::Array(const Tensor& t) : shape(t.defined() ? t.shape().to_vector() : std::vector<std::int64_t>{}), values(t.defined() ? t.to_vector<double>() : std::vector<double>{}) {}
double Array::at(const std::vector<std::int64_t>& index) const { return values[place(shape, index)]; }
double& Array::operator[](const std::vector<std::int64_t>& index) { return values[place(shape, index)]; }

double Array::line(int dim, std::int64_t o, std::int64_t i, std::int64_t k) const {
  const std::size_t d = static_cast<std::size_t>(dim < 0 ? dim + static_cast<int>(shape.size()) : dim);
  std::int64_t inner = 1;
  for (std::size_t j = d + 1; j < shape.size(); ++j) inner *= shape[j];
  return values[static_cast<std::size_t>((o * shape[d] + i) * inner + k)];
}

void for_each_index(const std::vector<std::int64_t>& shape, const std::function<void(const std::vector<std::int64_t>&)>& f) {
  const std::int64_t n = product(shape);
  std::vector<std::int64_t> index(shape.size());
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t left = i;
    for (std::size_t d = shape.size(); d-- > 0;) {
      index[d] = left % shape[d];
      left /= shape[d];
    }
    f(index);
  }
}

Array map(const Array& x, const std::function<double(double)>& f) {
  Array out = x;
  for (double& v : out.values) v = f(v);
  return out;
}

Array map(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Array out(broadcast_shapes(Shape(a.shape), Shape(b.shape), "reference").to_vector());
  for_each_index(out.shape, [&](const std::vector<std::int64_t>& i) { out[i] = f(a.at(i), b.at(i)); });
  return out;
}

Tensor uniform(const Shape& shape, std::uint64_t seed, double low, double high) { return random_uniform(shape, RandomKey{seed, 11}, low, high, DType::f64); }

Tensor distinct(const Shape& shape, std::uint64_t seed) {
  const std::int64_t n = shape.count();
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = static_cast<double>(i - n / 2) * 0.0625 + 0.03125;
  // A shuffle of our own: the same everywhere.
  const std::vector<double> keys = random_uniform({n}, RandomKey{seed, 12}, 0.0, 1.0, DType::f64).to_vector<double>();
  for (std::size_t i = values.size(); i-- > 1;) std::swap(values[i], values[static_cast<std::size_t>(keys[i] * static_cast<double>(i + 1))]);
  return from_vector(values, shape);
}

Tensor integers(const Shape& shape, std::uint64_t seed, std::int64_t low, std::int64_t high) { return random_integers(shape, RandomKey{seed, 13}, low, high); }
Tensor coins(const Shape& shape, std::uint64_t seed, double p) { return bernoulli(shape, RandomKey{seed, 14}, p, DType::boolean); }

}  // namespace cambium::test
