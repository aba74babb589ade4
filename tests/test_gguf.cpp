// GGUF: every accept rule broken, metadata of every type, every block format against the reference package, random damage.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <random>

#include "autograd/ops.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/parallel.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"
#include "tests/allocation_counter.h"
#include "tests/data_paths.h"
#include "tests/gguf_bytes.h"

using namespace cambium;
using test::GgufBytes;
using test::gguf_string;
using test::little;

namespace {

GgufFile open_bytes(const std::string& bytes) {
  auto keeper = std::make_shared<std::string>(bytes);
  return GgufFile(keeper, {reinterpret_cast<const std::byte*>(keeper->data()), keeper->size()}, "x.gguf");
}

/// The message of the error, or "" when the file is accepted; also checks the form of it and the memory.
std::string error_of(const std::string& bytes) {
  const test::AllocationPeak peak;
  std::string message;
  try {
    GgufFile(nullptr, {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "x.gguf");
  } catch (const FileError& error) {
    message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.find("x.gguf: ") == 0);
    CHECK(message.size() < 500);
  }
  CHECK(peak.bytes() <= 4 * bytes.size() + (std::size_t{1} << 20));
  return message;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

GgufBytes with_data(std::size_t bytes) {
  GgufBytes file;
  file.data = std::string(bytes, '\0');
  return file;
}

}  // namespace

TEST_CASE("metadata of every type") {
  const auto path = test::goldens("gguf/blocks.gguf");
  if (!path) return;
  const GgufFile file(*path);
  CHECK(file.version() == 3);
  CHECK(file.value("general.architecture").string() == "llama");
  CHECK(file.value("test.u8").integer() == 200);
  CHECK(file.value("test.i8").integer() == -100);
  CHECK(file.value("test.u16").integer() == 60000);
  CHECK(file.value("test.i16").integer() == -30000);
  CHECK(file.value("test.u32").natural() == 4'000'000'000);
  CHECK(file.value("test.i32").integer() == -2'000'000'000);
  CHECK(file.value("test.f32").number() == 0.15625);
  CHECK(file.value("test.bool").boolean());
  CHECK(file.value("test.string").string() == "Grüße, 世界");
  CHECK(file.value("test.u64").natural() == (std::uint64_t{1} << 63) + 5);
  CHECK(file.value("test.i64").integer() == -(std::int64_t{1} << 62));
  CHECK(file.value("test.f64").number() == 1.0 / 3);
  CHECK(file.value("test.ints").integers() == std::vector<std::int64_t>{1, -2, 3});
  CHECK(file.value("test.strings").strings() == std::vector<std::string_view>{"", "a", "ä"});
  CHECK(file.value("test.floats").floats() == std::vector<float>{0.5F, -0.25F});
  CHECK(file.value("test.ints").size() == 3);
  CHECK(file.value("test.strings").text() == "3 x string [\"\", \"a\", \"\\xc3\\xa4\"]");
  CHECK(file.value("test.ints").text() == "3 x i32 [1, -2, 3]");
  CHECK(file.value("test.i8").text() == "-100");
  CHECK(file.keys().front() == "general.architecture");
  CHECK(file.has("test.bool"));
  CHECK_FALSE(file.has("test"));
  CHECK_THROWS_WITH_AS(file.value("none"), doctest::Contains("expected metadata \"none\", found none"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.f32").integer(), doctest::Contains("\"test.f32\": expected an integer, found f32"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.string").number(), doctest::Contains("expected a number, found string"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.ints").boolean(), doctest::Contains("expected a bool, found array of i32"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.u8").string(), doctest::Contains("expected a string, found u8"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.u8").strings(), doctest::Contains("expected an array, found u8"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.ints").strings(), doctest::Contains("expected an array of strings"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.strings").integers(), doctest::Contains("expected an array of integers"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.strings").floats(), doctest::Contains("expected an array of numbers"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.u64").integer(), doctest::Contains("expected an integer below 2^63"), FileError);
  CHECK_THROWS_WITH_AS(file.value("test.i8").natural(), doctest::Contains("not negative, found -100"), FileError);
}

TEST_CASE("every block format gives the bits of the reference package, for any number of threads") {
  const auto path = test::goldens("gguf/blocks.gguf"), expected_path = test::goldens("gguf/blocks.safetensors");
  if (!path || !expected_path) return;
  const GgufFile file(*path);
  const SafetensorsFile expected(*expected_path);
  REQUIRE(file.tensors().size() == 13);
  for (const int threads : {1, 3}) {
    kernels::set_threads(threads);
    for (const GgufTensorInfo& info : file.tensors()) {
      CAPTURE(info.name);
      const Tensor x = file.tensor(info.name, DType::f32), y = expected.tensor(info.name);
      CHECK(x.shape() == Shape{3, 512});
      CHECK(info.gguf_shape() == Shape{512, 3});
      REQUIRE(x.shape() == y.shape());
      const float *a = x.data<float>(), *b = y.data<float>();
      std::int64_t differing = 0;
      for (std::int64_t i = 0; i < x.count(); ++i) differing += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]);
      CHECK(differing == 0);
      for (const DType dtype : {DType::bf16, DType::f16})
        if (is_float(file.tensor(info.name).dtype())) CHECK(file.tensor(info.name, dtype).to_vector<double>() == to_dtype(x, dtype).to_vector<double>());
    }
  }
  kernels::set_threads(0);
  CHECK(file.tensor("F16").dtype() == DType::f16);
  CHECK(file.tensor("BF16").dtype() == DType::bf16);
  CHECK(file.tensor("Q4_0").dtype() == DType::f32);
  CHECK(file.tensor("Q4_0", DType::bf16).dtype() == DType::bf16);
  CHECK(file.tensor("F32").storage()->kind() == Storage::Kind::mapped);
  CHECK_THROWS_AS(file.tensor("F32", DType::i32), DTypeError);
  CHECK_THROWS_AS(file.tensor("none"), NameError);
}

TEST_CASE("accepted: version 2, no tensors, gaps, other alignments, empty and nested arrays") {
  CHECK(error_of(GgufBytes().bytes()).empty());
  GgufBytes two;
  two.version = 2;
  CHECK(error_of(two.bytes()).empty());
  CHECK(error_of(with_data(200).tensor("b", {4}, 0, 128).tensor("a", {3, 2}, 0, 32).bytes()).empty());
  GgufBytes narrow = with_data(12);
  narrow.alignment = 8;
  narrow.entry("general.alignment", 4, little<std::uint32_t>(8)).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 8);
  CHECK(error_of(narrow.bytes()).empty());
  CHECK(error_of(GgufBytes().array("a", 8, 0, "").array("b", 9, 1, little<std::uint32_t>(7) + little<std::uint64_t>(1) + "\1").bytes()).empty());
}

