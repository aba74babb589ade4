// safetensors: every accept rule broken, views, the writer against a file of the reference library, folders of shards.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <random>

#include "tensor/safetensors.h"
#include "tests/allocation_counter.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"

using namespace cambium;

namespace {

std::string length_of(std::uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((n >> (8 * i)) & 0xffU);
  return bytes;
}
std::string make(const std::string& header, std::size_t data_bytes = 0) { return length_of(header.size()) + header + std::string(data_bytes, '\0'); }

SafetensorsFile open_bytes(const std::string& bytes, bool lenient_tail = false) {
  auto keeper = std::make_shared<std::string>(bytes);
  const std::span<const std::byte> span(reinterpret_cast<const std::byte*>(keeper->data()), keeper->size());
  return SafetensorsFile(keeper, span, "x.safetensors", lenient_tail);
}

/// The message of the error, or "" when the file is accepted; also checks the form of it and the memory.
std::string error_of(const std::string& bytes, bool lenient_tail = false) {
  const std::span<const std::byte> span(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  const test::AllocationPeak peak;
  std::string message;
  try {
    SafetensorsFile(nullptr, span, "x.safetensors", lenient_tail);
  } catch (const FileError& error) {
    message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.find("x.safetensors: byte ") == 0);
    CHECK(message.size() < 500);
  }
  CHECK(peak.bytes() <= 4 * bytes.size() + (std::size_t{1} << 20));
  return message;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

const std::string kOne = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

}  // namespace

TEST_CASE("a file with every type that is computed with") {
  const SafetensorsFile file(test::source_file("tests/data/safetensors_reference.safetensors"));
  CHECK(file.tensors().size() == 13);
  CHECK(file.tensors().front().name == "i64");
  CHECK(file.names().front() == "a.f32.scalar");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(file.tensor("i64").to_vector<std::int64_t>() == std::vector<std::int64_t>{1, -2, 3, 4});
  CHECK(file.tensor("i64").shape() == Shape{2, 2});
  CHECK(file.tensor("a.f32.scalar").item() == 1.5);
  CHECK(file.tensor("empty").shape() == Shape{0, 4});
  CHECK(file.tensor("i8").to_vector<double>() == std::vector<double>{-1, 2, 3});
  CHECK(file.tensor("bool").to_vector<double>() == std::vector<double>{1, 0, 1});
  CHECK(file.tensor("bf16").dtype() == DType::bf16);
  CHECK(file.tensor("f32").storage()->kind() == Storage::Kind::mapped);
  CHECK(file.contains("f16"));
  CHECK_FALSE(file.contains("f"));
  CHECK_THROWS_AS(file.tensor("f"), NameError);
  CHECK_THROWS_AS(file.tensor("f32").mutable_view(), StateError);
}

TEST_CASE("a tensor outlives its file object, and one at an odd address is copied") {
  const std::string header = R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string bytes = make(header, 9);
  const float values[2] = {3.5F, -2.0F};
  std::memcpy(bytes.data() + bytes.size() - 8, values, 8);
  Tensor f;
  {
    const test::TemporaryFolder folder;
    f = SafetensorsFile(folder.write("x.safetensors", bytes)).tensor("f");
  }
  CHECK(f.to_vector<float>() == std::vector<float>{3.5F, -2.0F});
  CHECK(reinterpret_cast<std::uintptr_t>(f.data<float>()) % 4 == 0);
  const Tensor u = open_bytes(bytes).tensor("u");
  CHECK(u.item() == 0);
}

TEST_CASE("types not computed with are read, checked, and refused on use") {
  const SafetensorsFile file(test::source_file("tests/data/safetensors_other_types.safetensors"));
  CHECK(file.info("e4").type_name() == "F8_E4M3");
  CHECK_FALSE(file.info("u64").dtype().has_value());
  for (const std::string name : {"i16", "u16", "u32", "u64", "e4", "e5", "e8", "c64"}) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(file.tensor(name), doctest::Contains("not supported"), DTypeError);
  }
  CHECK(file.tensor("f32").count() == 2);
  CHECK(error_of(make(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}})", 2)).empty());
  CHECK(contains(error_of(make(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2)), "1 and a part bytes for F4 [3]"));
  CHECK(contains(error_of(make(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,3]}})", 3)), "4 bytes for F8_E4M3"));
}

