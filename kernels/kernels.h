// THE contract between ops and devices: one function pointer per kernel; each device fills the whole table.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/ggml_types.h"
#include "kernels/pointwise.h"
#include "kernels/strided.h"

namespace cambium::kernels {

/// Where a kernel runs. Kernels of one context run in order.
struct Context {
  Device device;
  void* stream = nullptr;  ///< CUDA stream; unused on the CPU
};

/// A matrix operand that need not be strided: a frozen weight may lie packed for the machine or in blocks of a file.
struct Weight {
  enum class Format : std::uint8_t { dense, packed };
  Format format = Format::dense;
  Strided dense;                 ///< (K, N), any strides; for packed weights sizes only
  const void* packed = nullptr;  ///< made by the device's own packing routine
  Weight() = default;
  Weight(const Strided& matrix) : dense(matrix) {}
};

enum class Reduction : std::uint8_t { sum, product, maximum, minimum };
enum class MatrixActivation : std::uint8_t { none, relu, gelu_tanh, gelu_erf, silu };

/// C = activation(alpha A B + beta C + bias). Everything after the product happens while C is still in registers.
struct GemmOptions {
  double alpha = 1.0;
  double beta = 0.0;  ///< 0: C is not read, so it may be uninitialised
  Strided bias;       ///< (N), element type of C, or absent
  MatrixActivation activation = MatrixActivation::none;
};

/// Who may attend to whom. Query i of a row sits at position i + (Tk - Tq), the end of the keys, unless sequences are packed.
struct AttentionOptions {
  double scale = 1.0;
  bool causal = false;
  std::int64_t window = 0;  ///< > 0: only keys at positions > query position - window
  Strided key_mask;         ///< bool (B, Tk), true = may be attended to; or absent
  Strided bias;             ///< added to the scaled scores: float, expanded to (B, H, Tq, Tk) with stride 0 where repeated; or absent
  Strided starts;           ///< int32 (S+1): B is 1 and rows starts[s]..starts[s+1] of q and k are sequence s; or absent
};

struct AdamWOptions {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  std::int64_t step;  ///< counted from 1
};
struct SgdOptions {
  double learning_rate, momentum, dampening, weight_decay;
  bool nesterov, first_step;
};

/// One operand of an optimizer step over many tensors at once; all contiguous.
struct OptimizerTensor {
  Strided parameter, gradient, state1, state2;
};

// Sizes are named in the comments. "strided" operands may have any strides (0 where broadcast); "dense" ones are contiguous. Float kernels
// take f64, f32, bf16 and f16 and compute in acc_t; all float operands of a call have one dtype unless said otherwise. The op has checked
// shapes and dtypes: kernels assert. Outputs are allocated by the op, do not overlap the inputs unless said so, and are written in full.
struct Kernels {
  // Copies and fills
  void (*copy)(Context&, Strided out, Strided x);               ///< same shape, strided, any dtypes: converts
  void (*fill)(Context&, Strided out, double value);            ///< strided, any dtype
  void (*arange)(Context&, Strided out, double start, double step);  ///< (N) dense, any dtype
  /// out (N) dense, f32, bf16 or f16; blocks dense u8, the bytes of N elements in a block format with `dequantizes`; N is a multiple of the block. float32, rounded once.
  void (*dequantize)(Context&, Strided out, Strided blocks, GgmlType type);

  // Pointwise: out and inputs of one shape, strided. Integers: neg, abs, sign, scalar functions and the binary ones only.
  void (*unary)(Context&, UnaryFunction, Strided out, Strided x, double p, double q);
  void (*unary_backward)(Context&, UnaryFunction, Strided dx, Strided g, Strided value, double p, double q);  ///< value: input or output, see needs_of
  void (*binary)(Context&, BinaryFunction, Strided out, Strided a, Strided b);
  void (*compare)(Context&, Comparison, Strided out, Strided a, Strided b);  ///< out bool
  void (*where)(Context&, Strided out, Strided condition, Strided a, Strided b);  ///< condition bool
  /// out = f(gate) up, and dgate = g up f'(gate), dup = g f(gate); dense, any shape. f: silu, gelu_tanh, gelu_erf, relu
  void (*gated)(Context&, UnaryFunction, Strided out, Strided gate, Strided up);
  void (*gated_backward)(Context&, UnaryFunction, Strided dgate, Strided dup, Strided g, Strided gate, Strided up);

  // Reductions: out has x's rank, size 1 where reduced; fixed tree. arg_reduce: along `dim`, first of equals, out int64.
  void (*reduce)(Context&, Reduction, Strided out, Strided x);
  void (*arg_reduce)(Context&, Reduction, Strided out, Strided x, int dim);
  void (*cumsum)(Context&, Strided out, Strided x, int dim, bool reverse);
  void (*sort)(Context&, Strided values, Strided indices, Strided x, bool descending);  ///< (R, N) dense rows, stable; indices int64
  void (*topk)(Context&, Strided values, Strided indices, Strided x);  ///< x (R, N) dense; values, indices (R, k), descending, first of equals first

  // Matrix product. C (B, M, N), A (B, M, K), B (B, K, N) or a Weight shared by the batch; strided, one of the two inner strides 1 is fast.
  // A, B and C may differ in float dtype (f64 only among themselves); sums in float.
  void (*gemm)(Context&, Strided c, Strided a, const Weight& b, const GemmOptions&);

