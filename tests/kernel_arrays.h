// Arrays of any element type and layout for tests of kernels: values go in and out as double, bytes between the elements are watched.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/parallel.h"

namespace cambium::test {

using Shape = std::vector<std::int64_t>;

/// How the elements lie in memory: row-major; first dimension innermost; every second element of a larger block; backwards.
enum class Lay { dense, transposed, sliced, reversed };
inline const Lay kLays[] = {Lay::dense, Lay::transposed, Lay::sliced, Lay::reversed};
inline const DType kFloats[] = {DType::f64, DType::f32, DType::bf16, DType::f16};
inline const DType kIntegers[] = {DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};
inline const DType kAll[] = {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};

inline kernels::Context& cpu() {
  static kernels::Context context;
  return context;
}
inline const kernels::Kernels& table() { return kernels::cpu::table(); }

class Array {
 public:
  Array(DType dtype, const Shape& shape, Lay lay = Lay::dense) {
    view_.dtype = dtype;
    view_.rank = static_cast<int>(shape.size());
    std::int64_t step = lay == Lay::sliced ? 2 : 1, start = 0;
    for (int k = 0; k < view_.rank; ++k) {
      const int i = lay == Lay::transposed ? k : view_.rank - 1 - k;
      const std::int64_t size = shape[static_cast<std::size_t>(i)];
      view_.shape[i] = size;
      view_.strides[i] = lay == Lay::reversed ? -step : step;
      if (lay == Lay::reversed && size > 0) start += (size - 1) * step;
      step *= size + (lay == Lay::sliced ? 1 : 0);
    }
    bytes_.assign(static_cast<std::size_t>((step + start + 16) * item_size(dtype)), std::byte{kGap});
    start_ = start;
    point();
  }
  Array(const Array& other) : view_(other.view_), bytes_(other.bytes_), start_(other.start_) { point(); }
  Array& operator=(const Array&) = delete;

  const kernels::Strided& view() const { return view_; }
  operator kernels::Strided() const { return view_; }
  std::int64_t count() const { return view_.count(); }
  Shape shape() const { return {view_.shape, view_.shape + view_.rank}; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  double operator[](std::int64_t i) const {
    return visit_all(view_.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return convert<double>(view_.as<T>()[kernels::offset_of(view_, i)]);
    });
  }
  void set(std::int64_t i, double value) {
    visit_all(view_.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      view_.as<T>()[kernels::offset_of(view_, i)] = convert<T>(value);
    });
  }
  template <class F>
  Array& generate(F&& f) {
    for (std::int64_t i = 0; i < count(); ++i) set(i, f(i));
    return *this;
  }
  /// Even numbers in [low, high), whole ones for integer types.
  Array& random(unsigned seed, double low = -2, double high = 2) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<double> values(low, high);
    return generate([&](std::int64_t) { return is_float(view_.dtype) ? values(engine) : std::floor(values(engine)); });
  }
  std::vector<double> values() const {
    std::vector<double> result;
    for (std::int64_t i = 0; i < count(); ++i) result.push_back((*this)[i]);
    return result;
  }
  /// True if no byte outside of the elements was written.
  bool gaps_untouched() const {
    std::vector<bool> owned(bytes_.size());
    const std::int64_t size = item_size(view_.dtype);
    for (std::int64_t i = 0; i < count(); ++i)
      for (std::int64_t b = 0; b < size; ++b) owned[static_cast<std::size_t>((start_ + kernels::offset_of(view_, i)) * size + b)] = true;
    for (std::size_t i = 0; i < bytes_.size(); ++i)
      if (!owned[i] && bytes_[i] != std::byte{kGap}) return false;
    return true;
  }

 private:
  static constexpr unsigned char kGap = 0x01;  // also a valid bool
  void point() { view_.data = bytes_.data() + start_ * item_size(view_.dtype); }

  kernels::Strided view_;
  std::vector<std::byte> bytes_;
  std::int64_t start_ = 0;
};

/// `view` repeated along new leading sizes or dimensions of size 1: stride 0.
inline kernels::Strided expand(kernels::Strided view, const Shape& shape) {
  kernels::Strided result = view;
  result.rank = static_cast<int>(shape.size());
  for (int i = 0; i < result.rank; ++i) {
    const int from = i - result.rank + view.rank;
    result.shape[i] = shape[static_cast<std::size_t>(i)];
    result.strides[i] = from < 0 || view.shape[from] != result.shape[i] ? 0 : view.strides[from];
  }
  return result;
}

/// Spacing of numbers of a type next to 1: the bound of one rounding is half of it.
inline double epsilon(DType dtype) {
  switch (dtype) {
    case DType::f64: return 0x1p-52;
    case DType::f32: return 0x1p-23;
    case DType::bf16: return 0x1p-7;
    case DType::f16: return 0x1p-10;
    default: return 0;
  }
}

inline bool close(double found, double expected, double relative, double absolute = 0) {
  if (std::isnan(expected)) return std::isnan(found);
  if (std::isinf(expected)) return found == expected;
  return std::fabs(found - expected) <= relative * std::fabs(expected) + absolute;
}

/// `run` under 1 to 4 threads fills its array with the same bytes each time.
inline bool same_bits_for_threads(const std::function<void(Array&)>& run, const Array& fresh) {
  std::vector<std::vector<std::byte>> results;
  for (int count = 1; count <= 4; ++count) {
    kernels::set_threads(count);
    Array out(fresh);
    run(out);
    results.push_back(out.bytes());
  }
  kernels::set_threads(0);
  return results[0] == results[1] && results[0] == results[2] && results[0] == results[3];
}

}  // namespace cambium::test
