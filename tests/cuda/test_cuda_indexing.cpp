// Gather, scatter-add, index_select, index_add, sorting and the largest k on the device: the CPU's results bit for bit.
#include <limits>

#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

Shape with(Shape shape, int dim, std::int64_t size) {
  shape[static_cast<std::size_t>(dim)] = size;
  return shape;
}

Array indices(DType dtype, const Shape& shape, std::int64_t size, unsigned seed, Lay lay = Lay::dense) {
  Array index(dtype, shape, lay);
  index.random(seed, 0, static_cast<double>(size));
  for (std::int64_t i = 0; i < index.count(); ++i) index.set(i, std::floor(index[i]));
  return index;
}

const auto gather_call = [](int dim) { return [dim](const Kernels& k, Context& c, Strided out, Strided x, Strided index) { k.gather(c, out, x, index, dim); }; };
const auto select_call = [](int dim) { return [dim](const Kernels& k, Context& c, Strided out, Strided x, Strided index) { k.index_select(c, out, x, index, dim); }; };
const auto scatter_call = [](int dim) { return [dim](const Kernels& k, Context& c, Strided out, Strided index, Strided source) { k.scatter_add(c, out, index, source, dim); }; };
const auto add_call = [](int dim) { return [dim](const Kernels& k, Context& c, Strided out, Strided index, Strided source) { k.index_add(c, out, index, source, dim); }; };

}  // namespace

TEST_CASE("indexing along every dimension and layout") {
  const Shape shape{4, 5, 6};
  for (const DType dtype : kAll) {
    for (const DType index_dtype : {DType::i64, DType::i32}) {
      for (const Lay lay : kLays) {
        for (int dim = 0; dim < 3; ++dim) {
          for (const std::int64_t n : {0, 1, 9}) {
            const std::int64_t size = shape[static_cast<std::size_t>(dim)];
            const Shape other = with(shape, dim, n);
            Array x(dtype, shape, lay), source(dtype, other, lay);
            x.random(1);
            source.random(2);
            const Array index = indices(index_dtype, other, size, 3, lay), list = indices(index_dtype, {n}, size, 4, lay);
            same_on_devices(Array(dtype, other), gather_call(dim), x, index);
            same_on_devices(Array(dtype, other, lay), select_call(dim), x, list);
            same_on_devices(x, scatter_call(dim), index, source);
            same_on_devices(x, add_call(dim), list, source);
          }
        }
      }
    }
  }
}

TEST_CASE("gather over part of the other dimensions") {
  Array x(DType::f32, {4, 6});
  x.random(1);
  same_on_devices(Array(DType::f32, {2, 3}), gather_call(1), x, indices(DType::i64, {2, 3}, 6, 2));
}

TEST_CASE("rows of an embedding, in packs and not, and their gradient") {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::u8}) {
    for (const std::int64_t width : {1, 5, 48, 300}) {
      Array table(dtype, {13, width}), g(dtype, {70, width});
      table.random(5);
      g.random(6);
      Array ids = indices(DType::i64, {70}, 13, 7);
      for (std::int64_t i = 20; i < 50; ++i) ids.set(i, 4);  // a token that comes again and again
      same_on_devices(Array(dtype, {70, width}), select_call(0), table, ids);
      same_on_devices(Array(dtype, {13, width}).generate([](std::int64_t) { return 0; }), add_call(0), ids, g);
    }
  }
  // Sums in the type that is computed in, whatever the operands' types are.
  Array out(DType::f32, {6, 9}), source(DType::bf16, {40, 9});
  out.random(8);
  source.random(9);
  same_on_devices(out, add_call(0), indices(DType::i32, {40}, 6, 10), source);
}

TEST_CASE("more indices than one tile, few long lines and many short ones") {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i32}) {
    Array line(dtype, {50}), values(dtype, {3000});
    line.random(11);
    values.random(12);
    same_on_devices(line, scatter_call(0), indices(DType::i64, {3000}, 50, 13), values);
    same_on_devices(line, add_call(0), indices(DType::i64, {3000}, 50, 13), values);
    Array lines(dtype, {20, 7}), sources(dtype, {100, 7});
    lines.random(14);
    sources.random(15);
    same_on_devices(lines, scatter_call(0), indices(DType::i32, {100, 7}, 20, 16), sources);
    Array many(dtype, {5, 2100}), wide(dtype, {40, 2100});
    many.random(17);
    wide.random(18);
    same_on_devices(many, scatter_call(0), indices(DType::i64, {40, 2100}, 5, 19), wide);
  }
}

TEST_CASE("sorting is stable, NaN is the greatest, zeros are equal") {
  for (const DType dtype : kAll) {
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 7}, Shape{5, 64}, Shape{2, 1025}, Shape{2, 2100}, Shape{0, 4}, Shape{3, 0}}) {
      if (shape[1] > 1000 && (dtype == DType::f16 || dtype == DType::i8 || dtype == DType::boolean)) continue;  // entries are of one type with bf16's and i32's
      Array x(dtype, shape);
      x.random(20, -40, 40);
      for (std::int64_t i = 0; i < x.count(); ++i) {
        if (i % 3 == 0) x.set(i, std::floor(x[i]));
        if (!is_float(dtype)) continue;
        if (i % 7 == 2) x.set(i, 0.0);
        if (i % 11 == 4) x.set(i, -0.0);
        if (i % 13 == 5) x.set(i, std::numeric_limits<double>::quiet_NaN());
        if (i % 17 == 6) x.set(i, i % 2 == 0 ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity());
      }
      for (const bool descending : {false, true}) {
        // The positions tell everything about the values: these are compared through them.
        same_on_devices(Array(DType::i64, shape), [&](const Kernels& k, Context& c, Strided positions, Strided v, Strided values) { k.sort(c, values, positions, v, descending); }, x,
                        Array(dtype, shape));
        same_on_devices(Array(dtype, shape), [&](const Kernels& k, Context& c, Strided values, Strided v, Strided positions) { k.sort(c, values, positions, v, descending); }, x,
                        Array(DType::i64, shape));
      }
      for (const std::int64_t take : {1, 5, 600, 2000}) {
        if (take > shape[1]) continue;
        const Shape best{shape[0], take};
        same_on_devices(Array(DType::i64, best), [&](const Kernels& k, Context& c, Strided positions, Strided v, Strided values) { k.topk(c, values, positions, v); }, x, Array(dtype, best));
        same_on_devices(Array(dtype, best), [&](const Kernels& k, Context& c, Strided values, Strided v, Strided positions) { k.topk(c, values, positions, v); }, x, Array(DType::i64, best));
      }
    }
  }
}

TEST_CASE("values of the whole range of each type are sorted") {
  for (const DType dtype : {DType::i64, DType::i32, DType::i8, DType::u8, DType::f64}) {
    Array x(dtype, {1, 200});
    const double low = dtype == DType::u8 ? 0 : dtype == DType::i8 ? -128 : dtype == DType::i32 ? -0x1p31 : -0x1p62, high = dtype == DType::u8 ? 256 : -low;
    x.random(21, low, high);
    same_on_devices(Array(DType::i64, {1, 200}), [&](const Kernels& k, Context& c, Strided positions, Strided v, Strided values) { k.sort(c, values, positions, v, false); }, x,
                    Array(dtype, {1, 200}));
  }
}
