// layer_norm and rms_norm over the last dimension: keep the input and 1/σ, nothing more.
#include "autograd/ops.h"
#include "autograd/ops/support.h"

namespace cambium {

namespace {

using detail::dense;
using detail::optional_view;
using detail::reshaped;
using detail::Run;

void check_norm(std::string_view op, const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon) {
  detail::check_float(op, "the input", x);
  check<ShapeError>(x.rank() >= 1 && x.shape()[-1] > 0, op, ": the last dimension must not be empty, found shape ", x.shape());
  detail::check_vector(op, "gamma", gamma, x.shape()[-1], x);
  detail::check_vector(op, "beta", beta, x.shape()[-1], x);
  check<ConfigError>(epsilon >= 0.0, op, ": epsilon must not be negative, found ", epsilon);
}

Shape matrix_of(const Tensor& x) { return {detail::row_count(x.shape()), x.shape()[-1]}; }
Tensor dense_rows(const Tensor& x) { return reshaped(dense(x), matrix_of(x)); }
Tensor optional_dense(const Tensor& x) { return x.defined() ? dense(x) : x; }

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon) {
  check_norm("layer_norm", x, gamma, beta, epsilon);
  const Shape matrix = matrix_of(x);
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Tensor mean = empty({matrix[0]}, detail::accumulator(x.dtype()), x.device()), rstd = empty_like(mean);
  Run run(x);
  const Tensor from = dense_rows(x), scale = optional_dense(gamma), shift = optional_dense(beta);
  run->layer_norm_forward(run.context, reshaped(out, matrix).view(), mean.view(), rstd.view(), from.view(), optional_view(scale), optional_view(shift), epsilon);
  return record("layer_norm", out)
      .wrt({x, gamma, beta}, [x = saved(x), mean = saved(mean), rstd = saved(rstd), gamma = saved(gamma)](const Tensor& g, Needed needed) {
        const Tensor& input = x.get();
        const Tensor values = dense_rows(input), upstream = dense_rows(g), weight = optional_dense(gamma.get());
        const Shape vector{values.shape()[1]};
        Tensor dx = needed[0] ? empty(input.shape(), input.dtype(), input.device()) : Tensor();
        Tensor dgamma = needed[1] ? empty(vector, input.dtype(), input.device()) : Tensor(), dbeta = needed[2] ? empty(vector, input.dtype(), input.device()) : Tensor();
        Run backward_run(input);
        backward_run->layer_norm_backward(backward_run.context, dx.defined() ? reshaped(dx, values.shape()).view() : kernels::Strided{}, optional_view(dgamma), optional_view(dbeta),
                                 upstream.view(), values.view(), mean.get().view(), rstd.get().view(), optional_view(weight));
        const std::vector<Tensor> inputs{g, input, gamma.get()};
        return std::vector<Tensor>{detail::once("layer_norm", dx, inputs), detail::once("layer_norm", dgamma, inputs), detail::once("layer_norm", dbeta, inputs)};
      });
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, double epsilon) {
  check_norm("rms_norm", x, gamma, {}, epsilon);
  const Shape matrix = matrix_of(x);
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  Tensor rstd = empty({matrix[0]}, detail::accumulator(x.dtype()), x.device());
  Run run(x);
  const Tensor from = dense_rows(x), scale = optional_dense(gamma);
  run->rms_norm_forward(run.context, reshaped(out, matrix).view(), rstd.view(), from.view(), optional_view(scale), epsilon);
  return record("rms_norm", out).wrt({x, gamma}, [x = saved(x), rstd = saved(rstd), gamma = saved(gamma)](const Tensor& g, Needed needed) {
    const Tensor& input = x.get();
    const Tensor values = dense_rows(input), upstream = dense_rows(g), weight = optional_dense(gamma.get());
    Tensor dx = needed[0] ? empty(input.shape(), input.dtype(), input.device()) : Tensor();
    Tensor dgamma = needed[1] ? empty({values.shape()[1]}, input.dtype(), input.device()) : Tensor();
    Run backward_run(input);
    backward_run->rms_norm_backward(backward_run.context, dx.defined() ? reshaped(dx, values.shape()).view() : kernels::Strided{}, optional_view(dgamma), upstream.view(), values.view(),
                           rstd.get().view(), optional_view(weight));
    const std::vector<Tensor> inputs{g, input, gamma.get()};
    return std::vector<Tensor>{detail::once("rms_norm", dx, inputs), detail::once("rms_norm", dgamma, inputs)};
  });
}

}  // namespace cambium
