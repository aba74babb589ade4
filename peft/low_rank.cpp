// Singular values of low-rank products, truncation, randomised decomposition.
#include "peft/low_rank.h"

#include <algorithm>
#include <cmath>

namespace cambium {

namespace {

/// Signs of singular vectors are free: the largest entry of each column of u becomes positive (the first of equals), so that results can be repeated.
template <class T>
void fix_signs(const SvdResult& svd) {
  if (svd.u.device().type != DeviceType::cpu) {
    const Tensor largest = gather(svd.u, 0, argmax(abs(svd.u), 0, true));  // (1, count)
    const Tensor one = ones({1}, svd.u.dtype(), svd.u.device()), sign = where(less(largest, 0.0), neg(one), one);
    copy_into(svd.u, mul(svd.u, sign));
    copy_into(svd.vt, mul(svd.vt, transpose(sign)));
    return;
  }
  const std::int64_t m = svd.u.size(0), count = svd.u.size(1), n = svd.vt.size(1);
  T* u = svd.u.mutable_data<T>();
  T* vt = svd.vt.mutable_data<T>();
  // One pass over the rows: u is read as it lies.
  std::vector<T> largest(static_cast<std::size_t>(count), T(0));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t k = 0; k < count; ++k) {
      T& best = largest[static_cast<std::size_t>(k)];
      if (std::fabs(u[i * count + k]) > std::fabs(best)) best = u[i * count + k];
    }
  std::vector<T> sign(static_cast<std::size_t>(count));
  for (std::size_t k = 0; k < sign.size(); ++k) sign[k] = largest[k] < T(0) ? T(-1) : T(1);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t k = 0; k < count; ++k) u[i * count + k] *= sign[static_cast<std::size_t>(k)];
  for (std::int64_t k = 0; k < count; ++k)
    if (sign[static_cast<std::size_t>(k)] < T(0))
      for (std::int64_t j = 0; j < n; ++j) vt[k * n + j] = -vt[k * n + j];
}

Tensor eye(std::int64_t size, Device device) {
  Tensor out = zeros({size, size}, DType::f64);
  for (std::int64_t i = 0; i < size; ++i) out.mutable_data<double>()[i * size + i] = 1.0;
  return to_device(out, device);
}

void check_finite_matrix(std::string_view what, const Tensor& x) {
  check<ShapeError>(x.defined() && x.rank() == 2 && x.count() > 0, what, ": expected a matrix that is not empty, found ", x.defined() ? x.shape() : Shape{});
  check<Error>(all_finite(x), what, ": NaN or infinity in a matrix of ", x.shape(), ": check the adapter that it comes from");
}

/// Lower triangle l with l lᵀ = g (R, R); nothing when g is not positive to working precision.
std::optional<Tensor> cholesky(const Tensor& g) {
  const std::int64_t R = g.size(0);
  const Tensor from = detail::on_host(contiguous(g));  // small: on the CPU wherever g is
  const double* x = from.data<double>();
  Tensor out = zeros({R, R}, DType::f64);
  double* l = out.mutable_data<double>();
  for (std::int64_t i = 0; i < R; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = x[i * R + j];
      for (std::int64_t k = 0; k < j; ++k) sum -= l[i * R + k] * l[j * R + k];
      if (i == j && !(sum > 1e-13 * x[i * R + i])) return {};
      l[i * R + j] = i == j ? std::sqrt(sum) : sum / l[j * R + j];
    }
  return to_device(out, g.device());
}

/// The inverse of a lower triangle, row by row.
Tensor inverse_of(const Tensor& lower) {
  const std::int64_t R = lower.size(0);
  const Tensor from = detail::on_host(lower);
  const double* l = from.data<double>();
  Tensor out = zeros({R, R}, DType::f64);
  double* x = out.mutable_data<double>();
  for (std::int64_t i = 0; i < R; ++i) {
    double* row = x + i * R;
    row[i] = 1.0;
    for (std::int64_t k = 0; k < i; ++k)
      for (std::int64_t j = 0; j <= k; ++j) row[j] -= l[i * R + k] * x[k * R + j];
    for (std::int64_t j = 0; j <= i; ++j) row[j] /= l[i * R + i];
  }
  return to_device(out, lower.device());
}