  // Rows: x (R, N) dense. gamma, beta (N) or absent. mean, rstd (R) in acc_t's dtype. Absent outputs are not computed.
  void (*layer_norm_forward)(Context&, Strided y, Strided mean, Strided rstd, Strided x, Strided gamma, Strided beta, double epsilon);
  void (*layer_norm_backward)(Context&, Strided dx, Strided dgamma, Strided dbeta, Strided g, Strided x, Strided mean, Strided rstd, Strided gamma);
  void (*rms_norm_forward)(Context&, Strided y, Strided rstd, Strided x, Strided gamma, double epsilon);
  void (*rms_norm_backward)(Context&, Strided dx, Strided dgamma, Strided g, Strided x, Strided rstd, Strided gamma);
  void (*softmax_forward)(Context&, Strided y, Strided x, bool logarithm);
  void (*softmax_backward)(Context&, Strided dx, Strided g, Strided y, bool logarithm);

  // Loss. logits (R, V) dense; targets int64 (R), rows with ignore_index give loss 0. loss, lse (R) in acc_t's dtype; weights (V) or absent.
  // loss_r = weight_t ((1-s) nll_t) + s/V sum_v weight_v nll_v, as torch.nn.CrossEntropyLoss defines label smoothing s.
  void (*cross_entropy_forward)(Context&, Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing);
  /// dlogits = g_r d loss_r / d logits, g (R) in acc_t's dtype; dlogits may be the logits themselves.
  void (*cross_entropy_backward)(Context&, Strided dlogits, Strided g, Strided logits, Strided lse, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing);

  // Indexing. Indices int64 or int32, checked by the op. gather: out[.., i, ..] = x[.., index[.., i, ..], ..] along dim, all of out's shape.
  void (*gather)(Context&, Strided out, Strided x, Strided index, int dim);
  void (*scatter_add)(Context&, Strided out, Strided index, Strided source, int dim);  ///< adds into out, in index order: same bits always
  /// out (.., n, ..) = x at index (n) along dim; index_add adds source (.., n, ..) into out, in the order of the index.
  void (*index_select)(Context&, Strided out, Strided x, Strided index, int dim);
  void (*index_add)(Context&, Strided out, Strided index, Strided source, int dim);

  // Attention. q (B, Tq, H, D), k and v (B, Tk, G, D) with H a multiple of G, out as q; last dimension dense, the rest strided. lse (B, H, Tq) dense in
  // acc_t's dtype. Probabilities are never stored. A query that may attend to nothing gets zeros and lse -inf.
  void (*attention_forward)(Context&, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);
  void (*attention_backward)(Context&, Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions&);

  // Rotary embedding of x (B, T, H, D), the first `rotary` entries of each head: rotates pair j by positions[b, t] * frequencies[j], times `scale`.
  // positions int64 (B, T) or (1, T) expanded; frequencies f32 (rotary / 2). Pairs (j, j + rotary/2), or (2j, 2j+1) if interleaved. inverse rotates back.
  // out may be x itself. Angles and their sines are computed in double and rounded to float.
  void (*rotary)(Context&, Strided out, Strided x, Strided positions, Strided frequencies, double scale, bool interleaved, bool inverse);

  // Random numbers: Philox4x32-10; element i of a tensor takes word i % 4 of counter (offset, i / 4) under key `seed`. out dense.
  void (*random_uniform)(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double low, double high);
  void (*random_normal)(Context&, Strided out, std::uint64_t seed, std::uint64_t offset, double mean, double deviation);
  void (*dropout)(Context&, Strided out, Strided x, double p, std::uint64_t seed, std::uint64_t offset);  ///< dense; kept values times 1 / (1-p); its own backward

  // LSTM cell, gates in the order i, f, g, o. gates (B, 4H) dense: pre-activations, overwritten by activations. cell_previous, cell, hidden, tanh_cell (B, H).
  void (*lstm_cell_forward)(Context&, Strided hidden, Strided cell, Strided tanh_cell, Strided gates, Strided cell_previous);
  void (*lstm_cell_backward)(Context&, Strided dgates, Strided dcell_previous, Strided dhidden, Strided dcell, Strided gates, Strided tanh_cell, Strided cell_previous);

  // Optimizers: `n` tensors, parameters of any float dtype, gradients of the parameter's dtype or f32, states f32 (f64 for f64 parameters).
  void (*adamw)(Context&, const OptimizerTensor*, int n, const AdamWOptions&);
  void (*sgd)(Context&, const OptimizerTensor*, int n, const SgdOptions&);
  void (*sum_of_squares)(Context&, Strided out, const Strided* tensors, int n);    ///< out f64 (1), fixed tree
  void (*scale_all)(Context&, const Strided* tensors, int n, double factor);       ///< in place, dense
  void (*count_not_finite)(Context&, Strided out, Strided x);                      ///< out int64 (1): NaN and infinite entries of strided x

  // Dense linear algebra (LAPACK, cuSOLVER), f32 and f64, row-major dense. qr: x (M, N) -> q (M, K), r (K, N), K = min(M, N).
  // svd: x (M, N) = u (M, K) diag(s (K)) vt (K, N), s descending.
  void (*qr)(Context&, Strided q, Strided r, Strided x);
  void (*svd)(Context&, Strided u, Strided s, Strided vt, Strided x);
};

namespace cpu {
const Kernels& table();
}

namespace detail {
/// Puts another table in the CPU's place, nullptr the own one again: for tests that watch what ops call.
void replace_cpu_table(const Kernels* table);
}  // namespace detail

/// The table of a device; DeviceError for one that this build does not have.
const Kernels& kernels_for(Device device);

}  // namespace cambium::kernels
