// Matrix products of strided operands.
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/parallel.h"
#include "kernels/pointwise.h"

namespace cambium::kernels::cpu {
namespace {

template <class A>
A activate(MatrixActivation activation, A x) {
  switch (activation) {
    case MatrixActivation::none: return x;
    case MatrixActivation::relu: return relu_function::f(x, A(0), A(0));
    case MatrixActivation::gelu_tanh: return gelu_tanh_function::f(x, A(0), A(0));
    case MatrixActivation::gelu_erf: return gelu_erf_function::f(x, A(0), A(0));
    case MatrixActivation::silu: return silu_function::f(x, A(0), A(0));
  }
  return x;
}

}  // namespace

void gemm(Context&, Strided c, Strided a, const Weight& weight, const GemmOptions& options) {
  check<DTypeError>(weight.format == Weight::Format::dense, "gemm: packed weights are not supported");
  const Strided& b = weight.dense;
  const std::int64_t M = c.size(-2), N = c.size(-1), K = a.size(-1), batch = c.rank > 2 ? c.shape[0] : 1;
  visit_float(c.dtype, "gemm", [&](auto c_tag) {
    visit_float(a.dtype, "gemm", [&](auto a_tag) {
      visit_float(b.dtype, "gemm", [&](auto b_tag) {
        using C = typename decltype(c_tag)::type;
        using A = acc_t<C>;
        using Left = typename decltype(a_tag)::type;
        using Right = typename decltype(b_tag)::type;
        parallel_for(batch * M, [&](std::int64_t task) {
          const std::int64_t z = task / M, i = task % M;
          for (std::int64_t j = 0; j < N; ++j) {
            const Left* x = a.as<Left>() + (a.rank > 2 ? z * a.strides[0] : 0) + i * a.stride(-2);
            const Right* y = b.as<Right>() + (b.rank > 2 ? z * b.strides[0] : 0) + j * b.stride(-1);
            A sum = 0;
            for (std::int64_t k = 0; k < K; ++k) sum += convert<A>(x[k * a.stride(-1)]) * convert<A>(y[k * b.stride(-2)]);
            C& to = c.as<C>()[(c.rank > 2 ? z * c.strides[0] : 0) + i * c.stride(-2) + j * c.stride(-1)];
            A value = static_cast<A>(options.alpha) * sum;
            if (options.beta != 0) value += static_cast<A>(options.beta) * convert<A>(to);
            if (options.bias) value += convert<A>(options.bias.as<C>()[j * options.bias.strides[0]]);
            to = convert<C>(activate(options.activation, value));
          }
        });
      });
    });
  });
}

}  // namespace cambium::kernels::cpu
