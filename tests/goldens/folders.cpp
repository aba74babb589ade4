// Folders of reference numbers, found by the files that mark them.
#include "tests/goldens/folders.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "tests/goldens/adapters.h"
#include "tests/goldens/ops.h"
#include "tests/goldens/optim.h"

namespace cambium::test {

namespace fs = std::filesystem;

Comparison ReferenceFolder::compare() const try {
  return compare_files(folder, name);
} catch (const std::exception& error) {
  Comparison out(name);
  out.failure(error.what());
  return out;
}

std::vector<ReferenceFolder> reference_folders(const std::string& root) {
  constexpr std::pair<const char*, Comparison (*)(const std::string&, const std::string&)> kMarks[] = {
      {"case.json", compare_case}, {"full_gradients.json", compare_full_gradients}, {"blocks.gguf", compare_gguf_blocks}, {"ops.json", compare_operators}, {"optim.json", compare_optimizers}};
  check<FileError>(fs::is_directory(root), root, " is no folder: expected one with reference numbers");
  std::vector<fs::path> folders{fs::path(root)};
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_directory()) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  std::vector<ReferenceFolder> out;
  for (const fs::path& folder : folders)
    for (const auto& [mark, compare] : kMarks) {
      if (!fs::exists(folder / mark)) continue;
      const std::string relative = fs::relative(folder, root).string();
      out.push_back({folder.string(), relative == "." ? fs::absolute(root).lexically_normal().filename().string() : relative, mark, compare});
    }
  return out;
}

}  // namespace cambium::test
