// The table of ops: a row for every function of autograd/ops.h, from which all properties are tested. Rows stand in op_table_*.cpp by family.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/ops.h"

namespace cambium::test {

/// A plain array in double: what references are computed from and give.
struct Array {
  std::vector<std::int64_t> shape;
  std::vector<double> values;

  Array() = default;
  explicit Array(std::vector<std::int64_t> sizes);  ///< zeros
  explicit Array(const Tensor& t);
  std::int64_t count() const { return static_cast<std::int64_t>(values.size()); }
  std::int64_t size(int dim) const { return shape[static_cast<std::size_t>(dim < 0 ? dim + static_cast<int>(shape.size()) : dim)]; }
  /// Element at an index of a shape this one broadcasts to.
  double at(const std::vector<std::int64_t>& index) const;
  double& operator[](const std::vector<std::int64_t>& index);
  /// Seen as (outer, size of dim, inner): element (o, i, k).
  double line(int dim, std::int64_t o, std::int64_t i, std::int64_t k) const;
};

/// Calls f(index) for each index of a shape in row-major order.
void for_each_index(const std::vector<std::int64_t>& shape, const std::function<void(const std::vector<std::int64_t>&)>& f);
/// f applied to all elements, or to all pairs after broadcasting.
Array map(const Array& x, const std::function<double(double)>& f);
Array map(const Array& a, const Array& b, const std::function<double(double, double)>& f);

using Inputs = std::vector<Tensor>;

struct BadInput {
  std::function<void()> call;
  std::string words;  ///< what the message must contain
};

struct OpRow {
  std::string name;     ///< as declared in autograd/ops.h
  std::string variant;  ///< what tells rows of one function apart
  std::function<Tensor(const Inputs&)> call;
  std::function<Array(const std::vector<Array>&)> reference;
  std::vector<Inputs> samples = {};      ///< floating inputs float64 (converted for the other types); undefined ones are passed on
  bool differentiable = true;            ///< gradients of the floating inputs by difference quotients
  bool second_order = true;              ///< and their derivatives
  bool narrow = true;                    ///< also in float32, bfloat16 and float16
  bool views = true;                     ///< same result from transposed, sliced and repeated memory
  double slack = 1.0;                    ///< factor on the tolerances of value and gradient
  std::vector<int> constant = {};        ///< positions of floating inputs that have no gradient
  std::vector<int> wide = {};            ///< positions of floating inputs that are not converted: always the dtype given
  std::vector<BadInput> bad = {};
  std::string label() const { return variant.empty() ? name : name + " (" + variant + ")"; }
};

/// Uniform float64 values in [low, high); the same for the same seed.
Tensor uniform(const Shape& shape, std::uint64_t seed, double low = -2.0, double high = 2.0);
/// Values no two of which are closer than 0.0625, none closer than 0.03 to 0, in random order: for functions with kinks at ties, at 0 or at 1/2 steps.
Tensor distinct(const Shape& shape, std::uint64_t seed);
/// int64 values in [low, high).
Tensor integers(const Shape& shape, std::uint64_t seed, std::int64_t low, std::int64_t high);
/// bool values, true with probability p.
Tensor coins(const Shape& shape, std::uint64_t seed, double p = 0.5);

/// Where rows make a tensor of no tensors: the device that a test runs them on.
inline Device& created_on() {
  static Device device{};
  return device;
}

/// All rows. A family adds its function here and in op_table_checks.cpp.
std::vector<OpRow> pointwise_rows();
std::vector<OpRow> binary_rows();
std::vector<OpRow> compare_rows();
std::vector<OpRow> reduce_rows();
std::vector<OpRow> shape_rows();
std::vector<OpRow> index_rows();
std::vector<OpRow> random_rows();
std::vector<OpRow> matrix_rows();     // matmul, linear, lora_linear, einsum, outer, qr, svd
std::vector<OpRow> norm_rows();       // norms, softmax, losses
std::vector<OpRow> attention_rows();  // attention, rotary, gated, dropout, lstm
const std::vector<OpRow>& all_rows();

}  // namespace cambium::test
