// Strided views: contiguity, offsets, and merging of dimensions.
#include <doctest/doctest.h>

#include <vector>

#include "kernel_arrays.h"
#include "kernels/cpu/rows.h"

using namespace cambium;
using namespace cambium::kernels;
using test::Array;
using test::Lay;

namespace {

std::vector<std::int64_t> shape_of(const Strided& s) { return {s.shape, s.shape + s.rank}; }
std::vector<std::int64_t> strides_of(const Strided& s) { return {s.strides, s.strides + s.rank}; }
using V = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("contiguous ignores the strides of dimensions of size 1") {
  Strided s = Array(DType::f32, {2, 1, 3});
  CHECK(s.contiguous());
  s.strides[1] = 77;
  CHECK(s.contiguous());
  s.strides[0] = 4;
  CHECK_FALSE(s.contiguous());
  CHECK(s.count() == 6);
  CHECK(s.size(-1) == 3);
  CHECK(s.stride(-3) == 4);
  CHECK(Strided{}.count() == 1);
  CHECK_FALSE(static_cast<bool>(Strided{}));
}

TEST_CASE("collapse merges a dense array to one dimension") {
  Strided a = Array(DType::f32, {2, 3, 1, 4}), b = Array(DType::i64, {2, 3, 1, 4});
  Strided* list[] = {&a, &b};
  collapse(list, 2);
  CHECK(shape_of(a) == V{24});
  CHECK(strides_of(a) == V{1});
  CHECK(shape_of(b) == V{24});
}

TEST_CASE("collapse keeps what one operand does not merge") {
  const Array row(DType::f32, {4}), matrix(DType::f32, {2, 3, 4});
  Strided a = matrix, b = test::expand(row.view(), {2, 3, 4});
  Strided* list[] = {&a, &b};
  collapse(list, 2);
  CHECK(shape_of(a) == V{6, 4});
  CHECK(strides_of(a) == V{4, 1});
  CHECK(strides_of(b) == V{0, 1});

  Strided sliced = Array(DType::f32, {3, 4, 5}, Lay::sliced);
  Strided* one[] = {&sliced};
  collapse(one, 1);
  CHECK(shape_of(sliced) == V{3, 4, 5});  // gaps after every dimension
}

TEST_CASE("collapse of scalars and of size 1 leaves one dimension") {
  for (const test::Shape& shape : {test::Shape{}, test::Shape{1}, test::Shape{1, 1, 1}}) {
    Strided a = Array(DType::f32, shape);
    Strided* list[] = {&a};
    collapse(list, 1);
    CHECK(shape_of(a) == V{1});
  }
}

TEST_CASE("offset_of visits elements in row-major order") {
  const Array a(DType::f32, {3, 2}, Lay::transposed);
  V offsets;
  for (std::int64_t i = 0; i < 6; ++i) offsets.push_back(offset_of(a.view(), i));
  CHECK(offsets == V{0, 3, 1, 4, 2, 5});
}

TEST_CASE("ordering dimensions makes a transposed output one run") {
  Strided out = Array(DType::f32, {3, 4, 5}, Lay::transposed), x = Array(DType::f32, {3, 4, 5}, Lay::transposed);
  Strided* list[] = {&out, &x};
  order_dimensions(list, 2);
  collapse(list, 2);
  CHECK(shape_of(out) == V{60});
  CHECK(strides_of(x) == V{1});
}

TEST_CASE("for_each_row covers every element once, whatever the cut") {
  for (const test::Shape& shape : {test::Shape{}, test::Shape{0, 3}, test::Shape{7}, test::Shape{3, 5, 2}, test::Shape{2, 1000}, test::Shape{600, 3}}) {
    for (const Lay lay : test::kLays) {
      for (const std::int64_t grain : {1, 64, 100000}) {
        Array hits(DType::i32, shape, lay);
        hits.generate([](std::int64_t) { return 0; });
        cpu::for_each_row<1>({hits.view()}, [](const auto& p, const auto& strides, std::int64_t count) {
          for (std::int64_t i = 0; i < count; ++i) reinterpret_cast<std::int32_t*>(p[0])[i * strides[0]] += 1;
        }, grain);
        for (std::int64_t i = 0; i < hits.count(); ++i) REQUIRE(hits[i] == 1);
        CHECK(hits.gaps_untouched());
      }
    }
  }
}
