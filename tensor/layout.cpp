// Shapes and layouts: the arithmetic of views.
#include "tensor/layout.h"

#include <algorithm>

namespace cambium {

Shape::Shape(std::span<const std::int64_t> sizes) {
  check<ShapeError>(sizes.size() <= kMaxRank, "shape: at most ", kMaxRank, " dimensions, found ", sizes.size());
  constexpr std::int64_t kLimit = std::int64_t{1} << 62;
  std::int64_t product = 1;
  for (std::int64_t size : sizes) {
    check<ShapeError>(size >= 0, "shape: sizes are not negative, found ", size);
    check<ShapeError>(size == 0 || product <= kLimit / size, "shape: too many elements");
    product = size == 0 ? product : product * size;
    sizes_[static_cast<std::size_t>(rank_++)] = size;
  }
}

std::int64_t Shape::count() const {
  std::int64_t product = 1;
  for (std::int64_t size : *this) product *= size;
  return product;
}

bool Shape::operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
  stream << '[';
  for (int i = 0; i < shape.rank(); ++i) stream << (i ? ", " : "") << shape[i];
  return stream << ']';
}

int normalize_dim(int dim, int rank, std::string_view what) {
  check<ShapeError>(dim >= -rank && dim < rank, what, ": dimension ", dim, " is out of range for ", rank, " dimensions");
  return dim < 0 ? dim + rank : dim;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view what) {
  const int rank = std::max(a.rank(), b.rank());
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(rank));
  for (int i = 1; i <= rank; ++i) {
    const std::int64_t m = i <= a.rank() ? a[-i] : 1, n = i <= b.rank() ? b[-i] : 1;
    check<ShapeError>(m == n || m == 1 || n == 1, what, ": shapes ", a, " and ", b, " do not broadcast");
    sizes[static_cast<std::size_t>(rank - i)] = m == 1 ? n : m;
  }
  return Shape(sizes);
}

Layout Layout::contiguous(const Shape& shape) {
  Layout layout{shape, {}, 0};
  std::int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    layout.strides[static_cast<std::size_t>(i)] = stride;
    stride *= std::max<std::int64_t>(shape[i], 1);
  }
  return layout;
}

bool Layout::is_contiguous() const {
  if (shape.count() == 0) return true;
  std::int64_t expected = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[static_cast<std::size_t>(i)] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

Layout Layout::transpose(int a, int b) const {
  a = normalize_dim(a, shape.rank(), "transpose");
  b = normalize_dim(b, shape.rank(), "transpose");
  Layout out = *this;
  out.shape.set(a, shape[b]);
  out.shape.set(b, shape[a]);
  std::swap(out.strides[static_cast<std::size_t>(a)], out.strides[static_cast<std::size_t>(b)]);
  return out;
}

Layout Layout::permute(std::span<const int> order) const {
  check<ShapeError>(static_cast<int>(order.size()) == shape.rank(), "permute: ", order.size(), " positions for ", shape.rank(), " dimensions");
  Layout out = *this;
  bool seen[kMaxRank] = {};
  for (int i = 0; i < shape.rank(); ++i) {
    const int from = normalize_dim(order[static_cast<std::size_t>(i)], shape.rank(), "permute");
    check<ShapeError>(!seen[from], "permute: dimension ", from, " appears twice");
    seen[from] = true;
    out.shape.set(i, shape[from]);
    out.strides[static_cast<std::size_t>(i)] = strides[static_cast<std::size_t>(from)];
  }
  return out;
}

Layout Layout::slice(int dim, std::int64_t start, std::int64_t end, std::int64_t step) const {
  dim = normalize_dim(dim, shape.rank(), "slice");
  check<ShapeError>(step >= 1, "slice: the step must be at least 1, found ", step);
  const std::int64_t size = shape[dim];
  const auto bound = [size](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + size : i, 0, size); };
  start = bound(start);
  end = std::max(bound(end), start);
  Layout out = *this;
  out.shape.set(dim, (end - start + step - 1) / step);
  std::int64_t& stride = out.strides[static_cast<std::size_t>(dim)];
  if (out.shape.count() > 0) out.offset += start * stride;  // an empty slice points nowhere beyond its storage
  stride *= step;
  return out;
}

