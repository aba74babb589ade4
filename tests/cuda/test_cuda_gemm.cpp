// Matrix products on the device against the CPU: layouts, types mixed and equal, skinny and not, ends of products, batches, TF32, errors.
#include <doctest/doctest.h>

#include "kernels/cuda/gemm.h"
#include "tests/cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::test;
using kernels::GemmOptions;
using kernels::MatrixActivation;
using kernels::Strided;

namespace {

struct Case {
  std::int64_t batch, M, N, K;
};
// Few columns, few rows, short sums, sums that are cut into pieces, tiles that are not full, nothing at all.
const Case kCases[] = {{1, 1, 1, 1}, {1, 5, 7, 3}, {1, 40, 70, 50}, {1, 33, 35, 64}, {1, 70, 9, 600}, {1, 3, 130, 1100}, {3, 34, 40, 33}, {2, 65, 300, 8}, {1, 300, 33, 17},
                       {1, 4, 32, 40}, {1, 4, 5, 0}, {1, 0, 5, 4}, {0, 3, 4, 5}};

Array matrix(DType dtype, const Case& c, std::int64_t rows, std::int64_t columns, Lay lay, unsigned seed) {
  Array result = c.batch == 1 ? Array(dtype, {rows, columns}, lay) : Array(dtype, {c.batch, rows, columns}, lay);
  return result.random(seed);
}

/// Sums of K products of numbers up to 2, each rounded at most once a term on both sides (Higham 2002, Accuracy and Stability of Numerical Algorithms, 3.1), and two roundings of the result
/// (16-bit C: of the sum to float32, of that to C). An activation has a slope below 1.13.
double absolute_bound(DType dtype, const Case& c) { return 1.2 * 2.0 * static_cast<double>(c.K + 4) * 4.0 * (dtype == DType::f64 ? 0x1p-53 : 0x1p-24); }

void compare_product(DType c_type, DType a_type, DType b_type, const Case& s, Lay lay_c, Lay lay_a, Lay lay_b, GemmOptions options, bool with_bias) {
  INFO(name_of(c_type), " = ", name_of(a_type), " x ", name_of(b_type), " of ", s.batch, " x ", s.M, " x ", s.N, " x ", s.K);
  const Array out = matrix(c_type, s, s.M, s.N, lay_c, 3), a = matrix(a_type, s, s.M, s.K, lay_a, 1), b = matrix(b_type, s, s.K, s.N, lay_b, 2);
  Array bias(c_type, {s.N}, lay_c == Lay::sliced ? Lay::sliced : Lay::dense);
  bias.random(4);
  const auto call = [&](const kernels::Kernels& kernels, kernels::Context& context, Strided c, Strided x, Strided y, Strided z) {
    GemmOptions own = options;
    if (with_bias) own.bias = z;
    kernels.gemm(context, c, x, y, own);
  };
  const double eps = c_type == DType::f64 ? 0x1p-52 : c_type == DType::f32 ? 0x1p-23 : c_type == DType::bf16 ? 0x1p-8 : 0x1p-11;
  compare_devices(out, 2 * eps, absolute_bound(c_type, s) * std::max(1.0, options.alpha) + (c_type == DType::f16 ? 0x1p-24 : 0.0), call, a, b, bias);
}

}  // namespace

TEST_CASE("products of one type") {
  for (const DType dtype : kFloats)
    for (const Case& s : kCases) compare_product(dtype, dtype, dtype, s, Lay::dense, Lay::dense, Lay::dense, {}, false);
}

TEST_CASE("layouts") {
  const Case cases[] = {{1, 40, 70, 50}, {2, 34, 40, 33}, {1, 6, 40, 9}, {1, 70, 9, 60}};
  for (const Case& s : cases)
    for (const Lay a : kLays)
      for (const Lay b : kLays)
        for (const Lay c : {Lay::dense, Lay::transposed, Lay::sliced}) {
          if (s.batch > 1 && (a == Lay::transposed || b == Lay::transposed || c == Lay::transposed)) continue;  // the batch would be innermost: another case below
          compare_product(DType::f32, DType::f32, DType::f32, s, c, a, b, {}, false);
        }
  compare_product(DType::f32, DType::f32, DType::f32, {3, 34, 40, 33}, Lay::transposed, Lay::transposed, Lay::transposed, {}, false);
}

TEST_CASE("mixed types, with all that may come behind the product") {
  GemmOptions options;
  options.alpha = 0.75;
  options.beta = -0.5;
  for (const DType c : {DType::f32, DType::bf16, DType::f16})
    for (const DType a : {DType::f32, DType::bf16, DType::f16})
      for (const DType b : {DType::f32, DType::bf16, DType::f16})
        for (const Case& s : {Case{1, 36, 40, 50}, Case{1, 70, 9, 300}, Case{1, 9, 70, 300}, Case{1, 40, 50, 8}}) compare_product(c, a, b, s, Lay::dense, Lay::dense, Lay::dense, options, true);
}

