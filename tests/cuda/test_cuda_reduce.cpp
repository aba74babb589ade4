// Reductions, positions of extrema and cumulative sums on the device against the CPU's.
#include <array>
#include <limits>
#include <random>

#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

const Reduction kReductions[] = {Reduction::sum, Reduction::product, Reduction::maximum, Reduction::minimum};

// The type that elements are reduced in.
DType sum_type(DType dtype) { return !is_float(dtype) ? DType::i64 : dtype == DType::f64 ? DType::f64 : DType::f32; }

// x's shape with the dimensions of the bits of `mask` of size 1.
Shape reduced(Shape shape, unsigned mask) {
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (((mask >> i) & 1U) != 0) shape[i] = 1;
  return shape;
}

// Numbers whose sums, or factors whose products, float32 holds exactly in any order: what both devices find is the same but for one rounding of the same number.
Array& make_exact(Array& x, Reduction reduction, unsigned seed) {
  std::mt19937 random(seed);
  if (reduction != Reduction::product) return x.generate([&](std::int64_t) { return static_cast<double>(random() % 201) - 100; });
  return x.generate([&](std::int64_t) { return std::array{2.0, -0.5, 1.0}[std::min(random() % 200, 2UL)]; });
}

// Other numbers: both sides sum in trees of at most log2(n) + 64 additions one after another, each of which rounds n times the largest number at most; n factors are n roundings. Then one
// rounding to the element type.
enum class Numbers : std::uint8_t { exact, any };
void check_reduction(Reduction reduction, DType to, const Array& x, unsigned mask, Numbers numbers, Lay lay = Lay::dense) {
  const Array out(to, reduced(x.shape(), mask), lay);
  const bool exact = numbers == Numbers::exact || reduction == Reduction::maximum || reduction == Reduction::minimum || !is_float(x.view().dtype);
  const double eps = epsilon(x.view().dtype == DType::f64 ? DType::f64 : DType::f32), n = static_cast<double>(x.count()) / static_cast<double>(std::max<std::int64_t>(1, out.count()));
  double largest = 0;
  for (std::int64_t i = 0; i < x.count(); ++i)
    if (std::isfinite(x[i])) largest = std::max(largest, std::abs(x[i]));
  const double relative = exact ? 0 : epsilon(to) + (reduction == Reduction::product ? n * eps : 0), absolute = exact || reduction != Reduction::sum ? 0 : (std::log2(n + 1) + 64) * eps * n * largest;
  compare_devices(out, relative, absolute, [&](const Kernels& k, Context& c, Strided result, Strided values) { k.reduce(c, reduction, result, values); }, x);
}

}  // namespace

TEST_CASE("reductions over every set of dimensions and layout") {
  for (const Reduction reduction : kReductions) {
    CAPTURE(static_cast<int>(reduction));
    for (const DType dtype : kAll) {
      const bool product = reduction == Reduction::product;
      for (const Lay lay : kLays) {
        Array x(dtype, {3, 5, 4}, lay);
        x.random(1, product ? 0.8 : -2, product ? 1.3 : 2);
        for (unsigned mask = 0; mask < 8; ++mask) check_reduction(reduction, dtype, x, mask, Numbers::any, lay == Lay::dense ? Lay::sliced : Lay::dense);
      }
      for (const Shape& shape : {Shape{0}, Shape{0, 3}, Shape{3, 0}, Shape{}})
        for (unsigned mask = 0; mask < 4; ++mask) check_reduction(reduction, dtype, Array(dtype, shape).random(2), mask, Numbers::any);
    }
  }
}

TEST_CASE("reductions of lines in pieces, of packs and of columns") {
  struct Lines {
    Shape shape;
    std::vector<unsigned> masks;
  };
  // Whole packs and not; one warp, one block, two pieces a line; columns in packs and not, in several pieces; more lines than are cut.
  const Lines cases[] = {{{1, 8}, {1, 2, 3}}, {{3, 30}, {1, 2, 3}}, {{2, 1000}, {1, 2, 3}}, {{2, 1024}, {2}},     {{1, 17000}, {2}},       {{1, 16385}, {3}},
                         {{300, 17}, {1, 3}}, {{300, 16}, {1}},     {{600, 40}, {1, 2}},    {{2, 270, 36}, {1, 2, 3, 5}}, {{1030, 3}, {1, 2}}, {{70, 64}, {1, 2, 3}}};
  for (const DType dtype : kFloats) {
    for (const Lines& lines : cases) {
      Array x(dtype, lines.shape);
      for (const Reduction reduction : kReductions) {
        if (reduction != Reduction::sum && dtype != DType::f32) continue;  // the shape of a launch depends on the type for sums alone
        make_exact(x, reduction, 3);
        for (const unsigned mask : lines.masks) check_reduction(reduction, dtype, x, mask, Numbers::exact);
      }
    }
  }
  for (const DType dtype : {DType::i64, DType::i8, DType::boolean}) {
    Array x(dtype, {300, 40});
    x.random(4, -100, 100);
    for (const Reduction reduction : kReductions)
      for (unsigned mask = 1; mask < 4; ++mask) check_reduction(reduction, DType::i64, x, mask, Numbers::exact);
  }
  Array flags(DType::boolean, {70});
  flags.random(5, 0, 2);
  check_reduction(Reduction::sum, DType::f32, flags, 1, Numbers::exact);
}