TEST_CASE("each rule broken gives one line") {
  struct Case { std::string bytes; std::string_view words; };
  const auto u32 = [](std::uint32_t n) { return little(n); };
  const auto u64 = [](std::uint64_t n) { return little(n); };
  GgufBytes big, old, future, other;
  big.version = 0x03000000;
  old.version = 1;
  future.version = 4;
  other.magic = "GGML";
  const GgufBytes plain = with_data(64).tensor("a", {4}, 0, 0);
  const auto one = [&](const std::vector<std::uint64_t>& sizes, std::uint32_t type, std::uint64_t offset) { return with_data(64).tensor("a", sizes, type, offset).bytes(); };
  const auto aligned = [&](std::uint32_t type, const std::string& value) { return GgufBytes().entry("general.alignment", type, value).bytes(); };
  const auto vocabulary = [&] { return GgufBytes().strings("tokenizer.ggml.tokens", {"a", "b", "ab"}); };
  const std::string deep = u32(9) + u64(1) + u32(9) + u64(1) + u32(0) + u64(0);
  const Case cases[] = {
      // 1: magic and version
      {"", "byte 0: expected a GGUF file, which begins with \"GGUF\", found an empty file"},
      {"GGU", "found \"GGU\""},
      {other.bytes(), "found \"GGML\""},
      {"GGUF", "byte 4: expected a version, found the end of the file"},
      {big.bytes(), "byte 4: expected a little-endian GGUF file, found a big-endian one"},
      {old.bytes(), "expected GGUF version 2 or 3, found 1"},
      {future.bytes(), "version 2 or 3, found 4"},
      {plain.bytes().substr(0, 12), "byte 8: expected the number of tensors"},
      // 2: counts
      {plain.bytes(UINT64_MAX, 0), "byte 8: expected a number of tensors that fits in the"},
      {plain.bytes(1000, 0), "number of tensors that fits"},
      {plain.bytes(0, UINT64_MAX / 2), "byte 16: expected a number of metadata entries that fits"},
      {plain.bytes(0, 1000), "number of metadata entries that fits"},
      {plain.bytes(1, 1), "(tensor 0): expected a name, found an empty one"},
      // 3: strings, keys, bools
      {GgufBytes().entry("k", 8, u64(UINT64_MAX)).bytes(), "(metadata \"k\"): expected a string of at most the 0 bytes left, found a length of 18446744073709551615"},
      {GgufBytes().entry("k", 8, u64(5) + "abcd").bytes(), "expected a string of at most the 4 bytes left, found a length of 5"},
      {GgufBytes().entry("k", 8, gguf_string(std::string((16 << 20) + 1, 'x'))).bytes(), "expected a string of at most 16777216 bytes"},
      {GgufBytes().entry("", 0, "ab").bytes(), "byte 24 (metadata entry 0): expected a key, found an empty one"},
      {GgufBytes().entry(std::string(65537, 'k'), 0, "a").bytes(), "expected a key of at most 65536 bytes, found 65537"},
      {GgufBytes().entry("k", 0, "a").entry("k", 0, "a").bytes(), "byte 38: expected keys that differ, found \"k\" twice"},
      {GgufBytes().entry("k", 7, "\2").bytes(), "byte 37 (metadata \"k\"): expected 0 or 1 for a bool, found 2"},
      {GgufBytes().array("k", 7, 3, std::string("\1\0\3", 3)).bytes(), "byte 51 (metadata \"k\"): expected 0 or 1 for a bool, found 3"},
      {GgufBytes().entry("k", 13, "aaaa").bytes(), "expected the type of a value from 0 to 12, found 13"},
      {GgufBytes().entry("k", 10, "aaaa").bytes(), "expected a value, found the end of the file"},
      {GgufBytes().entry("k", 4, "aaa").bytes(), "expected a value, found the end"},
      // 4: arrays
      {GgufBytes().array("k", 4, std::uint64_t{1} << 62, "aaaa").bytes(), "expected an array that fits in the 4 bytes left, found 4611686018427387904 elements of type u32"},
      {GgufBytes().array("k", 0, 5, "aaaa").bytes(), "found 5 elements of type u8"},
      {GgufBytes().array("k", 8, 1, "aaaa").bytes(), "found 1 elements of type string"},
      {GgufBytes().array("k", 8, 2, gguf_string("12345678") + "aaaa").bytes(), "expected a string, found the end of the file"},
      {GgufBytes().array("k", 12, std::uint64_t{1} << 61, "aaaaaaaa").bytes(), "elements of type f64"},
      {GgufBytes().array("k", 13, 1, "aaaaaaaa").bytes(), "expected the type of an array's elements from 0 to 12"},
      {GgufBytes().entry("k", 9, deep).bytes(), "expected arrays nested at most 2 deep"},
      // 5: tensors
      {one({}, 0, 0), "expected 1 to 4 dimensions, found 0"},
      {one({1, 1, 1, 1, 1}, 0, 0), "(tensor \"a\"): expected 1 to 4 dimensions, found 5"},
      {one({0}, 0, 0), "expected a size from 1 to 2^63-1, found 0"},
      {one({std::uint64_t{1} << 63}, 0, 0), "expected a size from 1 to 2^63-1"},
      {one({std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 0, 0), "expected at most 2^62 elements"},
      {one({std::uint64_t{1} << 62, 4}, 0, 0), "expected at most 2^62 elements"},
      {one({std::uint64_t{1} << 62}, 28, 0), "expected a tensor of less than 2^64 bytes"},
      {one({std::uint64_t{1} << 62}, 0, 0), "expected a tensor of less than 2^64 bytes"},
      {one({48}, 2, 0), "expected rows of a multiple of 32 elements for Q4_0, found 48"},
      {one({16, 2}, 2, 0), "multiple of 32 elements"},
      {one({128}, 12, 0), "multiple of 256 elements for Q4_K"},
      {one({4}, 4, 0), "expected a known tensor type, found number 4"},
      {one({4}, 1000, 0), "expected a known tensor type, found number 1000"},
      {with_data(64).tensor("a", {4}, 0, 0).tensor("a", {4}, 0, 32).bytes(), "expected tensors that differ in name, found \"a\" twice"},
      {with_data(64).tensor("", {4}, 0, 0).bytes(), "expected a name, found an empty one"},
      {plain.bytes().substr(0, 50), "expected a number of tensors that fits"},
      // 6: alignment and ranges
      {aligned(10, u64(32)), "expected an alignment of type u32, found u64"},
      {aligned(4, u32(24)), "expected an alignment that is a power of two from 8 to 65536, found 24"},
      {aligned(4, u32(0)), "power of two"},
      {aligned(4, u32(4)), "power of two from 8"},
      {aligned(4, u32(131072)), "to 65536, found 131072"},
      {one({4}, 0, 8), "expected an offset that is a multiple of 32, found 8"},
      {one({17}, 0, 0), "(tensor \"a\"): expected 68 bytes at 0 of the data, found only 64 bytes of data: the file is cut"},
      {one({4}, 0, 64), "expected 16 bytes at 64 of the data"},
      {one({4}, 0, UINT64_MAX - 31), "the file is cut"},
      {with_data(0).tensor("a", {4}, 0, 0).bytes(), "found only 0 bytes of data"},
      {with_data(128).tensor("b", {4}, 0, 32).tensor("a", {9}, 0, 0).bytes(), "(tensor \"b\"): expected tensors that do not overlap, found one that begins within \"a\""},
      {with_data(128).tensor("b", {4}, 0, 32).tensor("a", {4}, 0, 32).bytes(), "do not overlap"},
      // 7: vocabulary
      {GgufBytes().array("tokenizer.ggml.tokens", 0, 1, "a").bytes(), "\"tokenizer.ggml.tokens\": expected an array of strings, found array of u8"},
      {GgufBytes().entry("tokenizer.ggml.tokens", 0, "a").bytes(), "expected an array of strings, found u8"},
      {vocabulary().array("tokenizer.ggml.scores", 6, 2, "aaaabbbb").bytes(), "\"tokenizer.ggml.scores\": expected as many values as tokens, which are 3, found 2"},
      {vocabulary().array("tokenizer.ggml.token_type", 5, 4, "aaaabbbbccccdddd").bytes(), "which are 3, found 4"},
      {vocabulary().entry("tokenizer.ggml.scores", 0, "a").bytes(), "expected an array, found u8"},
      {vocabulary().entry("tokenizer.ggml.eos_token_id", 4, u32(3)).bytes(), "\"tokenizer.ggml.eos_token_id\": expected an id below 3, the number of tokens, found 3"},
      {vocabulary().entry("tokenizer.ggml.bos_token_id", 5, little<std::int32_t>(-1)).bytes(), "not negative, found -1"},
      {vocabulary().entry("tokenizer.ggml.bos_token_id", 6, little(1.0F)).bytes(), "expected an integer, found f32"},
      {vocabulary().strings("tokenizer.ggml.merges", {"a b", "ab"}).bytes(), "\"tokenizer.ggml.merges\": entry 1: expected two pieces with a space between them, found \"ab\""},
      {vocabulary().strings("tokenizer.ggml.merges", {" b"}).bytes(), "entry 0: expected two pieces"},
      {vocabulary().strings("tokenizer.ggml.merges", {"b "}).bytes(), "entry 0: expected two pieces"},
      {vocabulary().strings("tokenizer.ggml.merges", {""}).bytes(), "entry 0: expected two pieces"},
      {vocabulary().entry("tokenizer.ggml.merges", 0, "a").bytes(), "expected an array of strings"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.bytes.substr(0, 100));
    CAPTURE(c.words);
    const std::string message = error_of(c.bytes);
    CAPTURE(message);
    CHECK(contains(message, c.words));
  }
}

TEST_CASE("formats without a dequantiser are read, checked, and refused on use") {
  const GgufFile file = open_bytes(with_data(96).tensor("a", {32}, 20, 0).tensor("b", {2}, 25, 32).tensor("c", {2}, 24, 64).bytes());
  CHECK(file.info("a").type == GgmlType::iq4_nl);
  CHECK_THROWS_WITH_AS(file.tensor("a"), doctest::Contains("elements of type IQ4_NL are not supported"), DTypeError);
  CHECK_THROWS_AS(file.tensor("b"), DTypeError);
  CHECK(file.tensor("c").dtype() == DType::i8);
}

TEST_CASE("memory stays below four times the size for files full of the smallest entries") {
  GgufBytes entries, tensors;
  tensors.alignment = 8;
  tensors.entry("general.alignment", 4, little<std::uint32_t>(8));
  std::vector<std::string> words;
  for (int i = 0; i < 60000; ++i) {
    entries.entry(std::to_string(i), 0, "a");
    tensors.tensor(std::to_string(i), {1}, 24, static_cast<std::uint64_t>(i) * 8);
    words.emplace_back(i % 10 == 0 ? "" : "x");
  }
  tensors.data = std::string(60000 * 8, '\0');
  CHECK(error_of(entries.bytes()).empty());
  CHECK(error_of(tensors.bytes()).empty());
  CHECK(error_of(GgufBytes().strings("tokenizer.ggml.tokens", words).bytes()).empty());
  CHECK_FALSE(error_of(entries.entry("7", 0, "a").bytes()).empty());
  tensors.data.resize(1000);
  CHECK_FALSE(error_of(tensors.bytes()).empty());
}

TEST_CASE("random damage to a valid file: loads with everything readable, or is an error") {
  GgufBytes file = with_data(512);
  file.entry("general.architecture", 8, gguf_string("llama")).entry("f", 12, little(1.5)).entry("general.alignment", 4, little<std::uint32_t>(32));
  file.strings("tokenizer.ggml.tokens", {"a", "b", "ab"}).strings("tokenizer.ggml.merges", {"a b"}).array("n", 5, 3, std::string(12, '\1'));
  file.entry("tokenizer.ggml.eos_token_id", 4, little<std::uint32_t>(2)).entry("flag", 7, "\1");
  file.array("nested", 9, 1, little<std::uint32_t>(7) + little<std::uint64_t>(1) + "\1");
  file.tensor("t.q4", {32, 2}, 2, 0).tensor("t.q6", {256}, 14, 64).tensor("t.f16", {8}, 1, 288).tensor("t.f32", {4, 2}, 0, 320);
  const std::string valid = file.bytes();
  REQUIRE(error_of(valid).empty());
  std::mt19937 random(13);
  int accepted = 0;
  for (int i = 0; i < 6000; ++i) {
    std::string bytes = valid;
    for (std::size_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % bytes.size();
      if (random() % 16 == 0) bytes.resize(at + 1);
      else bytes[at] = static_cast<char>(random() % 2 ? random() : random() % 16);
    }
    if (!error_of(bytes).empty()) continue;
    ++accepted;
    const GgufFile loaded = open_bytes(bytes);
    for (const std::string_view key : loaded.keys()) loaded.value(key).text();
    for (const GgufTensorInfo& info : loaded.tensors()) {
      try {
        loaded.tensor(info.name, DType::f32);
      } catch (const DTypeError&) {
      }
    }
  }
  CHECK(accepted > 100);
}

TEST_CASE("blocks of random bytes do not crash any dequantiser") {
  std::mt19937 random(17);
  for (const GgmlFormat& format : kGgmlFormats) {
    if (!format.dequantizes) continue;
    std::vector<std::byte> blocks(static_cast<std::size_t>(format.block_bytes * 64 + 1));
    for (std::byte& b : blocks) b = static_cast<std::byte>(random());
    std::vector<float> out(static_cast<std::size_t>(format.block_elements * 64));
    kernels::cpu::dequantize(format.type, blocks.data() + 1, format.block_elements * 64, out.data());
  }
  std::vector<float> out(32);
  CHECK_THROWS_AS(kernels::cpu::dequantize(GgmlType::iq4_nl, nullptr, 0, out.data()), DTypeError);
}
