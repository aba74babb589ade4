// Blocks of GGUF files become the CPU's numbers bit for bit, whose formulas test_gguf.cpp compares with the reference.
#include <random>

#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

/// Random bytes, but with scales that are finite: halves at `scales` lie within 2.
Array random_blocks(const GgmlFormat& format, std::int64_t blocks, const std::vector<std::int64_t>& scales) {
  std::mt19937 random(static_cast<unsigned>(format.type));
  Array result(DType::u8, {blocks * format.block_bytes});
  return result.generate([&](std::int64_t i) {
    const bool exponent = std::find(scales.begin(), scales.end(), i % format.block_bytes - 1) != scales.end();
    return static_cast<double>(random() & (exponent ? 0xBFU : 0xFFU));
  });
}

}  // namespace

TEST_CASE("blocks of every format become the same numbers on both devices") {
  const std::vector<std::pair<GgmlType, std::vector<std::int64_t>>> formats{
      {GgmlType::q4_0, {0}}, {GgmlType::q4_1, {0, 2}}, {GgmlType::q5_0, {0}},       {GgmlType::q5_1, {0, 2}}, {GgmlType::q8_0, {0}},
      {GgmlType::q2_k, {80, 82}}, {GgmlType::q3_k, {108}}, {GgmlType::q4_k, {0, 2}}, {GgmlType::q5_k, {0, 2}}, {GgmlType::q6_k, {208}}};
  std::size_t known = 0;
  for (const GgmlFormat& format : kGgmlFormats) known += format.dequantizes && !format.dtype;
  CHECK(known == formats.size());
  for (const auto& [type, scales] : formats) {
    const GgmlFormat& format = ggml_format(type);
    INFO(format.name);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const std::int64_t blocks : {0, 1, 300})
        same_on_devices(Array(dtype, {blocks * format.block_elements}), [type = type](const Kernels& k, Context& c, Strided out, Strided in) { k.dequantize(c, out, in, type); },
                        random_blocks(format, blocks, scales));
  }
}

TEST_CASE("a format that is not known is an error") {
  const DeviceArray out(Array(DType::f32, {32})), blocks(Array(DType::u8, {18}));
  CHECK_THROWS_WITH_AS(kernels::cuda::table().dequantize(gpu(), out, blocks, GgmlType::iq4_nl), "dequantize: blocks of type IQ4_NL are not supported", DTypeError);
}
