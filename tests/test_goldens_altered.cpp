// Comparisons that can fail: every kind of number that a reference folder stores is altered in a copy of it, and the comparison has to say so.
#include <doctest/doctest.h>

#include <cctype>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/goldens/adapters.h"
#include "tests/goldens/folders.h"
#include "tests/goldens/ops.h"
#include "tests/goldens/optim.h"
#include "tests/temporary_folder.h"

using namespace cambium;
namespace fs = std::filesystem;

namespace {

using Compare = test::Comparison (*)(const std::string& folder, const std::string& name);

/// What says how the numbers came about, or is said again elsewhere: nothing can be compared with it.
const std::set<std::string> kNoResults = {"name",         "task",           "kind",        "peft_type",     "base",           "seed",  "inputs",   "padding", "merged_logits_max_diff",
                                          "loss_float64", "float32_noise",  "note",        "warnings",      "tolerance",      "dtype", "class",    "options", "fan_in_fan_out",
                                          "optimizer",    "optimizers",     "gradient",    "parameters",    "max_new_tokens", "steps", "base_lr",  "warmup",  "arguments",
                                          "function",     "max_norm",       "norm_type",   "input_ids",     "attention_mask", "cases", "position_ids",
                                          "smallest_margin", "unmerged_logits_max_diff"};

/// Names of layers without their numbers: one of each kind is altered, the last.
std::string kind_of(const std::string& path) {
  std::string out;
  for (const char c : path)
    if (!std::isdigit(static_cast<unsigned char>(c))) out += c;
  return out;
}

void collect(const Json& value, const std::string& path, std::map<std::string, std::string>& kinds) {
  if (value.is_structured()) {
    for (const auto& item : value.items())
      if (!value.is_object() || !kNoResults.contains(item.key())) collect(item.value(), path + "/" + item.key(), kinds);
  } else if (value.is_number() || (value.is_string() && std::isdigit(static_cast<unsigned char>(value.get<std::string>()[0])))) {
    kinds[kind_of(path)] = path;
  }
}

void write(const fs::path& path, const std::string& content) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << content;
}

/// A copy of the case in a folder that holds the models beside it.
struct Copy {
  test::TemporaryFolder root;
  fs::path folder;
  explicit Copy(const std::string& original) : folder(fs::path(root.path()) / "copy") {
    fs::create_directory(folder);  // not as fs::copy does it, which would keep the original read-only
    for (const auto& entry : fs::recursive_directory_iterator(original)) {
      const fs::path path = folder / fs::relative(entry.path(), original);
      if (entry.is_directory()) fs::create_directory(path);
      else write(path, test::read_all(entry.path().string()));
    }
    const fs::path models = fs::path(original).parent_path() / "models";
    if (fs::exists(models)) fs::create_directory_symlink(fs::absolute(models), fs::path(root.path()) / "models");
  }
};

/// Alters one number of each kind in a JSON file; returns how many kinds there were.
int alter_json(const Copy& copy, const std::string& file, Compare compare) {
  const std::string original = test::read_all((copy.folder / file).string());
  const Json json = parse_json(original, file);
  std::map<std::string, std::string> kinds;
  collect(json, "", kinds);
  for (const auto& [kind, last] : kinds) {
    const std::string& path = last;
    Json altered = json;
    Json& value = altered[Json::json_pointer(path)];
    if (value.is_string()) value = std::to_string(std::stod(value.get<std::string>()) + 1.0);
    else if (value.is_number_float()) value = value.get<double>() + 1.0;
    else value = value.get<std::int64_t>() + 1;
    write(copy.folder / file, altered.dump());
    INFO(file, path);
    CHECK_FALSE(compare(copy.folder.string(), "altered").passed());
  }
  write(copy.folder / file, original);
  return static_cast<int>(kinds.size());
}

/// The same for the tensors of a safetensors file that are no inputs. Of masked ones an element is taken that counts.
int alter_tensors(const Copy& copy, const std::string& file, const std::function<std::string(const std::string&)>& kind_of_tensor, Compare compare) {
  const std::string original = test::read_all((copy.folder / file).string());
  std::uint64_t length = 0;
  std::memcpy(&length, original.data(), 8);
  const Json header = parse_json(original.substr(8, length), file);
  const auto offset = [&](const std::string& name) { return 8 + length + header.at(name).at("data_offsets").at(0).get<std::uint64_t>(); };
  const auto count_of = [&](const std::string& name) {
    std::uint64_t count = 1;
    for (const Json& size : header.at(name).at("shape")) count *= size.get<std::uint64_t>();
    return count;
  };
  std::map<std::string, std::string> kinds;
  for (const auto& item : header.items())
    if (const std::string kind = item.key() == "__metadata__" ? "" : kind_of_tensor(item.key()); !kind.empty()) kinds[kind] = item.key();
  for (const auto& [kind, last] : kinds) {
    const std::string& name = last;
    const std::uint64_t count = count_of(name);
    std::uint64_t element = count / 2;
    if (header.contains("compare_mask") && count % count_of("compare_mask") == 0) {
      const std::uint64_t rows = count_of("compare_mask");
      for (std::uint64_t row = 0; row < rows; ++row) {
        std::int64_t counts = 0;
        std::memcpy(&counts, original.data() + offset("compare_mask") + 8 * row, 8);
        if (counts != 0) element = row * (count / rows);
      }
    }
    std::string altered = original;
    const auto add_one = [&](auto number) {
      char* at = altered.data() + offset(name) + element * sizeof number;
      std::memcpy(&number, at, sizeof number);
      number += 1;
      std::memcpy(at, &number, sizeof number);
    };
    const std::string dtype = header.at(name).at("dtype");
    INFO(file, " ", name, " ", dtype);
    if (dtype == "F32") add_one(0.0F);
    else if (dtype == "F64") add_one(0.0);
    else if (dtype == "I64") add_one(std::int64_t{0});
    else FAIL("numbers of this type are not altered");
    write(copy.folder / file, altered);
    CHECK_FALSE(compare(copy.folder.string(), "altered").passed());
  }
  write(copy.folder / file, original);
  return static_cast<int>(kinds.size());
}

}  // namespace

