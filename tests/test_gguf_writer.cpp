// The GGUF writer: against a file of the reference package, conversions, round trips, what it refuses.
#include <doctest/doctest.h>

#include "tensor/gguf_writer.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"

using namespace cambium;

namespace {

GgufMetadata all_kinds() {
  GgufMetadata metadata;
  metadata.set("general.architecture", "llama");
  metadata.set("u8", std::uint8_t{200}).set("i8", std::int8_t{-100}).set("u16", std::uint16_t{60000}).set("i16", std::int16_t{-30000});
  metadata.set("u32", std::uint32_t{4'000'000'000}).set("i32", std::int32_t{-2'000'000'000}).set("u64", (std::uint64_t{1} << 63) + 5);
  metadata.set("i64", -(std::int64_t{1} << 62)).set("f32", 0.15625F).set("f64", 1.0 / 3).set("bool", true).set("string", "Grüße");
  metadata.set("strings", std::vector<std::string>{"", "a", "ä"}).set("ints", std::vector<std::int32_t>{1, -2, 3});
  metadata.set("floats", std::vector<float>{0.5F, -0.25F});
  return metadata;
}

/// Values whose blocks hold ties, zeros and both signs.
Tensor values() {
  std::vector<float> v(128);
  for (std::size_t i = 0; i < 128; ++i) v[i] = i < 96 ? (static_cast<float>(i * 37 % 101) - 50.0F) / 8.0F : 0.0F;
  v[5] = 6.35F;
  return from_vector(v, {2, 64});
}

}  // namespace

TEST_CASE("the same bytes as the reference package") {
  const test::TemporaryFolder folder;
  const Tensor x = values();
  save_gguf(folder.file("x.gguf"), all_kinds(), {{"f32", x}, {"f16", x, GgmlType::f16}, {"bf16", x, GgmlType::bf16}, {"q8", x, GgmlType::q8_0},
                                                 {"odd", from_vector(std::vector<float>{1, 2, 3}, {3})}});
  CHECK(test::read_all(folder.file("x.gguf")) == test::read_all(test::source_file("tests/data/gguf_reference.gguf")));
  CHECK(folder.entries() == 1);
}

TEST_CASE("what was written reads back") {
  const test::TemporaryFolder folder;
  const Tensor x = values();
  const Tensor transposed(x.storage(), x.layout().transpose(0, 1), x.dtype());
  GgufMetadata metadata = all_kinds().set("u8", std::uint8_t{7}).set("general.alignment", std::uint32_t{64});
  save_gguf(folder.file("x.gguf"), metadata, {{"t", transposed}, {"h", transposed, GgmlType::f16}, {"q", x, GgmlType::q8_0}});
  const GgufFile file(folder.file("x.gguf"));
  CHECK(file.alignment() == 64);
  CHECK(file.keys().size() == 17);
  CHECK(file.value("u8").integer() == 7);
  CHECK(file.value("strings").strings() == std::vector<std::string_view>{"", "a", "ä"});
  CHECK(file.tensor("t").shape() == Shape{64, 2});
  CHECK(file.tensor("t").to_vector<float>() == transposed.to_vector<float>());
  CHECK(file.tensor("h").dtype() == DType::f16);
  const std::vector<float> back = file.tensor("q").to_vector<float>(), original = x.to_vector<float>();
  for (std::size_t i = 0; i < back.size(); ++i) CHECK(std::abs(back[i] - original[i]) <= 6.35F / 127 * 0.51F);

  GgufMetadata copied;
  for (const std::string_view key : file.keys()) copied.copy(file, std::string(key));
  save_gguf(folder.file("y.gguf"), copied, {{"t", file.tensor("t")}, {"h", file.tensor("h"), GgmlType::f16}, {"q", file.tensor("q"), GgmlType::q8_0}});
  CHECK(test::read_all(folder.file("y.gguf")) == test::read_all(folder.file("x.gguf")));
  CHECK_THROWS_AS(copied.copy(file, "none"), FileError);
  save_gguf(folder.file("z.gguf"), {}, {});
  CHECK(GgufFile(folder.file("z.gguf")).tensors().empty());
}

TEST_CASE("what the writer refuses leaves the old file") {
  const test::TemporaryFolder folder;
  const std::string path = folder.write("x.gguf", "old");
  const Tensor x = values();
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", x}, {"a", x}}), NameError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"", x}}), NameError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", Tensor()}}), StateError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", scalar(1)}}), ShapeError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", zeros({0, 2})}}), ShapeError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", zeros({1, 1, 1, 1, 1})}}), ShapeError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", zeros({2, 48}), GgmlType::q8_0}}), ShapeError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", x, GgmlType::q4_0}}), DTypeError);
  CHECK_THROWS_AS(save_gguf(path, {}, {{"a", zeros({2}, DType::i32)}}), DTypeError);
  CHECK_THROWS_AS(save_gguf(path, GgufMetadata().set("general.alignment", std::uint32_t{24}), {}), FileError);
  CHECK_THROWS_AS(save_gguf(path, GgufMetadata().set("general.alignment", std::uint64_t{32}), {}), FileError);
  CHECK_THROWS_AS(GgufMetadata().set("", true), NameError);
  {
    GgufWriter writer(path, {}, {{"a", GgmlType::f32, {2, 64}}, {"b", GgmlType::f32, {2, 64}}});
    writer.write("b", x);
    CHECK_THROWS_AS(writer.write("b", x), StateError);
    CHECK_THROWS_AS(writer.write("c", x), NameError);
    CHECK_THROWS_AS(writer.write("a", zeros({2})), ShapeError);
    CHECK_THROWS_WITH_AS(writer.finish(), doctest::Contains("\"a\" was declared and not written"), StateError);
  }
  CHECK(test::read_all(path) == "old");
  CHECK(folder.entries() == 1);
}