/// x = l (rest q) with orthonormal rows of rest q; the columns' form is x = (q restᵀ) lᵀ.
struct Orthogonal { Tensor q, rest, l; };

/// Twice by the Cholesky factor of the Gram matrix, which is as orthogonal as Householder's way and all matrix products (Yamamoto et al. 2015, "Roundoff error analysis of the CholeskyQR2
/// algorithm"). Where the factor is too ill-conditioned for that, or has more rows than columns: by Householder reflections. `rows`: x is (R, n), else (m, R).
Orthogonal orthogonalized(const Tensor& x, bool rows) {
  const std::int64_t R = rows ? x.size(0) : x.size(1), length = rows ? x.size(1) : x.size(0);
  const auto gram = [&](const Tensor& q) { return rows ? matmul(q, transpose(q)) : matmul(transpose(q), q); };
  if (R <= length) {
    if (const std::optional<Tensor> first = cholesky(gram(x))) {
      const Tensor inverse = inverse_of(*first), q = rows ? matmul(inverse, x) : matmul(x, transpose(inverse)), again = gram(q);
      // Near enough to the identity: then the second step is exact to rounding.
      const double off = max(abs(sub(again, eye(R, x.device())))).item() * static_cast<double>(R);
      if (off < 0.1)
        if (const std::optional<Tensor> second = cholesky(again)) return {q, inverse_of(*second), matmul(*first, *second)};
    }
  }
  const QrResult exact = qr(rows ? contiguous(transpose(x)) : x);
  return {rows ? transpose(exact.q) : exact.q, eye(exact.q.size(1), x.device()), transpose(exact.r)};
}

}  // namespace

SvdResult svd_of_product(Tensor b, Tensor a, std::int64_t vectors) {
  NoGrad no_grad;
  check_finite_matrix("svd of a product", b);
  check_finite_matrix("svd of a product", a);
  check<ShapeError>(b.size(1) == a.size(0), "svd of a product: inner sizes differ: ", b.shape(), " x ", a.shape());
  check<ConfigError>(vectors >= 0, "svd of a product: expected how many vectors are wanted, found ", vectors);
  // B = Qb Lbᵀ and A = La Qa, so B A = Qb (Lbᵀ La) Qa. In float64 throughout: the float32 factors are exact in it, and what stands near the cut is not blurred.
  const Orthogonal left = orthogonalized(to_dtype(b, DType::f64), false);
  b = Tensor();
  const Orthogonal right = orthogonalized(to_dtype(a, DType::f64), true);
  a = Tensor();
  const SvdResult core = svd(matmul(transpose(left.l), right.l));
  const std::int64_t kept = vectors == 0 ? core.s.size(0) : std::min(vectors, core.s.size(0));
  const SvdResult out{matmul(left.q, matmul(transpose(left.rest), slice(core.u, 1, 0, kept))), core.s, matmul(matmul(slice(core.vt, 0, 0, kept), right.rest), right.q)};
  fix_signs<double>(out);
  return out;
}

SvdResult svd_of_matrix(const Tensor& matrix) {
  NoGrad no_grad;
  check_finite_matrix("svd", matrix);
  const SvdResult out = svd(to_dtype(matrix, DType::f64));
  fix_signs<double>(out);
  return out;
}

bool prefers_randomised_svd(std::int64_t m, std::int64_t n, std::int64_t rank) {
  const std::int64_t small = std::min(m, n);
  return small > 512 && 4 * (rank + 16) <= small;
}

