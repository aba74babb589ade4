// Every launcher of a CUDA kernel under the name and signature that the table of kernels.h gives it; shapes are described there.
#pragma once

#include "kernels/kernels.h"

namespace cambium::kernels::cuda {

void copy(Context&, Strided out, Strided x);
void fill(Context&, Strided out, double value);
void arange(Context&, Strided out, double start, double step);
void dequantize(Context&, Strided out, Strided blocks, GgmlType type);
void unary(Context&, UnaryFunction, Strided out, Strided x, double p, double q);
void unary_backward(Context&, UnaryFunction, Strided dx, Strided g, Strided value, double p, double q);
void binary(Context&, BinaryFunction, Strided out, Strided a, Strided b);
void compare(Context&, Comparison, Strided out, Strided a, Strided b);
void where(Context&, Strided out, Strided condition, Strided a, Strided b);
void gated(Context&, UnaryFunction, Strided out, Strided gate, Strided up);
void gated_backward(Context&, UnaryFunction, Strided dgate, Strided dup, Strided g, Strided gate, Strided up);
void reduce(Context&, Reduction, Strided out, Strided x);
void arg_reduce(Context&, Reduction, Strided out, Strided x, int dim);
void cumsum(Context&, Strided out, Strided x, int dim, bool reverse);
void sort(Context&, Strided values, Strided indices, Strided x, bool descending);
void topk(Context&, Strided values, Strided indices, Strided x);
void gemm(Context&, Strided c, Strided a, const Weight& b, const GemmOptions&);
void layer_norm_forward(Context&, Strided y, Strided mean, Strided rstd, Strided x, Strided gamma, Strided beta, double epsilon);
void layer_norm_backward(Context&, Strided dx, Strided dgamma, Strided dbeta, Strided g, Strided x, Strided mean, Strided rstd, Strided gamma);
void rms_norm_forward(Context&, Strided y, Strided rstd, Strided x, Strided gamma, double epsilon);
void rms_norm_backward(Context&, Strided dx, Strided dgamma, Strided g, Strided x, Strided rstd, Strided gamma);
void softmax_forward(Context&, Strided y, Strided x, bool logarithm);
void softmax_backward(Context&, Strided dx, Strided g, Strided y, bool logarithm);
void cross_entropy_forward(Context&, Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing);
void cross_entropy_backward(Context&, Strided dlogits, Strided g, Strided logits, Strided lse, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing);
void gather(Context&, Strided out, Strided x, Strided index, int dim);
void scatter_add(Context&, Strided out, Strided index, Strided source, int dim);
void index_select(Context&, Strided out, Strided x, Strided index, int dim);
void index_add(Context&, Strided out, Strided index, Strided source, int dim);
void attention_forward(Context&, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);
void attention_backward(Context&, Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);
void rotary(Context&, Strided out, Strided x, Strided positions, Strided frequencies, double scale, bool interleaved, bool inverse);
void random_uniform(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double low, double high);
void random_normal(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double mean, double deviation);
void dropout(Context&, Strided out, Strided x, double p, std::uint64_t seed, std::uint64_t offset);
void lstm_cell_forward(Context&, Strided hidden, Strided cell, Strided tanh_cell, Strided gates, Strided cell_previous);
void lstm_cell_backward(Context&, Strided dgates, Strided dcell_previous, Strided dhidden, Strided dcell, Strided gates, Strided tanh_cell, Strided cell_previous);
void adamw(Context&, const OptimizerTensor*, int n, const AdamWOptions&);
void sgd(Context&, const OptimizerTensor*, int n, const SgdOptions&);
void sum_of_squares(Context&, Strided out, const Strided* tensors, int n);
void scale_all(Context&, const Strided* tensors, int n, double factor);
void count_not_finite(Context&, Strided out, Strided x);
void qr(Context&, Strided q, Strided r, Strided x);
void svd(Context&, Strided u, Strided s, Strided vt, Strided x);

const Kernels& table();

}  // namespace cambium::kernels::cuda
