// Shapes and layouts as values: every view is arithmetic here, tested without memory or device.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "kernels/strided.h"

namespace cambium {

inline constexpr int kMaxRank = kernels::kMaxRank;

/// Sizes of up to eight dimensions; rank 0 is a scalar.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);  ///< ShapeError: more than eight, negative, or product above 2^62
  explicit Shape(const std::vector<std::int64_t>& sizes) : Shape(std::span(sizes)) {}

  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return sizes_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)]; }  ///< negative counts from the end
  void set(int i, std::int64_t size) { sizes_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)] = size; }
  std::int64_t count() const;
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }
  std::vector<std::int64_t> to_vector() const { return {begin(), end()}; }
  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};
std::ostream& operator<<(std::ostream& stream, const Shape& shape);  ///< [2, 3]

/// Position of dimension `dim` (negative counts from the end); ShapeError naming `what` when out of range.
int normalize_dim(int dim, int rank, std::string_view what);

/// The shape both broadcast to by NumPy's rule; ShapeError naming `what` and both shapes.
Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view what);

/// Where the elements of a shape lie within a storage: strides and offset in elements.
struct Layout {
  Shape shape;
  std::array<std::int64_t, kMaxRank> strides{};
  std::int64_t offset = 0;

  static Layout contiguous(const Shape& shape);
  bool is_contiguous() const;
  bool operator==(const Layout&) const = default;

  Layout transpose(int a, int b) const;
  Layout permute(std::span<const int> order) const;
  /// Elements start, start+step, … below end; Python's rules for negative and too large bounds; step >= 1.
  Layout slice(int dim, std::int64_t start, std::int64_t end, std::int64_t step = 1) const;
  Layout select(int dim, std::int64_t index) const;       ///< drops the dimension
  Layout unsqueeze(int dim) const;                        ///< inserts a dimension of size 1
  Layout squeeze(int dim) const;                          ///< drops a dimension of size 1
  Layout broadcast_to(const Shape& target) const;         ///< stride 0 where repeated
  /// The same elements in row-major order as `target` (one size may be -1), or nothing when that needs a copy.
  std::optional<Layout> reshape(const Shape& target) const;
};

/// `target` with a single -1 replaced by what is left; ShapeError when the counts differ.
Shape infer_shape(std::span<const std::int64_t> target, std::int64_t count, std::string_view what);

}  // namespace cambium