TEST_CASE("each kind of number of a case, altered, is seen") {
  int cases = 0;
  for (const test::ReferenceFolder& original : test::reference_folders(test::source_goldens())) {
    if (original.mark != "case.json") continue;
    const Json json = read_json_file(original.folder + "/case.json");
    // Every kind of adapter on one model, and one with a trained head.
    if (json.contains("kind") || (json.at("base") != "models/gpt2" && original.name != "bert-cls-lora")) continue;
    CAPTURE(original.name);
    ++cases;
    const Copy copy(original.folder);
    const test::Comparison same = test::compare_case(copy.folder.string(), "copy");
    INFO(same.line());
    REQUIRE(same.passed());
    const bool lora = json.at("peft_type") == "LORA";  // its layers have numbers of their own
    CHECK(alter_json(copy, "case.json", test::compare_case) >= (lora ? 7 : 5));
    const Json& inputs = json.at("inputs");
    const auto no_input = [&](const std::string& tensor) { return inputs.contains(tensor) || tensor == "compare_mask" ? "" : kind_of(tensor); };
    int kinds = 0;
    for (const auto& entry : fs::recursive_directory_iterator(copy.folder))
      if (entry.path().extension() == ".safetensors") kinds += alter_tensors(copy, fs::relative(entry.path(), copy.folder).string(), no_input, test::compare_case);
    CHECK(kinds >= (lora ? 10 : 8));
  }
  CHECK(cases >= 7);
}

TEST_CASE("a case that cannot be done is a failure, and so is one without its files") {
  const Copy copy(test::source_goldens() + "/gpt2-lora");
  const auto passes = [&] {
    try {
      return test::compare_case(copy.folder.string(), "altered").passed();
    } catch (const Error&) {  // parity makes that a failure
      return false;
    }
  };
  const Json json = read_json_file((copy.folder / "case.json").string());
  for (const char* key : {"task", "peft_type", "kind"}) {
    CAPTURE(key);
    Json altered = json;
    altered[key] = "unheard of";
    write(copy.folder / "case.json", altered.dump());
    CHECK_FALSE(passes());
  }
  write(copy.folder / "case.json", json.dump());
  for (const char* file : {"grads.safetensors", "after.safetensors", "merged.safetensors", "io.safetensors", "adapter/adapter_model.safetensors"}) {
    CAPTURE(file);
    const std::string content = test::read_all((copy.folder / file).string());
    fs::remove(copy.folder / file);
    CHECK_FALSE(passes());
    write(copy.folder / file, content);
  }
  CHECK(passes());
}

TEST_CASE("gradients of all parameters, blocks, operators and optimizers, altered, are seen") {
  const std::string root = test::source_goldens();
  {
    const Copy copy(root + "/models/gpt2");
    const std::string file = "full_gradients.json", text = test::read_all((copy.folder / file).string());
    Json json = parse_json(text, file);
    CHECK(alter_json(copy, file, test::compare_full_gradients) >= 10);
    json["loss_float64"] = "1.0";
    write(copy.folder / file, json.dump());
    CHECK_FALSE(test::compare_full_gradients(copy.folder.string(), "altered").passed());
  }
  const auto after_slash = [](const std::string& tensor) {
    const std::string kind = tensor.substr(tensor.find('/') + 1);
    return kind.starts_with("in.") || kind.starts_with("gout.") ? std::string() : kind;
  };
  const Copy operators(root + "/ops"), optimizers(root + "/optim"), formats(root + "/gguf");
  CHECK(alter_tensors(operators, "ops.safetensors", after_slash, test::compare_operators) >= 5);
  CHECK(alter_tensors(optimizers, "optim.safetensors", after_slash, test::compare_optimizers) >= 3);
  CHECK(alter_json(optimizers, "optim.json", test::compare_optimizers) >= 2);
  CHECK(alter_tensors(formats, "blocks.safetensors", [](const std::string& tensor) { return tensor; }, test::compare_gguf_blocks) >= 10);
}