TEST_CASE("a bool that is neither 0 nor 1 is refused on use") {
  std::string bytes = make(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 2);
  CHECK(open_bytes(bytes).tensor("a").count() == 2);
  bytes.back() = 2;
  CHECK_THROWS_WITH_AS(open_bytes(bytes).tensor("a"), doctest::Contains("expected 0 or 1 for every BOOL, found 2"), FileError);
}

TEST_CASE("accepted: no tensors, spaces at the end, rank 0, sizes 0, rank 8") {
  CHECK(error_of(make("{}")).empty());
  CHECK(error_of(make("{}      ")).empty());
  CHECK(error_of(make(R"({"__metadata__":{}})")).empty());
  CHECK(error_of(make(R"({"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", 8)).empty());
  CHECK(error_of(make(R"({"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"a":{"shape":[3,0],"dtype":"F64","data_offsets":[8,8]},)"
                      R"("c":{"shape":[0],"dtype":"F64","data_offsets":[0,0]}})", 8)).empty());
  CHECK(error_of(make(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,2],"data_offsets":[0,2]}})", 2)).empty());
  CHECK(error_of(make(kOne, 8)).empty());
}

TEST_CASE("each rule broken gives one line with the byte") {
  struct Case { std::string bytes; std::string_view words; };
  const auto tensor = [](const std::string& type, const std::string& shape, const std::string& offsets, std::size_t data) {
    return make("{\"a\":{\"dtype\":" + type + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}", data);
  };
  const std::string deep(70, '[');
  const Case cases[] = {
      // 1: the prefix
      {"", "byte 0: expected a safetensors file of at least 8 bytes, found 0"},
      {"1234567", "at least 8 bytes, found 7"},
      {length_of(100'000'001) + kOne, "byte 0: expected a header of at most 100000000 bytes, found 100000001"},
      {length_of(UINT64_MAX) + kOne, "header of at most 100000000 bytes"},
      {length_of(UINT64_MAX - 7) + kOne, "header of at most 100000000 bytes"},
      {length_of(55) + kOne, "header of at most the 54 bytes that follow, found 55"},
      {"GGUF\x03" + std::string(30, '\0'), "found 14064895815: is this a safetensors file?"},
      // 2: the header as JSON
      {make(""), "byte 8: expected '{', found an empty header"},
      {make(" {}"), "byte 8: expected '{', found \" \""},
      {make("[]"), "byte 8: expected '{'"},
      {make("{}\n"), "byte 10: expected '}' and spaces at the end"},
      {make(std::string("{}\0", 3)), "expected '}' and spaces"},
      {make("{} x}"), "byte 11: expected the end of the text"},
      {make("{\"a\xff\":1}"), "byte 11: expected valid UTF-8"},
      {make("{\"a\":" + deep + "}"), "at most 64 levels"},
      {make(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})"), "\"a\" twice"},
      {make(R"({"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}})"), "byte 28 (a): expected keys that differ, found \"dtype\" twice"},
      {tensor("\"F32\"", "[NaN]", "[0,0]", 0), "no NaN"},
      {tensor("\"F32\"", "[Infinity]", "[0,0]", 0), "no NaN and no Infinity"},
      {tensor("\"F32\"", "[02]", "[0,8]", 8), "byte 37 (a.shape[0]): expected a number without leading zeros"},
      {tensor("\"F32\"", "[2.0]", "[0,8]", 8), "(a.shape[0]): expected a size as an integer"},
      {tensor("\"F32\"", "[2e0]", "[0,8]", 8), "expected a size as an integer"},
      {tensor("\"F32\"", "[18446744073709551616]", "[0,8]", 8), "expected a size as an integer from 0 to 2^64-1"},
      {tensor("\"F32\"", "[2]", "[0,18446744073709551624]", 8), "expected an offset as an integer from 0 to 2^64-1"},
      // 3: metadata
      {make(R"({"__metadata__":{"a":1}})"), "(__metadata__.a): expected a string as value of the metadata"},
      {make(R"({"__metadata__":{"a":{"b":"c"}}})"), "expected a string as value"},
      {make(R"({"__metadata__":[]})"), "(__metadata__): expected '{'"},
      {make(R"({"__metadata__":null})"), "(__metadata__): expected '{'"},
      {make(R"({"__metadata__":{"a":"b","a":"c"}})"), "\"a\" twice"},
      // 4: form of an entry
      {make(R"({"a":1})"), "(a): expected '{'"},
      {make(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "byte 13 (a): expected a tensor with dtype, shape and data_offsets, found no dtype"},
      {make(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "found no shape"},
      {make(R"({"a":{"dtype":"F32","shape":[2]}})", 8), "found no data_offsets"},
      {make(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}})", 8), "(a.strides): expected dtype, shape and data_offsets"},
      {tensor("\"F33\"", "[2]", "[0,8]", 8), "(a.dtype): expected a dtype of the safetensors format, found \"F33\""},
      {tensor("7", "[2]", "[0,8]", 8), "(a.dtype): expected a string"},
      {tensor("\"F32\"", "2", "[0,8]", 8), "(a.shape): expected '['"},
      {tensor("\"F32\"", "[\"2\"]", "[0,8]", 8), "expected a size as an integer"},
      {tensor("\"F32\"", "[-2]", "[0,8]", 8), "expected a size as an integer"},
      {tensor("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]", 8), "at most 8 dimensions"},
      {tensor("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0), "(a.shape): expected a shape of at most 2^62 elements"},
      {tensor("\"F32\"", "[9223372036854775808]", "[0,0]", 0), "at most 2^62 elements"},
      {tensor("\"F32\"", "[4611686018427387904]", "[0,0]", 0), "a range of above 2^61 bytes for F32"},
      {tensor("\"F32\"", "[2]", "[0,8,8]", 8), "expected two offsets, found more"},
      {tensor("\"F32\"", "[2]", "[8]", 8), "expected two offsets, found 1"},
      {tensor("\"F32\"", "[2]", "[0,\"8\"]", 8), "expected an offset as an integer"},
      // 5: ranges
      {tensor("\"F32\"", "[2]", "[8,0]", 8), "does not end before it begins"},
      {tensor("\"F32\"", "[2]", "[0,7]", 7), "(a): expected a range of 8 bytes for F32 [2], found 7"},
      {tensor("\"F32\"", "[2]", "[0,9]", 9), "range of 8 bytes for F32 [2], found 9"},
      {tensor("\"F32\"", "[2]", "[0,8]", 7), "up to byte 8 of the data, found only 7: the file is cut"},
      {tensor("\"F32\"", "[2]", "[18446744073709551607,18446744073709551615]", 8), "the file is cut"},
      {tensor("\"F32\"", "[2]", "[4,12]", 12), "expected \"a\" to begin where the tensor before it ends, found a gap of 4 bytes"},
      {tensor("\"F32\"", "[2]", "[0,8]", 12), "expected the end of the file, found 4 more bytes"},
      {make(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12),
       "byte 124: expected \"b\" to begin where the tensor before it ends, found an overlap of 4 bytes"},
      {make(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})", 12), "a gap of 4 bytes"},
      {make(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "an overlap of 4 bytes"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.bytes.substr(0, 200));
    const std::string message = error_of(c.bytes);
    CAPTURE(message);
    CHECK(contains(message, c.words));
  }
}

TEST_CASE("stray bytes at the end can be allowed") {
  const std::string bytes = make(kOne, 12);
  CHECK(contains(error_of(bytes), "lenient tail"));
  CHECK(error_of(bytes, true).empty());
  CHECK(open_bytes(bytes, true).tensor("a").count() == 2);
  CHECK_FALSE(error_of(make(kOne, 7), true).empty());
}

TEST_CASE("memory stays below four times the size for headers full of the smallest entries") {
  std::string tensors = "{", metadata = "{\"__metadata__\":{";
  for (int i = 0; tensors.size() < 3000000; ++i) {
    tensors += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)";
    metadata += "\"" + std::to_string(i) + R"(":"",)";
  }
  tensors.back() = metadata.back() = '}';
  CHECK(error_of(make(tensors)).empty());
  CHECK(error_of(make(metadata + "}")).empty());
  CHECK_FALSE(error_of(make(tensors, 1)).empty());
}

