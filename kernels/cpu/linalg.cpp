// QR and singular value decomposition through LAPACK; row-major matrices are handed over as their transposes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/one_openblas_thread.h"

extern "C" {
void sgelqf_(const int* m, const int* n, float* a, const int* lda, float* tau, float* work, const int* lwork, int* info);
void dgelqf_(const int* m, const int* n, double* a, const int* lda, double* tau, double* work, const int* lwork, int* info);
void sorglq_(const int* m, const int* n, const int* k, float* a, const int* lda, const float* tau, float* work, const int* lwork, int* info);
void dorglq_(const int* m, const int* n, const int* k, double* a, const int* lda, const double* tau, double* work, const int* lwork, int* info);
void sgesdd_(const char* jobz, const int* m, const int* n, float* a, const int* lda, float* s, float* u, const int* ldu, float* vt, const int* ldvt,
             float* work, const int* lwork, int* iwork, int* info, std::size_t);
void dgesdd_(const char* jobz, const int* m, const int* n, double* a, const int* lda, double* s, double* u, const int* ldu, double* vt,
             const int* ldvt, double* work, const int* lwork, int* iwork, int* info, std::size_t);
}

namespace cambium::kernels::cpu {
namespace {

template <class T> struct Lapack;
template <> struct Lapack<float> {
  static constexpr auto gelqf = &sgelqf_;
  static constexpr auto orglq = &sorglq_;
  static constexpr auto gesdd = &sgesdd_;
};
template <> struct Lapack<double> {
  static constexpr auto gelqf = &dgelqf_;
  static constexpr auto orglq = &dorglq_;
  static constexpr auto gesdd = &dgesdd_;
};

template <class F>
void visit_lapack(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::f64: return f(TypeTag<double>{});
    case DType::f32: return f(TypeTag<float>{});
    default: fail<DTypeError>(what, ": expected float32 or float64, found ", dtype, ": convert it first");
  }
}

int lapack_size(std::int64_t size, const char* what) {
  check<ShapeError>(size <= std::numeric_limits<int>::max(), what, ": expected sizes below 2^31, found ", size);
  return static_cast<int>(size);
}

// LAPACK may loop for ever on NaN.
template <class T>
std::vector<T> finite_copy(const Strided& x, const char* what) {
  std::vector<T> a(x.as<T>(), x.as<T>() + x.count());
  check<Error>(std::all_of(a.begin(), a.end(), [](T v) { return std::isfinite(v); }), what, ": expected finite numbers, found NaN or infinity in a matrix of ",
               x.shape[0], " x ", x.shape[1], ": check the weights that it is made of");
  return a;
}

// The answer to a query is a float: it may have been rounded down.
template <class T>
int work_size(T answer) { return std::max(1, static_cast<int>(std::ceil(answer * (T(1) + std::numeric_limits<T>::epsilon())))); }

}  // namespace

// x = Q R row-major is xT = RT QT column-major: an LQ factorisation of the matrix as LAPACK sees it.
void qr(Context&, Strided q, Strided r, Strided x) {
  visit_lapack(x.dtype, "qr", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int M = lapack_size(x.shape[0], "qr"), N = lapack_size(x.shape[1], "qr"), K = std::min(M, N);
    if (K == 0) return;
    const OneOpenblasThread one_thread;
    std::vector<T> a = finite_copy<T>(x, "qr"), tau(static_cast<std::size_t>(K)), work(1);
    int info = 0, query = -1;
    Lapack<T>::gelqf(&N, &M, a.data(), &N, tau.data(), work.data(), &query, &info);
    int size = work_size(work[0]);
    Lapack<T>::orglq(&K, &M, &K, a.data(), &N, tau.data(), work.data(), &query, &info);
    size = std::max(size, work_size(work[0]));
    work.resize(static_cast<std::size_t>(size));
    Lapack<T>::gelqf(&N, &M, a.data(), &N, tau.data(), work.data(), &size, &info);
    check<Error>(info == 0, "qr: LAPACK's gelqf failed with code ", info);
    for (std::int64_t i = 0; i < K; ++i)
      for (std::int64_t j = 0; j < N; ++j) r.as<T>()[i * N + j] = j < i ? T(0) : a[static_cast<std::size_t>(i * N + j)];
    Lapack<T>::orglq(&K, &M, &K, a.data(), &N, tau.data(), work.data(), &size, &info);
    check<Error>(info == 0, "qr: LAPACK's orglq failed with code ", info);
    for (std::int64_t i = 0; i < M; ++i)
      for (std::int64_t j = 0; j < K; ++j) q.as<T>()[i * K + j] = a[static_cast<std::size_t>(i * N + j)];
  });
}

// x = U S VT row-major is xT = V S UT column-major, and LAPACK's left factor V in columns is VT in rows.
void svd(Context&, Strided u, Strided s, Strided vt, Strided x) {
  visit_lapack(x.dtype, "svd", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int M = lapack_size(x.shape[0], "svd"), N = lapack_size(x.shape[1], "svd"), K = std::min(M, N);
    if (K == 0) return;
    const OneOpenblasThread one_thread;
    std::vector<T> a = finite_copy<T>(x, "svd"), work(1);
    std::vector<int> integers(static_cast<std::size_t>(K) * 8);
    int info = 0, size = -1;
    const auto run = [&] {
      Lapack<T>::gesdd("S", &N, &M, a.data(), &N, s.as<T>(), vt.as<T>(), &N, u.as<T>(), &K, work.data(), &size, integers.data(), &info, 1);
    };
    run();
    size = work_size(work[0]);
    work.resize(static_cast<std::size_t>(size));
    run();
    check<Error>(info == 0, "svd: LAPACK's gesdd ", info > 0 ? "did not converge" : "refused its input", " for a matrix of ", M, " x ", N);
  });
}

}  // namespace cambium::kernels::cpu
