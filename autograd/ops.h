// Every public op: formula, shapes, errors. All record themselves; inputs that need no gradient cost nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "autograd/engine.h"
#include "autograd/grad_mode.h"
#include "autograd/random.h"
#include "autograd/record.h"
#include "kernels/pointwise.h"
#include "tensor/tensor.h"

namespace cambium {

using kernels::UnaryFunction;

// Conventions. Inputs of elementwise ops broadcast by NumPy's rule and must share one dtype (DTypeError names both; to_dtype converts).
// Dimensions count from the end when negative. B batch, T time, C channels, H heads, D head size, V vocabulary, N, M, K matrix sizes.

// ---- Arithmetic ---------------------------------------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);       ///< a + b
Tensor sub(const Tensor& a, const Tensor& b);       ///< a - b
Tensor mul(const Tensor& a, const Tensor& b);       ///< a b
Tensor div(const Tensor& a, const Tensor& b);       ///< a / b; integers: truncated, division by zero is a StateError
Tensor pow(const Tensor& a, const Tensor& b);       ///< a^b; d/db uses log a, 0 where a = 0
Tensor maximum(const Tensor& a, const Tensor& b);   ///< larger one; at ties each gets half of the gradient
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor atan2(const Tensor& y, const Tensor& x);
Tensor remainder(const Tensor& a, const Tensor& b); ///< a - floor(a / b) b; d/db = -floor(a / b)
Tensor add(const Tensor& a, double b);
Tensor sub(const Tensor& a, double b);
Tensor rsub(const Tensor& a, double b);             ///< b - a
Tensor mul(const Tensor& a, double b);
Tensor div(const Tensor& a, double b);
Tensor rdiv(const Tensor& a, double b);             ///< b / a
Tensor pow(const Tensor& a, double exponent);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& a, double b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, double b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, double b) { return div(a, b); }
inline Tensor operator+(double a, const Tensor& b) { return add(b, a); }
inline Tensor operator-(double a, const Tensor& b) { return rsub(b, a); }
inline Tensor operator*(double a, const Tensor& b) { return mul(b, a); }
inline Tensor operator/(double a, const Tensor& b) { return rdiv(b, a); }

Tensor neg(const Tensor& x);                        ///< -x
inline Tensor operator-(const Tensor& x) { return neg(x); }
Tensor abs(const Tensor& x);                        ///< |x|; derivative 0 at 0
Tensor exp(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);                      ///< 1 / sqrt(x)
Tensor reciprocal(const Tensor& x);
Tensor square(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor erf(const Tensor& x);
Tensor gelu_erf(const Tensor& x);                   ///< x Phi(x), with the error function (Hendrycks and Gimpel, arXiv 1606.08415)
Tensor gelu_tanh(const Tensor& x);                  ///< its tanh approximation, "gelu_new"
Tensor quick_gelu(const Tensor& x);                 ///< x sigmoid(1.702 x)
Tensor silu(const Tensor& x);                       ///< x sigmoid(x)
Tensor softplus(const Tensor& x);                   ///< log(1 + e^x)
Tensor floor(const Tensor& x);                      ///< floor, ceil, round (ties to even) and sign have gradient 0
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor clamp(const Tensor& x, double low, double high);  ///< gradient passes where low <= x <= high
/// f(gate) up with f silu, gelu_tanh, gelu_erf or relu; f(gate) is computed again in the backward pass instead of kept.
Tensor gated(UnaryFunction f, const Tensor& gate, const Tensor& up);

// ---- Comparisons and choice: bool results, no gradient ------------------------------------------------------------------------------
Tensor equal(const Tensor& a, const Tensor& b);
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
Tensor equal(const Tensor& a, double b);
Tensor not_equal(const Tensor& a, double b);
Tensor less(const Tensor& a, double b);
Tensor less_equal(const Tensor& a, double b);
Tensor greater(const Tensor& a, double b);
Tensor greater_equal(const Tensor& a, double b);
Tensor logical_and(const Tensor& a, const Tensor& b);  ///< bool inputs
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_xor(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& a);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);  ///< a where condition (bool), else b; all broadcast
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);    ///< value where mask (bool, broadcast)
bool any(const Tensor& x);                           ///< of a bool tensor
bool all(const Tensor& x);
bool all_finite(const Tensor& x);                    ///< no NaN and no infinity
std::int64_t count_not_finite(const Tensor& x);