TEST_CASE("random damage to a valid file: loads with all tensors readable, or is an error") {
  const std::string valid = test::read_all(test::source_file("tests/data/safetensors_reference.safetensors"));
  std::mt19937 random(11);
  int accepted = 0;
  for (int i = 0; i < 6000; ++i) {
    std::string bytes = valid;
    for (std::size_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % 3 == 0 ? random() % bytes.size() : random() % 850;
      if (random() % 8 == 0) bytes.resize(at);
      else bytes[at] = random() % 2 ? static_cast<char>(random()) : "0123456789[]{},:\""[random() % 17];
      if (bytes.empty()) bytes = "x";
      bytes.resize(std::max<std::size_t>(bytes.size(), 850));
    }
    if (!error_of(bytes).empty()) continue;
    ++accepted;
    const SafetensorsFile file = open_bytes(bytes);
    for (const std::string& name : file.names()) {
      try {
        file.tensor(name).to_vector<double>();
      } catch (const Error&) {
      }
    }
    file.metadata();
  }
  CHECK(accepted > 100);
}

TEST_CASE("the writer gives the bytes of the reference library") {
  const std::string path = test::source_file("tests/data/safetensors_reference.safetensors");
  const SafetensorsFile reference(path);
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const std::string& name : reference.names()) tensors.emplace_back(name, reference.tensor(name));
  std::mt19937 random(5);
  std::shuffle(tensors.begin(), tensors.end(), random);
  const test::TemporaryFolder folder;
  save_safetensors(folder.file("copy.safetensors"), tensors);
  CHECK(test::read_all(folder.file("copy.safetensors")) == test::read_all(path));
  CHECK(folder.entries() == 1);
  save_safetensors(folder.file("copy.safetensors"), {}, {});  // replaces
  CHECK(test::read_all(folder.file("copy.safetensors")) == make("{}      "));
}

