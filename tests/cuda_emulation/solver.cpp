// The cuSOLVER functions the project calls, on LAPACK, with the restrictions and the checks of the real ones.
#include "blas.h"

#include <cusolverDn.h>

#include <algorithm>
#include <string>
#include <vector>

#define KEMU_LAPACK(letter, type)                                                                                                                                          \
  void letter##gesvd_(const char*, const char*, const int*, const int*, type*, const int*, type*, type*, const int*, type*, const int*, type*, const int*, int*);          \
  void letter##geqrf_(const int*, const int*, type*, const int*, type*, type*, const int*, int*);                                                                         \
  void letter##orgqr_(const int*, const int*, const int*, type*, const int*, const type*, type*, const int*, int*);                                                       \
  void letter##syevd_(const char*, const char*, const int*, type*, const int*, type*, type*, const int*, int*, const int*, int*);
extern "C" {
KEMU_LAPACK(s, float)
KEMU_LAPACK(d, double)
}
#undef KEMU_LAPACK

struct cusolverDnContext {
  int device = 0;
  cudaStream_t stream = nullptr;
};

namespace kemu {

namespace {

template <class T> struct Lapack;
template <> struct Lapack<float> { static constexpr auto gesvd = &sgesvd_; static constexpr auto geqrf = &sgeqrf_; static constexpr auto orgqr = &sorgqr_; static constexpr auto syevd = &ssyevd_; };
template <> struct Lapack<double> { static constexpr auto gesvd = &dgesvd_; static constexpr auto geqrf = &dgeqrf_; static constexpr auto orgqr = &dorgqr_; static constexpr auto syevd = &dsyevd_; };

cusolverStatus_t wrong(const char* call, const std::string& why) { return set_error(cudaErrorInvalidValue, std::string(call) + ": " + why), CUSOLVER_STATUS_INVALID_VALUE; }

/// An operand of a call: where, how many elements of what size.
struct Operand {
  const char* name;
  const void* data;
  std::size_t elements, size;
};

// Sizes of working memory are the emulator's own: callers have to ask.
int gesvd_work(int m, int n) { return 8 * (m + n) + 64; }
int geqrf_work(int n) { return 64 * std::max(n, 1); }
int syevd_work(int n) { return 1 + 6 * n + 2 * n * n; }

template <class Work>
cusolverStatus_t run(const char* call, cusolverDnContext* h, int given, int needed, std::initializer_list<Operand> operands, Work work) {
  if (h->device != current_device()) return wrong(call, "the handle belongs to another device than the one selected");
  if (given < needed) return wrong(call, "lwork is " + std::to_string(given) + ", _bufferSize says " + std::to_string(needed));
  for (const Operand& o : operands)
    if (!operand_fits(call, o.name, h->device, o.data, o.elements, o.size)) return CUSOLVER_STATUS_EXECUTION_FAILED;
  ++mutable_counters().library_calls;
  enqueue(h->stream, [work] {
    const DeviceVisible visible;
    work();
  });
  return CUSOLVER_STATUS_SUCCESS;
}

/// A = U diag(S) V'. As the real one: m >= n; 'O' is left out.
template <class T>
cusolverStatus_t gesvd(const char* call, cusolverDnContext* h, signed char job_u, signed char job_v, int m, int n, T* a, int lda, T* s, T* u, int ldu, T* vt, int ldvt, T* work,
                       int lwork, int* info) {
  const Lock lock;
  if (h == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
  const auto known = [](signed char c) { return c == 'A' || c == 'S' || c == 'N'; };
  if (m < n || n < 0) return wrong(call, "m has to be at least n, they are " + std::to_string(m) + " and " + std::to_string(n));
  if (!known(job_u) || !known(job_v)) return wrong(call, "jobu and jobvt are A, S or N here");
  const int columns_u = job_u == 'A' ? m : job_u == 'S' ? n : 0, rows_v = job_v == 'N' ? 0 : n;
  if (lda < std::max(1, m) || (columns_u > 0 && ldu < m) || (rows_v > 0 && ldvt < n)) return wrong(call, "a leading dimension below the rows of its matrix");
  return run(call, h, lwork, gesvd_work(m, n),
             {{"A", a, extent(m, n, lda), sizeof(T)}, {"S", s, static_cast<std::size_t>(n), sizeof(T)}, {"U", u, extent(m, columns_u, ldu), sizeof(T)},
              {"VT", vt, extent(rows_v, n, ldvt), sizeof(T)}, {"work", work, static_cast<std::size_t>(lwork), sizeof(T)}, {"info", info, 1, sizeof(int)}},
             [=] {
               const char ju = static_cast<char>(job_u), jv = static_cast<char>(job_v);
               const int lu = std::max(ldu, 1), lv = std::max(ldvt, 1);
               T size = 0;
               int words = -1;
               Lapack<T>::gesvd(&ju, &jv, &m, &n, a, &lda, s, u, &lu, vt, &lv, &size, &words, info);
               words = static_cast<int>(size) + 1;
               std::vector<T> buffer(static_cast<std::size_t>(words));
               Lapack<T>::gesvd(&ju, &jv, &m, &n, a, &lda, s, u, &lu, vt, &lv, buffer.data(), &words, info);
             });
}

template <class T>
cusolverStatus_t geqrf(const char* call, cusolverDnContext* h, int m, int n, T* a, int lda, T* tau, T* work, int lwork, int* info) {
  const Lock lock;
  if (h == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (m < 0 || n < 0 || lda < std::max(1, m)) return wrong(call, "a negative size, or lda below m");
  return run(call, h, lwork, geqrf_work(n),
             {{"A", a, extent(m, n, lda), sizeof(T)}, {"TAU", tau, static_cast<std::size_t>(std::min(m, n)), sizeof(T)},
              {"Workspace", work, static_cast<std::size_t>(lwork), sizeof(T)}, {"devInfo", info, 1, sizeof(int)}},
             [=] {
               const int words = geqrf_work(n);
               std::vector<T> buffer(static_cast<std::size_t>(words));
               Lapack<T>::geqrf(&m, &n, a, &lda, tau, buffer.data(), &words, info);
             });
}

template <class T>
cusolverStatus_t orgqr(const char* call, cusolverDnContext* h, int m, int n, int k, T* a, int lda, const T* tau, T* work, int lwork, int* info) {
  const Lock lock;
  if (h == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (m < n || n < k || k < 0 || lda < std::max(1, m)) return wrong(call, "m >= n >= k >= 0 and lda >= m have to hold");
  return run(call, h, lwork, geqrf_work(n),
             {{"A", a, extent(m, n, lda), sizeof(T)}, {"tau", tau, static_cast<std::size_t>(k), sizeof(T)}, {"work", work, static_cast<std::size_t>(lwork), sizeof(T)},
              {"info", info, 1, sizeof(int)}},
             [=] {
               const int words = geqrf_work(n);
               std::vector<T> buffer(static_cast<std::size_t>(words));
               Lapack<T>::orgqr(&m, &n, &k, a, &lda, tau, buffer.data(), &words, info);
             });
}

template <class T>
cusolverStatus_t syevd(const char* call, cusolverDnContext* h, cusolverEigMode_t mode, cublasFillMode_t fill, int n, T* a, int lda, T* w, T* work, int lwork, int* info) {
  const Lock lock;
  if (h == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (n < 0 || lda < std::max(1, n) || fill == CUBLAS_FILL_MODE_FULL) return wrong(call, "a negative size, lda below n, or neither triangle named");
  return run(call, h, lwork, syevd_work(n),
             {{"A", a, extent(n, n, lda), sizeof(T)}, {"W", w, static_cast<std::size_t>(n), sizeof(T)}, {"work", work, static_cast<std::size_t>(lwork), sizeof(T)},
              {"info", info, 1, sizeof(int)}},
             [=] {
               const int words = syevd_work(n), integers = 3 + 5 * n;
               std::vector<T> buffer(static_cast<std::size_t>(words));
               std::vector<int> more(static_cast<std::size_t>(integers));
               Lapack<T>::syevd(mode == CUSOLVER_EIG_MODE_VECTOR ? "V" : "N", fill == CUBLAS_FILL_MODE_LOWER ? "L" : "U", &n, a, &lda, w, buffer.data(), &words, more.data(),
                                &integers, info);
             });
}

}  // namespace

}  // namespace kemu

using namespace kemu;

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* h) {
  *h = new cusolverDnContext;
  (*h)->device = current_device();
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t h) { return delete h, CUSOLVER_STATUS_SUCCESS; }
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t s) {
  const Lock lock;
  if (device_of_stream(s) != h->device) return wrong("cusolverDnSetStream", "not a stream of the handle's device");
  return h->stream = s, CUSOLVER_STATUS_SUCCESS;
}

#define KEMU_SOLVER(letter, type)                                                                                                                                           \
  cusolverStatus_t cusolverDn##letter##gesvd_bufferSize(cusolverDnHandle_t, int m, int n, int* lwork) {                                                                     \
    if (m < n) return wrong("cusolverDn" #letter "gesvd_bufferSize", "m has to be at least n, they are " + std::to_string(m) + " and " + std::to_string(n));                \
    return *lwork = gesvd_work(m, n), CUSOLVER_STATUS_SUCCESS;                                                                                                              \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##gesvd(cusolverDnHandle_t h, signed char job_u, signed char job_v, int m, int n, type* a, int lda, type* s, type* u, int ldu,        \
                                             type* vt, int ldvt, type* work, int lwork, type*, int* info) {                                                                 \
    return gesvd("cusolverDn" #letter "gesvd", h, job_u, job_v, m, n, a, lda, s, u, ldu, vt, ldvt, work, lwork, info);                                                      \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##geqrf_bufferSize(cusolverDnHandle_t, int, int n, type*, int, int* lwork) { return *lwork = geqrf_work(n), CUSOLVER_STATUS_SUCCESS; } \
  cusolverStatus_t cusolverDn##letter##geqrf(cusolverDnHandle_t h, int m, int n, type* a, int lda, type* tau, type* work, int lwork, int* info) {                           \
    return geqrf("cusolverDn" #letter "geqrf", h, m, n, a, lda, tau, work, lwork, info);                                                                                    \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##orgqr_bufferSize(cusolverDnHandle_t, int, int n, int, const type*, int, const type*, int* lwork) {                                   \
    return *lwork = geqrf_work(n), CUSOLVER_STATUS_SUCCESS;                                                                                                                 \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##orgqr(cusolverDnHandle_t h, int m, int n, int k, type* a, int lda, const type* tau, type* work, int lwork, int* info) {              \
    return orgqr("cusolverDn" #letter "orgqr", h, m, n, k, a, lda, tau, work, lwork, info);                                                                                 \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##syevd_bufferSize(cusolverDnHandle_t, cusolverEigMode_t, cublasFillMode_t, int n, const type*, int, const type*, int* lwork) {        \
    return *lwork = syevd_work(n), CUSOLVER_STATUS_SUCCESS;                                                                                                                 \
  }                                                                                                                                                                         \
  cusolverStatus_t cusolverDn##letter##syevd(cusolverDnHandle_t h, cusolverEigMode_t mode, cublasFillMode_t fill, int n, type* a, int lda, type* w, type* work, int lwork,  \
                                             int* info) {                                                                                                                   \
    return syevd("cusolverDn" #letter "syevd", h, mode, fill, n, a, lda, w, work, lwork, info);                                                                             \
  }
KEMU_SOLVER(S, float)
KEMU_SOLVER(D, double)
#undef KEMU_SOLVER
}