// ---- Reductions. dims empty: all. keepdim leaves sizes of 1 -------------------------------------------------------------------------
Tensor sum(const Tensor& x, std::span<const int> dims = {}, bool keepdim = false);
Tensor sum(const Tensor& x, std::initializer_list<int> dims, bool keepdim = false);
Tensor mean(const Tensor& x, std::initializer_list<int> dims = {}, bool keepdim = false);
Tensor prod(const Tensor& x, std::initializer_list<int> dims = {}, bool keepdim = false);  ///< gradient right with one or more zeros
Tensor amax(const Tensor& x, std::initializer_list<int> dims = {}, bool keepdim = false);  ///< ties share the gradient equally
Tensor amin(const Tensor& x, std::initializer_list<int> dims = {}, bool keepdim = false);
Tensor var(const Tensor& x, std::initializer_list<int> dims = {}, double correction = 1.0, bool keepdim = false);  ///< sum (x - mean)^2 / (n - correction)
Tensor stddev(const Tensor& x, std::initializer_list<int> dims = {}, double correction = 1.0, bool keepdim = false);
Tensor norm(const Tensor& x, std::initializer_list<int> dims = {}, bool keepdim = false);       ///< sqrt(sum x^2); derivative 0 at 0
Tensor logsumexp(const Tensor& x, std::initializer_list<int> dims, bool keepdim = false);
struct ValuesAndIndices { Tensor values, indices; };  ///< indices int64, without gradient
ValuesAndIndices max(const Tensor& x, int dim, bool keepdim = false);  ///< gradient goes to the returned index (the first of equals)
ValuesAndIndices min(const Tensor& x, int dim, bool keepdim = false);
Tensor max(const Tensor& x);                         ///< of all elements; ties share equally, as amax
Tensor min(const Tensor& x);
Tensor argmax(const Tensor& x, int dim = -1, bool keepdim = false);  ///< int64, first of equals
Tensor argmin(const Tensor& x, int dim = -1, bool keepdim = false);
Tensor cumsum(const Tensor& x, int dim);
ValuesAndIndices sort(const Tensor& x, int dim = -1, bool descending = false);  ///< stable
ValuesAndIndices topk(const Tensor& x, std::int64_t k, int dim = -1);           ///< descending

// ---- Shapes: views wherever strides allow -------------------------------------------------------------------------------------------
Tensor reshape(const Tensor& x, std::span<const std::int64_t> shape);  ///< one size may be -1; a copy only where strides do not allow a view
Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> shape);
Tensor transpose(const Tensor& x, int a = -2, int b = -1);
Tensor permute(const Tensor& x, std::initializer_list<int> order);
Tensor slice(const Tensor& x, int dim, std::int64_t start, std::int64_t end = INT64_MAX, std::int64_t step = 1);  ///< Python's rules; step >= 1
Tensor select(const Tensor& x, int dim, std::int64_t index);           ///< drops dim
Tensor unsqueeze(const Tensor& x, int dim);
Tensor squeeze(const Tensor& x, int dim);
Tensor flatten(const Tensor& x, int first = 0, int last = -1);
Tensor broadcast_to(const Tensor& x, const Shape& shape);              ///< gradient: sum over what was repeated
Tensor contiguous(const Tensor& x);                                    ///< x itself if it is contiguous already
Tensor clone(const Tensor& x);                                         ///< a contiguous copy, recorded
Tensor detach(const Tensor& x);                                        ///< same memory, no graph
Tensor to_dtype(const Tensor& x, DType dtype);                         ///< gradient converted back; x itself if it has that dtype
Tensor to_device(const Tensor& x, Device device);
Tensor cat(std::span<const Tensor> parts, int dim = 0);
Tensor cat(std::initializer_list<Tensor> parts, int dim = 0);
Tensor stack(std::span<const Tensor> parts, int dim = 0);
std::vector<Tensor> split(const Tensor& x, std::span<const std::int64_t> sizes, int dim = 0);  ///< sizes add up to the dimension; views
std::vector<Tensor> chunk(const Tensor& x, std::int64_t parts, int dim = 0);                   ///< equal parts, the last may be smaller
Tensor repeat_interleave(const Tensor& x, std::int64_t repeats, int dim);
Tensor tile(const Tensor& x, std::initializer_list<std::int64_t> repeats);
Tensor flip(const Tensor& x, int dim);
Tensor roll(const Tensor& x, std::int64_t shift, int dim);
Tensor pad(const Tensor& x, std::int64_t before, std::int64_t after, int dim = -1, double value = 0.0);
Tensor tril(const Tensor& x, std::int64_t diagonal = 0);               ///< keeps column <= row + diagonal of the last two dimensions
Tensor triu(const Tensor& x, std::int64_t diagonal = 0);

