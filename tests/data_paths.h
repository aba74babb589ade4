// Where tests find reference folders, model files and their own data; absent ones are skipped loudly or, if asked, fail.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>

namespace cambium::test {

/// The source tree: the working folder or the nearest parent that holds tests/data_paths.h.
inline std::filesystem::path source_root() {
  std::filesystem::path folder = std::filesystem::current_path();
  for (;;) {
    if (std::filesystem::exists(folder / "tests/data_paths.h")) return folder;
    if (folder == folder.parent_path()) throw std::runtime_error("tests have to run inside the source tree");
    folder = folder.parent_path();
  }
}

/// A file that belongs to the sources, `source_file("tests/data/x.json")`; always there.
inline std::string source_file(const std::string& relative) { return (source_root() / relative).string(); }

namespace detail {

inline const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

/// Says loudly that something is skipped. With CAMBIUM_REQUIRE_DATA=1 that is a failure.
inline std::nullopt_t absent(const std::string& what, const std::string& help) {
  const char* require = environment("CAMBIUM_REQUIRE_DATA");
  if (require && std::string(require) != "0") {
    throw std::runtime_error(what + " is not there, and CAMBIUM_REQUIRE_DATA asks for it: " + help);
  }
  std::cerr << "*** SKIPPED: " << what << " is not there: " << help << "\n";
  return std::nullopt;
}

inline std::filesystem::path goldens_root() {
  const char* folder = environment("CAMBIUM_GOLDENS");
  return folder ? std::filesystem::path(folder) : source_root() / "../shared/goldens";
}

}  // namespace detail

/// The reference numbers that belong to the sources: one case of each method for each kind of model.
inline std::string source_goldens() { return source_file("tests/data/goldens"); }

/// All reference numbers: $CAMBIUM_GOLDENS, else ../shared/goldens beside the sources.
inline std::optional<std::string> all_goldens() {
  const std::filesystem::path root = detail::goldens_root();
  if (std::filesystem::exists(root)) return root.lexically_normal().string();
  return detail::absent("the folder of all reference numbers", "set CAMBIUM_GOLDENS to it; those in tests/data/goldens are compared");
}

/// A file or folder among the reference numbers: those of the sources, else all.
inline std::optional<std::string> goldens(const std::string& relative) {
  const std::filesystem::path own = std::filesystem::path(source_goldens()) / relative;
  if (std::filesystem::exists(own)) return own.string();
  const std::filesystem::path root = detail::goldens_root();
  const std::filesystem::path path = root / relative;
  if (std::filesystem::exists(path)) return path.lexically_normal().string();
  return detail::absent("reference data '" + relative + "'", "set CAMBIUM_GOLDENS to the folder that holds it");
}

/// A model file such as "SmolLM2-135M-Instruct.Q4_1.gguf" in $CAMBIUM_MODELS.
inline std::optional<std::string> model_file(const std::string& name) {
  const char* folder = detail::environment("CAMBIUM_MODELS");
  if (folder && std::filesystem::exists(std::filesystem::path(folder) / name)) {
    return (std::filesystem::path(folder) / name).string();
  }
  return detail::absent("model file '" + name + "'", "set CAMBIUM_MODELS to the folder that holds it");
}

/// A SentencePiece model of the sentencepiece sources, "botchan_en_bpe_1000.model": in $CAMBIUM_MODELS or beside the reference numbers.
inline std::optional<std::string> sentencepiece_file(const std::string& name) {
  const std::filesystem::path stored = source_root() / "../shared/data/sentencepiece" / name;
  if (std::filesystem::exists(stored)) return stored.lexically_normal().string();
  return model_file("sentencepiece/" + name);
}

/// The bytes of a file.
inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace cambium::test
