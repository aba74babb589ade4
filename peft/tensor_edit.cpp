// Deltas, factors and replacements, applied to rows.
#include "peft/tensor_edit.h"

#include <algorithm>

#include "autograd/ops.h"
#include "peft/low_rank.h"

namespace cambium {

namespace {

Tensor reorder(const Tensor& x, std::int64_t head_dim, bool to_pairs) {
  check<ShapeError>(x.rank() >= 1 && x.rank() <= 2 && head_dim > 0 && head_dim % 2 == 0 && x.size(0) % head_dim == 0, "rotation order: ", x.shape(), " does not hold heads of ", head_dim);
  const std::int64_t columns = x.rank() == 2 ? x.size(1) : 1, heads = x.size(0) / head_dim;
  const Tensor split = to_pairs ? reshape(x, {heads, 2, head_dim / 2, columns}) : reshape(x, {heads, head_dim / 2, 2, columns});
  const Tensor swapped = contiguous(transpose(split, 1, 2));
  return x.rank() == 2 ? reshape(swapped, {x.size(0), columns}) : reshape(swapped, {x.size(0)});
}

}  // namespace

Tensor pairs_from_halves(const Tensor& x, std::int64_t head_dim) { return reorder(x, head_dim, true); }
Tensor halves_from_pairs(const Tensor& x, std::int64_t head_dim) { return reorder(x, head_dim, false); }

void TensorEdit::add_delta(Tensor b, Tensor a, double scaling, bool turned) { stages_.push_back({Kind::delta, wide(b), wide(a), scaling, turned, {}, {}, {}}); }
void TensorEdit::add_dora(Tensor b, Tensor a, double scaling, bool turned, Tensor magnitude) {
  stages_.push_back({Kind::dora, wide(b), wide(a), scaling, turned, reshape(wide(magnitude), {magnitude.count()}), {}, {}});
}
void TensorEdit::scale_rows(Tensor factors) { stages_.push_back({Kind::row_factors, {}, {}, 1.0, false, reshape(wide(factors), {factors.count()}), {}, {}}); }
void TensorEdit::scale_columns(Tensor factors) { stages_.push_back({Kind::column_factors, {}, {}, 1.0, false, reshape(wide(factors), {factors.count()}), {}, {}}); }
void TensorEdit::add_vector(Tensor values, double scaling) { stages_.push_back({Kind::vector, {}, {}, scaling, false, wide(values), {}, {}}); }
void TensorEdit::replace(Tensor tensor) { stages_.push_back({Kind::whole, {}, {}, 1.0, false, std::move(tensor), {}, {}}); }
void TensorEdit::replace_rows(std::vector<std::int64_t> rows, Tensor values) { stages_.push_back({Kind::some_rows, {}, {}, 1.0, false, wide(values), std::move(rows), {}}); }

/// As a whole delta would be made, so that the sums are the same.
Tensor TensorEdit::delta_rows(const Stage& s, std::int64_t begin, std::int64_t end) {
  return mul(s.turned ? contiguous(transpose(matmul(s.b, contiguous(slice(s.a, 1, begin, end))))) : matmul(slice(s.b, 0, begin, end), s.a), s.scaling);
}

void TensorEdit::check_shape(const Shape& shape, const std::string& name) const {
  const std::int64_t rows = shape.rank() > 0 ? shape[0] : 1, columns = shape.rank() > 1 ? shape[1] : 1;
  for (const Stage& s : stages_) {
    const auto expect = [&](bool fits, const Shape& found) { check<ShapeError>(fits, "merge: '", name, "' is ", shape, " in the model, the adapter is made for ", found, ": it belongs to another base model"); };
    switch (s.kind) {
      case Kind::delta:
      case Kind::dora: {
        const std::int64_t out = s.b.size(0), in = s.a.size(1);
        expect(shape.rank() == 2 && rows == (s.turned ? in : out) && columns == (s.turned ? out : in), s.turned ? Shape{in, out} : Shape{out, in});
        if (s.kind == Kind::dora) expect(s.vector.count() == out, s.vector.shape());
        break;
      }
      case Kind::row_factors: expect(s.vector.count() == rows, s.vector.shape()); break;
      case Kind::column_factors: expect(shape.rank() == 2 && s.vector.count() == columns, s.vector.shape()); break;
      case Kind::vector:
      case Kind::whole: expect(s.vector.shape() == shape, s.vector.shape()); break;
      case Kind::some_rows: {
        expect(shape.rank() == 2 && s.vector.rank() == 2 && s.vector.size(1) == columns && s.vector.size(0) == static_cast<std::int64_t>(s.indices.size()), s.vector.shape());
        for (const std::int64_t row : s.indices) check<ShapeError>(row >= 0 && row < rows, "merge: '", name, "': the adapter replaces row ", row, " of ", rows);
      }
    }
  }
}

Tensor TensorEdit::rows(const Shape& shape, const ReadRows& read, std::int64_t begin, std::int64_t end, std::int64_t rows_at_once) {
  NoGrad no_grad;
  return apply(stages_.size(), shape, read, begin, end, rows_at_once);
}

Tensor TensorEdit::apply(std::size_t stages, const Shape& shape, const ReadRows& read, std::int64_t begin, std::int64_t end, std::int64_t rows_at_once) {
  // A replaced tensor makes everything before it void.
  std::size_t first = 0;
  for (std::size_t i = 0; i < stages; ++i)
    if (stages_[i].kind == Kind::whole) first = i;
  const bool replaced = stages > 0 && stages_[first].kind == Kind::whole;
  Tensor x = replaced ? wide(slice(stages_[first].vector, 0, begin, end)) : read(begin, end);
  const auto part = [&](const Tensor& per_row) { return slice(per_row, 0, begin, end); };
  for (std::size_t i = replaced ? first + 1 : 0; i < stages; ++i) {
    Stage& s = stages_[i];
    switch (s.kind) {
      case Kind::delta: x = add(x, delta_rows(s, begin, end)); break;
      case Kind::dora: {
        x = add(x, delta_rows(s, begin, end));
        if (!s.turned) {  // outputs are rows
          x = mul(x, div(reshape(part(s.vector), {end - begin, 1}), norm(x, {1}, true)));
          break;
        }
        if (!s.column_factors.defined()) {
          // One pass over the whole tensor for the norms, in float64 over the pieces.
          Tensor squares = zeros({shape[1]}, DType::f64);
          for (std::int64_t at = 0; at < shape[0]; at += rows_at_once) {
            const std::int64_t until = std::min(at + rows_at_once, shape[0]);
            const Tensor piece = add(apply(i, shape, read, at, until, rows_at_once), delta_rows(s, at, until));
            squares = add(squares, to_dtype(sum(mul(piece, piece), {0}), DType::f64));
          }
          s.column_factors = div(s.vector, to_dtype(sqrt(squares), DType::f32));
        }
        x = mul(x, s.column_factors);
        break;
      }
      case Kind::row_factors: x = mul(x, x.rank() == 2 ? reshape(part(s.vector), {end - begin, 1}) : part(s.vector)); break;
      case Kind::column_factors: x = mul(x, s.vector); break;
      case Kind::vector: x = add(x, mul(part(s.vector), s.scaling)); break;
      case Kind::whole: break;
      case Kind::some_rows: {
        Tensor out = clone(x);
        float* to = out.mutable_data<float>();
        const Tensor values = contiguous(s.vector);
        for (std::size_t k = 0; k < s.indices.size(); ++k) {
          const std::int64_t row = s.indices[k], columns = shape[1];
          if (row < begin || row >= end) continue;
          const float* from = values.data<float>() + static_cast<std::int64_t>(k) * columns;
          std::copy(from, from + columns, to + (row - begin) * columns);
        }
        x = out;
      }
    }
  }
  return x;
}

}  // namespace cambium