Layout Layout::select(int dim, std::int64_t index) const {
  dim = normalize_dim(dim, shape.rank(), "select");
  const std::int64_t size = shape[dim];
  check<ShapeError>(index >= -size && index < size, "select: index ", index, " is out of range for size ", size);
  Layout out = slice(dim, index < 0 ? index + size : index, (index < 0 ? index + size : index) + 1);
  return out.squeeze(dim);
}

Layout Layout::unsqueeze(int dim) const {
  const int rank = shape.rank();
  dim = normalize_dim(dim, rank + 1, "unsqueeze");
  std::vector<std::int64_t> sizes = shape.to_vector();
  sizes.insert(sizes.begin() + dim, 1);
  Layout out{Shape(sizes), {}, offset};
  for (int i = 0; i <= rank; ++i)
    out.strides[static_cast<std::size_t>(i)] = i < dim ? strides[static_cast<std::size_t>(i)] : i == dim ? 1 : strides[static_cast<std::size_t>(i - 1)];
  return out;
}

Layout Layout::squeeze(int dim) const {
  dim = normalize_dim(dim, shape.rank(), "squeeze");
  check<ShapeError>(shape[dim] == 1, "squeeze: dimension ", dim, " of ", shape, " is not of size 1");
  std::vector<std::int64_t> sizes = shape.to_vector();
  sizes.erase(sizes.begin() + dim);
  Layout out{Shape(sizes), {}, offset};
  for (int i = 0; i < out.shape.rank(); ++i) out.strides[static_cast<std::size_t>(i)] = strides[static_cast<std::size_t>(i < dim ? i : i + 1)];
  return out;
}

Layout Layout::broadcast_to(const Shape& target) const {
  const int added = target.rank() - shape.rank();
  check<ShapeError>(added >= 0, "broadcast_to: ", shape, " does not broadcast to ", target);
  Layout out{target, {}, offset};
  for (int i = 0; i < shape.rank(); ++i) {
    check<ShapeError>(shape[i] == target[i + added] || shape[i] == 1, "broadcast_to: ", shape, " does not broadcast to ", target);
    out.strides[static_cast<std::size_t>(i + added)] = shape[i] == target[i + added] ? strides[static_cast<std::size_t>(i)] : 0;
  }
  return out;
}

std::optional<Layout> Layout::reshape(const Shape& target) const {
  if (is_contiguous()) {
    Layout out = contiguous(target);
    out.offset = offset;
    return out;
  }
  // Both shapes are walked from the left in groups of equal product; a group keeps its strides if its old dimensions are laid out as one.
  Layout out{target, {}, offset};
  int i = 0, j = 0;
  const int old_rank = shape.rank(), new_rank = target.rank();
  while (i < old_rank || j < new_rank) {
    const int first_i = i, first_j = j;
    std::int64_t m = i < old_rank ? shape[i++] : 1, n = j < new_rank ? target[j++] : 1;
    while (m != n) {
      if (m < n) m *= shape[i++];
      else n *= target[j++];
    }
    std::int64_t stride = 1;
    bool any = false;
    for (int k = i - 1; k >= first_i; --k) {
      if (shape[k] == 1) continue;
      const std::int64_t actual = strides[static_cast<std::size_t>(k)];
      if (any && actual != stride) return std::nullopt;
      any = true;
      stride = actual * shape[k];
    }
    std::int64_t inner = 1;  // the stride of the group's last non-trivial old dimension
    for (int k = i - 1; k >= first_i; --k)
      if (shape[k] != 1) { inner = strides[static_cast<std::size_t>(k)]; break; }
    for (int k = j - 1; k >= first_j; --k) {
      out.strides[static_cast<std::size_t>(k)] = inner;
      inner *= target[k];
    }
  }
  return out;
}

Shape infer_shape(std::span<const std::int64_t> target, std::int64_t count, std::string_view what) {
  std::vector<std::int64_t> sizes(target.begin(), target.end());
  std::int64_t known = 1;
  int open = -1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == -1) {
      check<ShapeError>(open < 0, what, ": more than one size is -1 in ", sizes);
      open = static_cast<int>(i);
    } else {
      check<ShapeError>(sizes[i] >= 0, what, ": negative size in ", sizes);
      known *= sizes[i];
    }
  }
  if (open >= 0) {
    check<ShapeError>(known > 0 && count % known == 0, what, ": ", count, " elements do not fit ", sizes);
    sizes[static_cast<std::size_t>(open)] = count / known;
  } else {
    check<ShapeError>(known == count, what, ": ", count, " elements do not fit ", sizes);
  }
  return Shape(sizes);
}

}  // namespace cambium
