// One matrix product as its routes see it, and the routes: packed, few lines against many, OpenBLAS. Internal to the CPU kernels.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/isa/gemm.h"
#include "kernels/device.h"
#include "kernels/dtype.h"

namespace cambium::kernels::cpu {

constexpr Storage storage_of(DType dtype) {
  return dtype == DType::f64 ? Storage::f64 : dtype == DType::bf16 ? Storage::bf16 : dtype == DType::f16 ? Storage::f16 : Storage::f32;
}
constexpr std::int64_t bytes_of(Storage storage) { return storage == Storage::f64 ? 8 : storage == Storage::f32 ? 4 : 2; }

/// C (batch, M, N) = activation(alpha A B + beta C + bias); T is what sums are held in.
template <class T>
struct GemmProblem {
  std::int64_t batch, M, N, K;
  GemmSource a, b;                         ///< lines are rows of A and columns of B
  GemmTarget<T> c;
  std::int64_t a_step, b_step, c_step;     ///< between items of the batch, in elements
  const void* prepacked = nullptr;         ///< panels of B made by pack_weight

  /// The same product seen as Cᵀ = Bᵀ Aᵀ.
  void turn() {
    std::swap(M, N);
    std::swap(a, b);
    std::swap(a_step, b_step);
    std::swap(c.row, c.column);
    c.bias_by_row = !c.bias_by_row;
  }
  GemmSource a_of(std::int64_t item) const { return moved(a, item * a_step); }
  GemmSource b_of(std::int64_t item) const { return moved(b, item * b_step); }
  GemmTarget<T> c_of(std::int64_t item) const {
    GemmTarget<T> t = c;
    t.data = static_cast<char*>(t.data) + item * c_step * bytes_of(t.type);
    return t;
  }
  static GemmSource moved(GemmSource s, std::int64_t elements) {
    if (s.data != nullptr) s.data = static_cast<const char*>(s.data) + elements * bytes_of(s.type);  // a packed weight has no other data
    return s;
  }
};

/// Working memory of a call, uninitialised.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(T)), data_(static_cast<T*>(allocate(Device{}, bytes_))) {}
  ~Scratch() { deallocate(Device{}, data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  std::size_t bytes_;
  T* data_;
};

/// Ranges of K: every route over packed panels adds up sums in these pieces.
template <class T>
constexpr std::int64_t range_of(std::int64_t K) {
  constexpr std::int64_t most = sizeof(T) == 4 ? 768 : 384;
  const std::int64_t ranges = (K + most - 1) / most;
  return ranges <= 1 ? K : ((K + ranges - 1) / ranges + 7) / 8 * 8;
}

template <class T> void gemm_packed(const GemmFunctions<T>&, const GemmProblem<T>&);
void gemm_dot(const GemmTable&, const GemmProblem<float>&);         ///< few rows M, both operands dense along k
void gemm_accumulate(const GemmTable&, const GemmProblem<float>&);  ///< at most 4 rows M, B dense along its rows
/// False if strides or types are none that OpenBLAS takes; then nothing was done.
template <class T> bool gemm_openblas(const GemmFunctions<T>&, const GemmProblem<T>&);

extern template void gemm_packed(const GemmFunctions<float>&, const GemmProblem<float>&);
extern template void gemm_packed(const GemmFunctions<double>&, const GemmProblem<double>&);
extern template bool gemm_openblas(const GemmFunctions<float>&, const GemmProblem<float>&);
extern template bool gemm_openblas(const GemmFunctions<double>&, const GemmProblem<double>&);

}  // namespace cambium::kernels::cpu
