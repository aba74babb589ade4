// Tensors and gradients: arithmetic with broadcasting, views, a gradient, and the gradient of a gradient.
#include <iostream>

#include "cambium.h"

using namespace cambium;

int main() {
  const Tensor a = from_vector<float>({1, 2, 3, 4, 5, 6}, {2, 3}), row = from_vector<float>({10, 20, 30}, {3});
  std::cout << "a + row          " << a + row << "\n"                     // (2, 3) and (3) broadcast
            << "a transposed     " << transpose(a) << "\n"                // a view: nothing is copied
            << "a aT             " << matmul(a, transpose(a)) << "\n"
            << "mean of columns  " << mean(a, {0}) << "\n";

  // Gradients: mark leaves, compute, call backward().
  const Tensor w = from_vector<double>({0.5, -1.0}, {2});
  w.set_requires_grad(true);
  const Tensor loss = sum(tanh(w * 3.0));
  backward(loss);
  std::cout << "d loss / dw      " << w.grad() << "\n";

  // grad() gives gradients as tensors; with create_graph they have gradients themselves: d2/dx2 of x^3 at 2 is 12.
  const Tensor x = scalar(2.0, DType::f64);
  x.set_requires_grad(true);
  const Tensor slope = grad(pow(x, 3.0), x, {.create_graph = true});
  const Tensor curvature = grad(slope, x);
  std::cout << "x^3 at 2         slope " << slope.item() << ", curvature " << curvature.item() << "\n";

  // A mistake is one line that says what is wrong.
  try {
    matmul(a, a);
  } catch (const ShapeError& error) {
    std::cout << "an error         " << error.what() << "\n";
  }
  return slope.item() == 12.0 && curvature.item() == 12.0 ? 0 : 1;
}
