// Dense arrays of any element type for tests of kernels that take whole rows: filled from doubles, read as doubles, seen through Strided. Layouts with gaps: kernel_arrays.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"

namespace cambium::test {

using kernels::Strided;

class DenseArray {
 public:
  DenseArray() = default;
  DenseArray(DType dtype, std::vector<std::int64_t> shape) : dtype_(dtype), shape_(std::move(shape)) {
    // One element more than needed at either end would be found by the address sanitizer, so exactly as many as needed.
    bytes_.resize(static_cast<std::size_t>(count() * item_size(dtype)));
  }
  DenseArray(DType dtype, std::vector<std::int64_t> shape, const std::vector<double>& values) : DenseArray(dtype, std::move(shape)) { set(values); }

  /// Normal numbers times `deviation`, rounded to the element type.
  static DenseArray random(DType dtype, std::vector<std::int64_t> shape, unsigned seed, double deviation = 1.0) {
    DenseArray a(dtype, std::move(shape));
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0.0, deviation);
    std::vector<double> values(static_cast<std::size_t>(a.count()));
    for (double& v : values) v = normal(generator);
    a.set(values);
    return a;
  }

  std::int64_t count() const {
    std::int64_t n = 1;
    for (const std::int64_t s : shape_) n *= s;
    return n;
  }
  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  void set(const std::vector<double>& values) {
    visit_all(dtype_, [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const T value = convert<T>(values[i]);
        std::memcpy(bytes_.data() + i * sizeof(T), &value, sizeof(T));
      }
    });
  }
  std::vector<double> values() const {
    std::vector<double> result(static_cast<std::size_t>(count()));
    visit_all(dtype_, [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (std::size_t i = 0; i < result.size(); ++i) {
        T value;
        std::memcpy(&value, bytes_.data() + i * sizeof(T), sizeof(T));
        result[i] = convert<double>(value);
      }
    });
    return result;
  }
  DenseArray to(DType dtype) const { return DenseArray(dtype, shape_, values()); }

  Strided view() {
    Strided s;
    // A tensor without elements is still present.
    static std::byte nothing[8];
    s.data = bytes_.empty() ? nothing : bytes_.data();
    s.dtype = dtype_;
    s.rank = static_cast<int>(shape_.size());
    std::int64_t stride = 1;
    for (int i = s.rank - 1; i >= 0; --i) {
      s.shape[i] = shape_[static_cast<std::size_t>(i)];
      s.strides[i] = stride;
      stride *= s.shape[i];
    }
    return s;
  }

 private:
  DType dtype_ = DType::f32;
  std::vector<std::int64_t> shape_{0};
  std::vector<std::byte> bytes_;
};

/// The largest |a - b| / (1 + |b|); infinite where one is NaN and the other is not, or infinities differ.
inline double difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (a[i] == b[i]) continue;
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::fabs(a[i] - b[i]) / (1 + std::fabs(b[i])));
  }
  return most;
}
inline double difference(const DenseArray& a, const DenseArray& b) { return difference(a.values(), b.values()); }

/// Relative rounding of one stored value.
inline double rounding(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : dtype == DType::f32 ? 0x1p-24 : 0x1p-53; }

/// Calls `body` once for every instruction set of this machine while it is selected; the word is for CAPTURE.
template <class F>
void for_each_isa(F&& body) {
  for (const kernels::cpu::Isa isa : kernels::cpu::supported_isas()) {
    const kernels::cpu::UseIsa use(isa);
    body(std::string(kernels::cpu::isa_name(isa)));
  }
}

/// Calls `body` with 1, 2 and 4 threads.
template <class F>
void for_each_thread_count(F&& body) {
  for (const int n : {1, 2, 4}) {
    kernels::set_threads(n);
    body(n);
  }
  kernels::set_threads(0);
}

}  // namespace cambium::test
