// Joining, cutting, repeating and rearranging along a dimension.
#include <algorithm>

#include "autograd/ops/helpers.h"

namespace cambium {

using detail::Run;

namespace {

// x as (outer, size of dim, inner), so that one dimension can be repeated whatever the rank.
struct Folded { Tensor x; std::int64_t outer = 1, size = 1, inner = 1; };
Folded fold_around(std::string_view what, const Tensor& x, int dim) {
  detail::check_defined(what, x);
  Folded folded;
  dim = normalize_dim(dim, x.rank(), what);
  for (int i = 0; i < x.rank(); ++i) (i < dim ? folded.outer : i == dim ? folded.size : folded.inner) *= x.shape()[i];
  folded.x = reshape(x, {folded.outer, folded.size, folded.inner});
  return folded;
}

Tensor with_size(const Tensor& x, const Shape& like, int dim, std::int64_t size) {
  Shape shape = like;
  shape.set(dim, size);
  return reshape(x, std::span(shape.begin(), shape.end()));
}

Tensor masked_triangle(std::string_view what, const Tensor& x, std::int64_t diagonal, bool lower) {
  detail::check_defined(what, x);
  check<ShapeError>(x.rank() >= 2, what, ": expected at least two dimensions, found ", x.shape());
  const Tensor rows = reshape(arange(x.size(-2), DType::i64, x.device()), {-1, 1}), columns = arange(x.size(-1), DType::i64, x.device());
  const Tensor limit = add(rows, static_cast<double>(diagonal));
  return masked_fill(x, lower ? greater(columns, limit) : less(columns, limit), 0.0);
}

}  // namespace

Tensor cat(std::span<const Tensor> parts, int dim) {
  check<ShapeError>(!parts.empty(), "cat: nothing to join");
  detail::check_defined("cat", parts.front());
  const int at = normalize_dim(dim, parts.front().rank(), "cat");
  Shape shape = parts.front().shape();
  std::int64_t total = 0;
  for (const Tensor& part : parts) {
    detail::check_alike("cat", parts.front(), part);
    bool fits = part.rank() == shape.rank();
    for (int i = 0; fits && i < shape.rank(); ++i) fits = i == at || part.shape()[i] == shape[i];
    check<ShapeError>(fits, "cat: shapes ", parts.front().shape(), " and ", part.shape(), " differ outside dimension ", at);
    total += part.shape()[at];
  }
  if (parts.size() == 1) return parts.front();
  shape.set(at, total);
  Tensor out = empty(shape, parts.front().dtype(), parts.front().device());
  Run run(out);
  std::vector<std::int64_t> starts;
  std::int64_t start = 0;
  for (const Tensor& part : parts) {
    const std::int64_t end = start + part.shape()[at];
    run->copy(run.context, detail::alias(out, out.layout().slice(at, start, end)).view(), part.view());
    starts.push_back(start);
    start = end;
  }
  starts.push_back(total);
  return record("cat", std::move(out)).wrt(parts, [at, starts](const Tensor& g, Needed needed) {
    std::vector<Tensor> result(starts.size() - 1);
    for (std::size_t i = 0; i < result.size(); ++i)
      if (needed[i]) result[i] = slice(g, at, starts[i], starts[i + 1]);
    return result;
  });
}

Tensor cat(std::initializer_list<Tensor> parts, int dim) { return cat(std::span(parts.begin(), parts.size()), dim); }

Tensor stack(std::span<const Tensor> parts, int dim) {
  check<ShapeError>(!parts.empty(), "stack: nothing to join");
  std::vector<Tensor> rows;
  for (const Tensor& part : parts) {
    detail::check_alike("stack", parts.front(), part);
    check<ShapeError>(part.shape() == parts.front().shape(), "stack: shapes ", parts.front().shape(), " and ", part.shape(), " differ");
    rows.push_back(unsqueeze(part, dim));
  }
  return cat(rows, dim);
}

std::vector<Tensor> split(const Tensor& x, std::span<const std::int64_t> sizes, int dim) {
  detail::check_defined("split", x);
  const int at = normalize_dim(dim, x.rank(), "split");
  std::int64_t total = 0;
  for (std::int64_t size : sizes) {
    check<ShapeError>(size >= 0, "split: negative size ", size);
    total += size;
  }
  check<ShapeError>(total == x.shape()[at], "split: sizes add up to ", total, ", dimension ", at, " of ", x.shape(), " is ", x.shape()[at]);
  std::vector<Tensor> parts;
  std::int64_t start = 0;
  for (std::int64_t size : sizes) {
    parts.push_back(slice(x, at, start, start + size));
    start += size;
  }
  return parts;
}

std::vector<Tensor> chunk(const Tensor& x, std::int64_t parts, int dim) {
  detail::check_defined("chunk", x);
  check<ShapeError>(parts >= 1, "chunk: expected at least one part, found ", parts);
  const std::int64_t size = x.size(dim), each = (size + parts - 1) / parts;
  std::vector<std::int64_t> sizes;
  for (std::int64_t start = 0; start < size; start += each) sizes.push_back(std::min(each, size - start));
  if (sizes.empty()) sizes.push_back(0);
  return split(x, sizes, dim);
}

Tensor repeat_interleave(const Tensor& x, std::int64_t repeats, int dim) {
  check<ShapeError>(repeats >= 0, "repeat_interleave: negative count ", repeats);
  const auto [y, outer, size, inner] = fold_around("repeat_interleave", x, dim);
  const Tensor wide = broadcast_to(reshape(y, {outer, size, 1, inner}), {outer, size, repeats, inner});
  return with_size(wide, x.shape(), dim, size * repeats);
}

Tensor tile(const Tensor& x, std::initializer_list<std::int64_t> repeats) {
  detail::check_defined("tile", x);
  check<ShapeError>(static_cast<int>(repeats.size()) == x.rank(), "tile: ", repeats.size(), " counts for ", x.rank(), " dimensions");
  Tensor out = x;
  int dim = 0;
  for (std::int64_t count : repeats) {
    check<ShapeError>(count >= 0, "tile: negative count ", count);
    if (count != 1) {
      const auto [y, outer, size, inner] = fold_around("tile", out, dim);
      out = with_size(broadcast_to(reshape(y, {outer, 1, size, inner}), {outer, count, size, inner}), out.shape(), dim, size * count);
    }
    ++dim;
  }
  return out;
}

Tensor flip(const Tensor& x, int dim) {
  detail::check_defined("flip", x);
  const std::int64_t size = x.size(dim);
  const Tensor backwards = empty({size}, DType::i64, x.device());
  Run run(x);
  run->arange(run.context, backwards.view(), static_cast<double>(size - 1), -1.0);
  return index_select(x, dim, backwards);
}

Tensor roll(const Tensor& x, std::int64_t shift, int dim) {
  detail::check_defined("roll", x);
  const std::int64_t size = x.size(dim);
  if (size == 0) return x;
  const std::int64_t moved = (shift % size + size) % size;
  if (moved == 0) return x;
  return cat({slice(x, dim, size - moved), slice(x, dim, 0, size - moved)}, dim);
}

Tensor pad(const Tensor& x, std::int64_t before, std::int64_t after, int dim, double value) {
  detail::check_defined("pad", x);
  check<ShapeError>(before >= 0 && after >= 0, "pad: negative sizes ", before, ", ", after);
  const int at = normalize_dim(dim, x.rank(), "pad");
  const std::int64_t size = x.shape()[at];
  if (before == 0 && after == 0) return x;
  Shape shape = x.shape();
  shape.set(at, before + size + after);
  detail::repeated_scalar("pad", value, x, {});
  Tensor out = full(shape, value, x.dtype(), x.device());
  Run run(x);
  run->copy(run.context, detail::alias(out, out.layout().slice(at, before, before + size)).view(), x.view());
  return record("pad", std::move(out)).wrt(x, [=](const Tensor& g) { return slice(g, at, before, before + size); });
}

Tensor tril(const Tensor& x, std::int64_t diagonal) { return masked_triangle("tril", x, diagonal, true); }
Tensor triu(const Tensor& x, std::int64_t diagonal) { return masked_triangle("triu", x, diagonal, false); }

}  // namespace cambium
