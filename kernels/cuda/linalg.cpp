// QR and singular value decomposition through cuSOLVER, which counts down columns; it has QR but no LQ, and a decomposition of tall matrices only.
#include "kernels/cuda/linalg.h"

#include <algorithm>
#include <limits>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/copies.h"
#include "kernels/cuda/cuda.h"

namespace cambium::kernels::cuda {

namespace {

template <class T> struct Solver;
template <> struct Solver<float> {
  static constexpr auto geqrf_size = &cusolverDnSgeqrf_bufferSize;
  static constexpr auto geqrf = &cusolverDnSgeqrf;
  static constexpr auto orgqr_size = &cusolverDnSorgqr_bufferSize;
  static constexpr auto orgqr = &cusolverDnSorgqr;
  static constexpr auto gesvd_size = &cusolverDnSgesvd_bufferSize;
  static constexpr auto gesvd = &cusolverDnSgesvd;
};
template <> struct Solver<double> {
  static constexpr auto geqrf_size = &cusolverDnDgeqrf_bufferSize;
  static constexpr auto geqrf = &cusolverDnDgeqrf;
  static constexpr auto orgqr_size = &cusolverDnDorgqr_bufferSize;
  static constexpr auto orgqr = &cusolverDnDorgqr;
  static constexpr auto gesvd_size = &cusolverDnDgesvd_bufferSize;
  static constexpr auto gesvd = &cusolverDnDgesvd;
};

template <class F>
void visit_solver(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    default: fail<DTypeError>(what, ": expected float32 or float64, found ", dtype, ": convert it first");
  }
}

int solver_size(std::int64_t size, const char* what) {
  check<ShapeError>(size <= std::numeric_limits<int>::max(), what, ": expected sizes below 2^31, found ", size);
  return static_cast<int>(size);
}

template <class N>
N on_host(const Context& context, const N* at) {
  N value{};
  copy_bytes(Device{}, &value, context.device, at, sizeof(N));
  return value;
}

// The iteration may go on for ever with NaN.
void check_finite(Context& context, const Strided& x, const char* what) {
  const Scratch<std::int64_t> count(context, 1);
  count_not_finite(context, Strided{count.data(), DType::i64, 1, {1}, {1}}, x);
  check<Error>(on_host(context, count.data()) == 0, what, ": expected finite numbers, found NaN or infinity in a matrix of ", x.shape[0], " x ", x.shape[1],
               ": check the weights that it is made of");
}

/// A dense matrix of rows x columns that lies in columns.
Strided in_columns(void* data, DType dtype, std::int64_t rows, std::int64_t columns) { return {data, dtype, 2, {rows, columns}, {1, rows}}; }

}  // namespace

void qr(Context& context, Strided q, Strided r, Strided x) {
  visit_solver(x.dtype, "qr", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int M = solver_size(x.shape[0], "qr"), N = solver_size(x.shape[1], "qr"), K = std::min(M, N);
    if (K == 0) return;
    check_finite(context, x, "qr");
    const Scratch<T> a(context, x.count()), tau(context, K);
    const Scratch<int> info(context, 2);
    copy(context, in_columns(a.data(), x.dtype, M, N), x);
    {
      const Blas blas(context);
      int size = 0, other = 0;
      check_solver(Solver<T>::geqrf_size(blas.cusolver(), M, N, a.data(), M, &size), "qr: geqrf of ", M, " x ", N);
      check_solver(Solver<T>::orgqr_size(blas.cusolver(), M, K, K, a.data(), M, tau.data(), &other), "qr: orgqr of ", M, " x ", K);
      size = std::max({size, other, 1});
      const Scratch<T> work(context, size);
      check_solver(Solver<T>::geqrf(blas.cusolver(), M, N, a.data(), M, tau.data(), work.data(), size, info.data()), "qr: geqrf of ", M, " x ", N);
      upper_triangle(context, r, a.data(), M);
      check_solver(Solver<T>::orgqr(blas.cusolver(), M, K, K, a.data(), M, tau.data(), work.data(), size, info.data() + 1), "qr: orgqr of ", M, " x ", K);
    }
    copy(context, q, in_columns(a.data(), x.dtype, M, K));
    for (int i = 0; i < 2; ++i) {
      const int code = on_host(context, info.data() + i);
      check<Error>(code == 0, "qr: cuSOLVER's ", i == 0 ? "geqrf" : "orgqr", " failed with code ", code);
    }
  });
}

// A wide x in rows is the tall xᵀ = V S Uᵀ in columns, and what comes back in columns is vt and u in rows. A tall x is copied into columns, its factors back into rows.
void svd(Context& context, Strided u, Strided s, Strided vt, Strided x) {
  visit_solver(x.dtype, "svd", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int M = solver_size(x.shape[0], "svd"), N = solver_size(x.shape[1], "svd"), K = std::min(M, N);
    if (K == 0) return;
    check_finite(context, x, "svd");
    const bool tall = M > N;
    const int rows = std::max(M, N);
    const Scratch<T> a(context, x.count()), left(context, tall ? std::int64_t{M} * K : 0), right(context, tall ? std::int64_t{K} * N : 0);
    const Scratch<int> info(context, 1);
    copy(context, tall ? in_columns(a.data(), x.dtype, M, N) : Strided{a.data(), x.dtype, 2, {M, N}, {N, 1}}, x);
    {
      const Blas blas(context);
      int size = 0;
      check_solver(Solver<T>::gesvd_size(blas.cusolver(), rows, K, &size), "svd: gesvd of ", M, " x ", N);
      const Scratch<T> work(context, std::max(size, 1)), unconverged(context, K);
      check_solver(Solver<T>::gesvd(blas.cusolver(), 'S', 'S', rows, K, a.data(), rows, s.as<T>(), tall ? left.data() : vt.as<T>(), rows, tall ? right.data() : u.as<T>(), K, work.data(),
                                    std::max(size, 1), unconverged.data(), info.data()),
                   "svd: gesvd of ", M, " x ", N);
    }
    if (tall) {
      copy(context, u, in_columns(left.data(), x.dtype, M, K));
      copy(context, vt, in_columns(right.data(), x.dtype, K, N));
    }
    const int code = on_host(context, info.data());
    check<Error>(code == 0, "svd: cuSOLVER's gesvd ", code > 0 ? "did not converge" : "refused its input", " for a matrix of ", M, " x ", N);
  });
}

}  // namespace cambium::kernels::cuda