TEST_CASE("long lines that are not cut, since there are many") {
  Array line(DType::f32, {1, 16400});
  compare_devices(Array(DType::f32, {1024, 1}), 0, 0, [](const Kernels& k, Context& c, Strided out, Strided x) {
    k.reduce(c, Reduction::sum, out, expand(x, {1024, 16400}));
  }, make_exact(line, Reduction::sum, 10));
}

TEST_CASE("NaN and infinities in reductions") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t at : {std::int64_t{0}, std::int64_t{77}, std::int64_t{1999}}) {
      Array x(dtype, {2000});
      x.random(6);
      x.set(at, std::numeric_limits<double>::quiet_NaN());
      for (const Reduction reduction : kReductions) check_reduction(reduction, dtype, x, 1, Numbers::any);
      x.set(at, std::numeric_limits<double>::infinity());
      for (const Reduction reduction : {Reduction::sum, Reduction::maximum, Reduction::minimum}) check_reduction(reduction, dtype, x, 1, Numbers::any);
    }
  }
}

TEST_CASE("long sums are added in float as well as on the CPU") {
  // 1 and then small numbers that one running sum would drop; at most the 64 of one thread may be lost beside the 1.
  Array x(DType::f32, {100000});
  x.generate([](std::int64_t i) { return i == 0 ? 1.0 : 1e-8; });
  const DeviceArray values(x), sum(Array(DType::f32, {1}));
  cuda::table().reduce(gpu(), Reduction::sum, sum, values);
  CHECK(sum.fetch()[0] == doctest::Approx(1.00099999).epsilon(2e-6));
}

TEST_CASE("positions of extrema: the first of equals, the first NaN") {
  for (const DType dtype : kAll) {
    for (const Shape& shape : {Shape{1}, Shape{7}, Shape{300}, Shape{1100}, Shape{3, 5, 4}, Shape{9, 40}, Shape{9, 260}}) {
      if (shape.back() > 100 && dtype != sum_type(dtype)) continue;  // the kernel knows three types
      for (const Lay lay : kLays) {
        Array x(dtype, shape, lay);
        x.random(7, -3, 3);
        for (std::int64_t i = 0; i < x.count(); ++i) x.set(i, std::floor(x[i]));  // many equals, zeros of both signs
        for (int nan = 0; nan < (is_float(dtype) ? 2 : 1); ++nan) {
          if (nan == 1)
            for (std::int64_t i = 5; i < x.count(); i += 37) x.set(i, std::numeric_limits<double>::quiet_NaN());
          for (int dim = 0; dim < static_cast<int>(shape.size()); ++dim)
            for (const Reduction reduction : {Reduction::maximum, Reduction::minimum})
              same_on_devices(Array(DType::i64, reduced(shape, 1U << dim)), [&](const Kernels& k, Context& c, Strided out, Strided v) { k.arg_reduce(c, reduction, out, v, dim); }, x);
        }
      }
    }
  }
}

TEST_CASE("cumulative sums") {
  for (const DType dtype : kAll) {
    for (const Shape& shape : {Shape{1}, Shape{7}, Shape{300}, Shape{2100}, Shape{3, 5, 4}, Shape{3, 0}, Shape{0, 3}, Shape{9, 260}}) {
      if (shape.back() > 100 && dtype != sum_type(dtype) && dtype != DType::bf16) continue;  // the kernel knows two types
      for (const Lay lay : {Lay::dense, Lay::transposed, Lay::sliced}) {
        Array x(dtype, shape, lay);
        x.random(8, -2, 3);
        // Both add up in double, in another order, and round once.
        const double relative = is_float(dtype) ? (dtype == DType::f64 ? 64 * epsilon(dtype) : epsilon(dtype)) : 0, absolute = is_float(dtype) ? 4096 * epsilon(DType::f64) : 0;
        for (int dim = 0; dim < static_cast<int>(shape.size()); ++dim)
          for (const bool reverse : {false, true})
            compare_devices(Array(dtype, shape, lay == Lay::sliced ? Lay::dense : lay), relative, absolute,
                            [&](const Kernels& k, Context& c, Strided out, Strided v) { k.cumsum(c, out, v, dim, reverse); }, x);
      }
    }
  }
}

TEST_CASE("entries that are not finite are counted") {
  for (const DType dtype : kAll) {
    for (const Lay lay : kLays) {
      Array x(dtype, {7, 300}, lay);
      x.random(9);
      if (is_float(dtype)) {
        x.set(5, std::numeric_limits<double>::quiet_NaN());
        x.set(1900, std::numeric_limits<double>::infinity());
        x.set(2099, -std::numeric_limits<double>::infinity());
      }
      same_on_devices(Array(DType::i64, {1}), [](const Kernels& k, Context& c, Strided out, Strided v) { k.count_not_finite(c, out, v); }, x);
    }
    same_on_devices(Array(DType::i64, {1}), [](const Kernels& k, Context& c, Strided out, Strided v) { k.count_not_finite(c, out, v); }, Array(dtype, {0}));
  }
}