// ---- Indexing. Indices int64 or int32; one out of range is an Error that names it -------------------------------------------------------
Tensor gather(const Tensor& x, int dim, const Tensor& index);          ///< out[i,j] = x[index[i,j], j] for dim 0; index has x's rank
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);  ///< x with source[i,j] added at [index[i,j], j]
Tensor index_select(const Tensor& x, int dim, const Tensor& index);    ///< index (N)
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor masked_select(const Tensor& x, const Tensor& mask);             ///< (count of true); mask bool, broadcast to x
Tensor embedding(const Tensor& ids, const Tensor& weight, std::optional<std::int64_t> padding_index = {});  ///< weight (V, C); out ids.shape + C; the padding row gets no gradient
Tensor one_hot(const Tensor& ids, std::int64_t classes, DType dtype = DType::f32);

// ---- Matrix products --------------------------------------------------------------------------------------------------------------------
Tensor matmul(const Tensor& a, const Tensor& b);                       ///< (…, M, K) (…, K, N) -> (…, M, N), batch dimensions broadcast; vectors as in NumPy
/// y = x Wᵀ + bias: x (…, K), weight (N, K), bias (N) or undefined -> (…, N).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
/// y = x W + bias with the weight stored (K, N), as GPT-2's Conv1D keeps it.
Tensor linear_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
/// base(x) + scaling (dropout(x) Aᵀ) Bᵀ as one op: x (…, K), weight (N, K) or (K, N) if transposed, A (r, K), B (N, r). Hu et al. 2021, arXiv 2106.09685.
/// dropout_p > 0 regenerates its mask from (seed, offset). Adapter dtype may be f32 beside a 16-bit base: the sum is made in f32 and rounded once.
struct LoraTerm { Tensor a, b; double scaling = 1.0, dropout_p = 0.0; std::uint64_t seed = 0, offset = 0; };
Tensor lora_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, std::span<const LoraTerm> terms, bool transposed = false);
/// Sum of products over letters shared or left out, as NumPy's einsum for two operands: "bhid,bhjd->bhij".
Tensor einsum(std::string_view equation, const Tensor& a, const Tensor& b);
Tensor outer(const Tensor& a, const Tensor& b);                        ///< (M), (N) -> (M, N)

// ---- Norms, softmax, losses -----------------------------------------------------------------------------------------------------------
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon);  ///< over the last dimension; gamma, beta may be undefined. Ba et al. 2016, arXiv 1607.06450
Tensor rms_norm(const Tensor& x, const Tensor& gamma, double epsilon);                        ///< x / sqrt(mean x^2 + eps) gamma. Zhang and Sennrich 2019, arXiv 1910.07467
Tensor softmax(const Tensor& x, int dim = -1);
Tensor log_softmax(const Tensor& x, int dim = -1);
enum class LossReduction { mean, sum, none };
struct CrossEntropyOptions {
  LossReduction reduction = LossReduction::mean;  ///< mean divides by the sum of the weights of the counted targets
  std::int64_t ignore_index = -100;
  double label_smoothing = 0.0;
  Tensor weight;                                  ///< (V) or undefined
};
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options = {});  ///< logits (…, V), targets (…); computed in f32 for 16-bit logits
/// Mean cross-entropy of hidden Wᵀ + bias against targets, in chunks of rows: logits are never whole, rows without a label are skipped, and with a frozen head
/// the gradient of `hidden` is made in the forward pass. hidden (R, C), weight (V, C), targets (R). `count`: what the sum is divided by, default the labelled rows.
Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets, std::int64_t ignore_index = -100, std::optional<double> count = {});
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& targets, LossReduction reduction = LossReduction::mean);
Tensor mse_loss(const Tensor& x, const Tensor& y, LossReduction reduction = LossReduction::mean);
Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::mean);
Tensor kl_div(const Tensor& log_input, const Tensor& target);           ///< sum target (log target - log_input) / rows: "batchmean"