TEST_CASE("activations") {
  for (const MatrixActivation f : {MatrixActivation::none, MatrixActivation::relu, MatrixActivation::gelu_tanh, MatrixActivation::gelu_erf, MatrixActivation::silu})
    for (const DType dtype : kFloats)
      for (const Case& s : {Case{1, 36, 40, 50}, Case{2, 40, 50, 8}, Case{1, 5, 6, 0}}) {
        GemmOptions options;
        options.activation = f;
        options.alpha = 0.5;
        compare_product(dtype, dtype, dtype, s, Lay::dense, Lay::dense, Lay::dense, options, true);
        compare_product(dtype, dtype, dtype, s, Lay::transposed, Lay::dense, Lay::transposed, options, s.batch == 1);
      }
}

TEST_CASE("a batch that shares a factor") {
  const auto call = [](const kernels::Kernels& kernels, kernels::Context& context, Strided c, Strided a, Strided b) {
    for (Strided* s : {&a, &b})
      if (s->rank == 2) *s = Strided{s->data, s->dtype, 3, {c.shape[0], s->shape[0], s->shape[1]}, {0, s->strides[0], s->strides[1]}};
    kernels.gemm(context, c, a, b, {});
  };
  const Case s{4, 35, 40, 36};
  for (const DType b_type : {DType::f32, DType::bf16}) {
    Array c(DType::f32, {s.batch, s.M, s.N}), a(DType::f32, {s.batch, s.M, s.K}), one_a(DType::f32, {s.M, s.K}), b(b_type, {s.batch, s.K, s.N}), one_b(b_type, {s.K, s.N});
    a.random(1), one_a.random(2), b.random(3), one_b.random(4);
    compare_devices(c, 2 * 0x1p-23, absolute_bound(DType::f32, s), call, a, one_b);
    compare_devices(c, 2 * 0x1p-23, absolute_bound(DType::f32, s), call, one_a, b);
  }
}

TEST_CASE("beta 0 reads nothing, and NaN passes through relu") {
  const auto call = [](const kernels::Kernels& kernels, kernels::Context& context, Strided c, Strided a, Strided b) {
    GemmOptions options;
    options.activation = MatrixActivation::relu;
    kernels.gemm(context, c, a, b, options);
  };
  for (const std::int64_t K : {8, 40}) {
    Array c(DType::f32, {34, 36}), a(DType::f32, {34, K}), b(DType::f32, {K, 36});
    c.generate([](std::int64_t) { return std::nan(""); });
    a.random(1), b.random(2);
    a.set(0, std::nan(""));
    const DeviceArray x(a), y(b), z(c);
    call(kernels::cuda::table(), gpu(), z, x, y);
    const Array found = z.fetch();
    for (std::int64_t i = 0; i < found.count(); ++i) REQUIRE(std::isnan(found[i]) == (i < 36));
  }
}

TEST_CASE("TF32 only when it is asked for") {
  const std::int64_t size = 64;
  Array c(DType::f32, {size, size}), a(DType::f32, {size, size}), b(DType::f32, {size, size});
  a.random(1), b.random(2);
  const auto worst = [&] {
    Array expected(c);
    table().gemm(cpu(), expected, a, Strided(b), {});
    const DeviceArray x(a), y(b), z(c);
    kernels::cuda::table().gemm(gpu(), z, x, Strided(y), {});
    const Array found = z.fetch();
    double largest = 0;
    for (std::int64_t i = 0; i < found.count(); ++i) largest = std::max(largest, std::fabs(found[i] - expected[i]));
    return largest;
  };
  CHECK(!kernels::cuda::tf32());
  CHECK(worst() < 1e-4);
  kernels::cuda::set_tf32(true);
  const double rounded = worst();
  kernels::cuda::set_tf32(false);
  CHECK(rounded > 1e-4);
  CHECK(rounded < static_cast<double>(size) * 4 * 2 * 0x1p-11);  // both factors rounded to 11 bits
}

TEST_CASE("a weight packed for the CPU is refused") {
  Array c(DType::f32, {4, 4}), a(DType::f32, {4, 4});
  const DeviceArray x(a), z(c);
  kernels::Weight weight{Strided(x)};
  weight.format = kernels::Weight::Format::packed;
  weight.packed = x.operator Strided().data;
  CHECK_THROWS_WITH_AS(kernels::cuda::table().gemm(gpu(), z, x, weight, {}), "gemm: a weight packed for the CPU cannot be used on cuda:0: move its module there with to(device)", DeviceError);
}