TEST_CASE("the writer takes views that are not contiguous") {
  const Tensor x = from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor transposed(x.storage(), x.layout().transpose(0, 1), x.dtype());
  const Tensor repeated(x.storage(), x.layout().select(0, 0).select(0, 1).unsqueeze(0).broadcast_to({300000}), x.dtype());
  const test::TemporaryFolder folder;
  save_safetensors(folder.file("t"), {{"t", transposed}, {"r", repeated}}, {{"note", "\"ü\""}});
  const SafetensorsFile file(folder.file("t"));
  CHECK(file.tensor("t").to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(file.tensor("r").to_vector<float>() == std::vector<float>(300000, 2.0F));
  CHECK(file.metadata().at("note") == "\"ü\"");
}

TEST_CASE("tensor by tensor, and what the writer refuses") {
  const test::TemporaryFolder folder;
  const std::string path = folder.write("m.safetensors", "old");
  const Tensor one = from_vector(std::vector<float>{1, 2}, {2});
  {
    SafetensorsWriter writer(path, {{"a", DType::f32, {2}}, {"b", DType::f32, {2}}});
    writer.write("b", one);
    CHECK_THROWS_AS(writer.write("b", one), StateError);
    CHECK_THROWS_AS(writer.write("c", one), NameError);
    CHECK_THROWS_AS(writer.write("a", from_vector(std::vector<float>{1}, {1})), ShapeError);
    CHECK_THROWS_AS(writer.write("a", from_vector(std::vector<double>{1, 2}, {2})), DTypeError);
    CHECK_THROWS_AS(writer.write("a", Tensor()), StateError);
    CHECK_THROWS_AS(writer.write("a", meta({2}, DType::f32)), StateError);
    CHECK_THROWS_WITH_AS(writer.finish(), doctest::Contains("\"a\" was declared and not written"), StateError);
  }
  CHECK(test::read_all(path) == "old");
  CHECK(folder.entries() == 1);
  SafetensorsWriter writer(path, {{"a", DType::f32, {2}}, {"b", DType::f32, {2}}});
  writer.write("b", one);
  writer.write("a", from_vector(std::vector<float>{3, 4}, {2}));
  writer.finish();
  CHECK(SafetensorsFile(path).tensor("a").to_vector<float>() == std::vector<float>{3, 4});
  CHECK_THROWS_AS(save_safetensors(path, {{"x", one}, {"x", one}}), NameError);
  CHECK_THROWS_AS(save_safetensors(path, {{"\xff", one}}), NameError);
  CHECK_THROWS_AS(save_safetensors(path, {{"__metadata__", one}}), NameError);
  CHECK_THROWS_AS(save_safetensors(path, {{"x", Tensor()}}), StateError);
  CHECK_THROWS_AS(save_safetensors(path, {{"x", one}}, {{"k", "\xff"}}), NameError);
  CHECK_THROWS_WITH_AS(save_safetensors(folder.file("no/such.safetensors"), {{"x", one}}), doctest::Contains("No such file or directory"), FileError);
  CHECK(SafetensorsFile(path).tensor("b").to_vector<float>() == std::vector<float>{1, 2});
  CHECK(folder.entries() == 1);
}

TEST_CASE("a write that fails half-way leaves the old file and nothing else") {
  const test::TemporaryFolder folder;
  const std::string path = folder.write("m.safetensors", "old");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    save_safetensors(path, {{"a", zeros({1000000})}});
  } catch (const FileError& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(message, "m.safetensors: cannot be written: File too large"));
  CHECK(test::read_all(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("files that cannot be opened") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_AS(SafetensorsFile(folder.file("none.safetensors")), FileError);
  CHECK_THROWS_AS(SafetensorsFile(folder.path()), FileError);
}

TEST_CASE("a folder with one file, and with shards") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(open_safetensors_folder(folder.path()), doctest::Contains("expected model.safetensors or"), FileError);
  CHECK_THROWS_WITH_AS(open_safetensors_folder(folder.file("none")), doctest::Contains("no folder"), FileError);
  folder.write("pytorch_model.bin", "");
  CHECK_THROWS_WITH_AS(open_safetensors_folder(folder.path()), doctest::Contains("pickle"), FileError);

  const auto value = [](float x) { return from_vector(std::vector<float>{x}, {1}); };
  save_safetensors(folder.file("m-1.safetensors"), {{"a", value(1)}, {"b", value(2)}});
  save_safetensors(folder.file("m-2.safetensors"), {{"c", value(3)}});
  const std::string index = "model.safetensors.index.json";
  folder.write(index, R"({"metadata":{"total_size":12},"weight_map":{"c":"m-2.safetensors","a":"m-1.safetensors","b":"m-1.safetensors"}})");
  const ShardedSafetensors model = open_safetensors_folder(folder.path());
  CHECK(model.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(model.tensor("c").item() == 3);
  CHECK(model.file_of("b").path() == folder.file("m-1.safetensors"));
  CHECK(model.info("a").shape == Shape{1});
  CHECK(model.contains("b"));
  CHECK_THROWS_AS(model.tensor("d"), NameError);

  struct Case { std::string index; std::string_view words; };
  std::string many = R"({"weight_map":{"c":"m-2.safetensors","a":"m-1.safetensors","b":"m-1.safetensors")";
  for (char c = 'd'; c < 'p'; ++c) many += std::string(",\"") + c + "\":\"m-1.safetensors\"";
  const Case cases[] = {
      {"{", "byte 1"},
      {"[]", "expected '{'"},
      {"{}", "expected a member \"weight_map\""},
      {R"({"weight_map":[]})", "(weight_map): expected '{'"},
      {R"({"weight_map":{"a":1}})", "(weight_map.a): expected a string"},
      {R"({"weight_map":{"a":"m-1.safetensors","a":"m-1.safetensors"}})", "\"a\" twice"},
      {R"({"weight_map":{"a":"../m-1.safetensors"}})", "expected the plain name of a .safetensors file in the same folder, found \"../m-1.safetensors\""},
      {R"({"weight_map":{"a":"/etc/x.safetensors"}})", "plain name"},
      {R"({"weight_map":{"a":"sub\\m-1.safetensors"}})", "plain name"},
      {R"({"weight_map":{"a":"m-1.safetensors\u0000.safetensors"}})", "plain name"},
      {R"({"weight_map":{"a":".."}})", "plain name"},
      {R"({"weight_map":{"a":""}})", "plain name"},
      {R"({"weight_map":{"a":"pytorch_model.bin"}})", "plain name"},
      {R"({"weight_map":{"a":"m-3.safetensors"}})", "expected a file of the folder, found none named \"m-3.safetensors\""},
      {R"({"weight_map":{"a":"m-1.safetensors","c":"m-2.safetensors"}})", "tensors in a shard where it names none: \"b\""},
      {R"({"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}})", "not in the shard it names: \"b\""},
      {many + "}}", "\"d\", \"e\", \"f\", \"g\", \"h\", \"i\", \"j\", \"k\", \"l\", \"m\" and 2 more"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.index);
    folder.write(index, c.index);
    CHECK_THROWS_WITH_AS(open_safetensors_folder(folder.path()), doctest::Contains(std::string(c.words).c_str()), FileError);
  }
  save_safetensors(folder.file("model.safetensors"), {{"whole", value(4)}});
  CHECK(open_safetensors_folder(folder.path()).tensor("whole").item() == 4);
}
