// What tests over all rows of the table of ops have in common, on whatever device: inputs, gradients, other memory, distances.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "tests/op_table.h"

namespace cambium::test {

bool floating(const Tensor& t);

/// The sample in another dtype and on another device; floating inputs are leaves that require a gradient where the row says so.
Inputs leaves(const OpRow& row, const Inputs& sample, DType dtype, bool grads, Device device = {});
/// Those of the inputs that require a gradient.
Inputs varied(const Inputs& inputs);
std::vector<Array> arrays(const Inputs& inputs);

/// Largest |a - b| / (1 + |b|); infinite when shapes differ or only one is finite.
double distance(const Array& a, const Array& b);
/// Roundings of a handful of operations in the type's own precision.
double tolerance(DType dtype);

/// Gradients of <out, weights> with weights that depend on the position only, which `strided` puts into transposed memory.
Inputs gradients(const Tensor& out, const Inputs& inputs, bool create_graph, bool strided = false);

/// The same values in other memory: transposed, or every second element of something larger; the first line repeated.
Tensor in_transposed(const Tensor& x);
Tensor in_sliced(const Tensor& x);
Tensor in_repeated(const Tensor& x);

/// f(row, sample) for all of them.
template <class F>
void for_all(F&& f) {
  for (const OpRow& row : all_rows())
    for (std::size_t i = 0; i < row.samples.size(); ++i) {
      INFO(row.label(), ", sample ", i);
      f(row, row.samples[i]);
    }
}

}  // namespace cambium::test
