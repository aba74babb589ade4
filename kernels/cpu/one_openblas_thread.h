// One OpenBLAS thread for a scope: our own threads call it, and results must not depend on how it splits work.
#pragma once

#include <mutex>

extern "C" {
int openblas_get_num_threads(void);
void openblas_set_num_threads(int count);
int openblas_set_num_threads_local(int count) __attribute__((weak));  // OpenBLAS 0.3.27 and later
}

namespace cambium::kernels::cpu {

/// The host program's setting is put back at the end. Where OpenBLAS has one setting for the process, the first of several scopes alive at once
/// changes it and the last one puts it back, so that host threads may be in LAPACK side by side.
class OneOpenblasThread {
 public:
  OneOpenblasThread() {
    if (openblas_set_num_threads_local) {
      before_ = openblas_set_num_threads_local(1);
      return;
    }
    Shared& s = shared();
    std::lock_guard lock(s.mutex);
    if (s.scopes++ > 0) return;
    s.before = openblas_get_num_threads();
    if (s.before != 1) openblas_set_num_threads(1);
  }
  ~OneOpenblasThread() {
    if (openblas_set_num_threads_local) {
      openblas_set_num_threads_local(before_);
      return;
    }
    Shared& s = shared();
    std::lock_guard lock(s.mutex);
    if (--s.scopes == 0 && s.before != 1) openblas_set_num_threads(s.before);
  }
  OneOpenblasThread(const OneOpenblasThread&) = delete;
  OneOpenblasThread& operator=(const OneOpenblasThread&) = delete;

 private:
  struct Shared {
    std::mutex mutex;
    int scopes = 0, before = 1;
  };
  static Shared& shared() {
    static Shared only;
    return only;
  }
  int before_ = 1;
};

}  // namespace cambium::kernels::cpu