SvdResult randomised_svd(const Tensor& matrix, std::int64_t rank, RandomKey key) {
  NoGrad no_grad;
  check_finite_matrix("randomised svd", matrix);
  check<ConfigError>(rank > 0, "randomised svd: expected a positive rank, found ", rank);
  const Tensor x = to_dtype(matrix, DType::f32), xt = transpose(x);
  const std::int64_t n = x.size(1), width = std::min({rank + 16, x.size(0), n});
  constexpr int kMostIterations = 24;
  constexpr double kSettled = 1e-6;  // of what is captured, from one iteration to the next
  Tensor q = qr(matmul(x, random_normal({n, width}, key, 0.0, 1.0, DType::f32, x.device()))).q;
  double captured = 0.0;
  for (int iteration = 0; iteration < kMostIterations; ++iteration) {
    const Tensor projected = matmul(xt, q);  // (n, width)
    const double now = sum(mul(projected, projected)).item();
    if (iteration > 1 && now - captured <= kSettled * now) break;
    captured = now;
    q = qr(matmul(x, qr(projected).q)).q;
  }
  const SvdResult small = svd(to_dtype(matmul(transpose(q), x), DType::f64));
  const std::int64_t kept = std::min(rank, small.s.size(0));
  const SvdResult out{matmul(to_dtype(q, DType::f64), contiguous(slice(small.u, 1, 0, kept))), contiguous(slice(small.s, 0, 0, kept)), contiguous(slice(small.vt, 0, 0, kept))};
  fix_signs<double>(out);
  return out;
}

LowRankFactors truncate(const SvdResult& svd, std::int64_t rank) {
  NoGrad no_grad;
  check<ConfigError>(rank > 0, "truncate: expected a positive rank, found ", rank);
  const std::int64_t kept = std::min(rank, svd.u.size(1));
  LowRankFactors out;
  out.b = to_dtype(mul(slice(svd.u, 1, 0, kept), slice(svd.s, 0, 0, kept)), DType::f32);
  out.a = to_dtype(contiguous(slice(svd.vt, 0, 0, kept)), DType::f32);
  if (kept < rank) {
    out.b = cat({out.b, zeros({out.b.size(0), rank - kept}, DType::f32, out.b.device())}, 1);
    out.a = cat({out.a, zeros({rank - kept, out.a.size(1)}, DType::f32, out.a.device())}, 0);
  }
  return out;
}

double quantile(std::vector<float>& values, double q) {
  check<ConfigError>(q >= 0.0 && q <= 1.0, "quantile: expected a share between 0 and 1, found ", q);
  check<ShapeError>(!values.empty(), "quantile: there are no values");
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), at, values.end());
  const double low = *at;
  if (below + 1 == values.size()) return low;
  const double high = *std::min_element(at + 1, values.end());
  return low + (position - static_cast<double>(below)) * (high - low);
}

void clamp_factors(LowRankFactors& factors, double q) {
  check<ConfigError>(q >= 0.0 && q <= 1.0, "svd_clamp: expected a share between 0 and 1, found ", q);
  NoGrad no_grad;
  std::vector<float> all = factors.b.to_vector<float>();
  const std::vector<float> rest = factors.a.to_vector<float>();
  all.insert(all.end(), rest.begin(), rest.end());
  const double h = quantile(all, q);
  // torch.clamp(-h, h) with h < 0 gives h everywhere: the upper limit wins.
  const auto limited = [&](const Tensor& x) { return h >= 0.0 ? clamp(x, -h, h) : full(x.shape(), h, x.dtype(), x.device()); };
  factors.a = limited(factors.a);
  factors.b = limited(factors.b);
}

std::int64_t rank_for_energy(const Tensor& s, double energy) {
  check<ConfigError>(energy > 0.0 && energy <= 1.0, "energy: expected a share above 0 and at most 1, found ", energy);
  const std::vector<double> values = s.to_vector<double>();
  double total = 0.0, kept = 0.0;
  for (const double v : values) total += v * v;
  std::int64_t rank = 0;
  for (const double v : values) {
    kept += v * v;
    ++rank;
    if (kept >= energy * total * (1.0 - 1e-15)) break;
  }
  return std::max<std::int64_t>(rank, 1);
}

}  // namespace cambium