// ---- Attention and positions ----------------------------------------------------------------------------------------------------------
/// softmax(scale q kᵀ + bias, masked) v without storing the probabilities. q (B, Tq, H, D); k, v (B, Tk, G, D), H a multiple of G; out as q.
/// Dao et al. 2022, arXiv 2205.14135. Query i sits at position i + Tk - Tq. A query that may see nothing gives zeros.
struct AttentionMask {
  bool causal = false;
  std::int64_t window = 0;   ///< > 0: only the last `window` keys up to the query's own
  Tensor key_mask;           ///< bool (B, Tk): true may be attended to
  Tensor bias;               ///< float, broadcast to (B, H, Tq, Tk); when it needs a gradient the composed form is used
  Tensor starts;             ///< int32 (S+1): packed sequences in one row, B = 1
  std::optional<double> scale;  ///< default 1 / sqrt(D)
  double dropout_p = 0.0;    ///< > 0: dropout of the probabilities, by the composed form
  RandomKey dropout_key;
};
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask);
/// The same from matmul and softmax: the reference, and the way when a bias is trained or second derivatives are wanted.
Tensor attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask);
/// Rotates pairs of the first 2 * frequencies.count() entries of each head. x (B, T, H, D), positions int64 (B, T) or (T). Su et al. 2021, arXiv 2104.09864.
Tensor rotary(const Tensor& x, const Tensor& positions, const Tensor& frequencies, double scale = 1.0, bool interleaved = false);

// ---- Randomness: a key and a counter, never hidden state: the same call gives the same values on every device ------------------------------
Tensor dropout(const Tensor& x, double p, RandomKey key);              ///< kept values are scaled by 1 / (1 - p); the mask is made again in the backward pass
Tensor random_uniform(const Shape& shape, RandomKey key, double low = 0.0, double high = 1.0, DType dtype = DType::f32, Device device = {});
Tensor random_normal(const Shape& shape, RandomKey key, double mean = 0.0, double deviation = 1.0, DType dtype = DType::f32, Device device = {});
Tensor bernoulli(const Shape& shape, RandomKey key, double p, DType dtype = DType::f32, Device device = {});  ///< 1 with probability p
Tensor random_integers(const Shape& shape, RandomKey key, std::int64_t low, std::int64_t high, Device device = {});  ///< [low, high)
Tensor multinomial(const Tensor& probabilities, RandomKey key);        ///< (R, V) -> int64 (R): one draw a row, in double

// ---- Recurrence ------------------------------------------------------------------------------------------------------------------------
struct LstmWeights { Tensor input, hidden, input_bias, hidden_bias; };  ///< (4H, C), (4H, H), (4H), (4H); gates in the order i, f, g, o
struct LstmResult { Tensor output, hidden, cell; };                     ///< (B, T, H), (B, H), (B, H)
/// One direction of one layer over x (B, T, C); initial states (B, H) or undefined for zero. reverse walks from the end.
LstmResult lstm(const Tensor& x, const LstmWeights& weights, const Tensor& hidden = {}, const Tensor& cell = {}, bool reverse = false);

// ---- In place: leaves only, under NoGrad (StateError) ----------------------------------------------------------------------------------
void copy_into(const Tensor& destination, const Tensor& source);       ///< same shape; converts the dtype
void fill_into(const Tensor& destination, double value);

// ---- Linear algebra, without gradient ----------------------------------------------------------------------------------------------------
struct QrResult { Tensor q, r; };
struct SvdResult { Tensor u, s, vt; };
QrResult qr(const Tensor& x);                                          ///< x (M, N) = q (M, K) r (K, N), K = min(M, N)
SvdResult svd(const Tensor& x);                                        ///< x (M, N) = u diag(s) vt, s descending

}  // namespace cambium
