// LoRA by hand: a frozen layer learns a new task through two thin matrices, and merging them gives an ordinary layer again.
#include <iostream>

#include "cambium.h"

using namespace cambium;

int main() {
  constexpr std::int64_t kIn = 64, kOut = 48, kRank = 4, kRows = 256;
  const RandomKey key{7};
  // What was pretrained, and a new task that differs from it by a matrix of low rank.
  const Tensor w = random_normal({kOut, kIn}, key.fold("pretrained"), 0.0, 0.1);
  const Tensor change = matmul(random_normal({kOut, kRank}, key.fold("left")), random_normal({kRank, kIn}, key.fold("right"), 0.0, 0.1));
  const Tensor x = random_normal({kRows, kIn}, key.fold("x")), target = linear(x, w + change);

  // LoRA (Hu et al. 2021): y = W x + s B A x. W is frozen: no gradient of it is computed or kept. B starts at zero, so training starts at W.
  const Tensor a = random_uniform({kRank, kIn}, key.fold("A"), -0.125, 0.125), b = zeros({kOut, kRank});
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  const double scaling = 2.0;
  const auto adapted = [&] { return linear(x, w) + linear(linear(x, a), b) * scaling; };

  const double before = mse_loss(adapted(), target).item();
  AdamW optimizer(std::vector<Tensor>{a, b}, {.learning_rate = 2e-2});
  for (int step = 0; step < 300; ++step) {
    optimizer.zero_grad();
    backward(mse_loss(adapted(), target));
    optimizer.step();
  }
  NoGrad no_grad;
  const double after = mse_loss(adapted(), target).item();
  const Tensor merged = w + matmul(b, a) * scaling;
  const double difference = max(abs(linear(x, merged) - adapted())).item();
  std::cout << "trained " << a.count() + b.count() << " numbers beside " << w.count() << " frozen ones\n"
            << "error " << before << " -> " << after << ", largest difference after merging " << difference << "\n";
  return after < 0.01 * before && difference < 1e-3 ? 0 : 1;
}
