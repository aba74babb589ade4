// parity DIR… [--only TEXT]… [--except TEXT]… [--device D]: compares with every reference folder below DIR; what cannot be done is a failure.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "tests/goldens/adapters.h"
#include "tests/goldens/ops.h"
#include "tests/goldens/optim.h"

namespace fs = std::filesystem;
using namespace cambium;
using test::Comparison;

namespace {

struct Options {
  std::vector<std::string> folders, only, except;
};

Options parse(int argc, char** argv) {
  Options out;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool takes_value = word == "--only" || word == "--except" || word == "--device";
    if (!takes_value) {
      check<ConfigError>(!word.starts_with("-"), "parity: option '", word, "' is not known: --only, --except and --device are");
      out.folders.push_back(word);
      continue;
    }
    check<ConfigError>(i + 1 < argc, "parity: ", word, " needs a value");
    const std::string value = argv[++i];
    if (word == "--only") out.only.push_back(value);
    else if (word == "--except") out.except.push_back(value);
    else check<DeviceError>(parse_device(value) == Device{}, "parity: only the cpu is there, found ", value);
  }
  check<ConfigError>(!out.folders.empty(), "parity: expected folders: parity DIR… [--only TEXT]… [--except TEXT]… [--device D]");
  return out;
}

/// What the marks of a folder say is to be compared.
struct Kind {
  const char* mark;
  std::function<Comparison(const std::string& folder, const std::string& name)> compare;
};

}  // namespace

int main(int argc, char** argv) try {
  const Options options = parse(argc, argv);
  const std::vector<Kind> kinds = {
      {"case.json", test::compare_case},           {"full_gradients.json", test::compare_full_gradients}, {"blocks.gguf", test::compare_gguf_blocks},
      {"ops.json", test::compare_operators},       {"optim.json", test::compare_optimizers},
  };
  int passed = 0, failed = 0;
  for (const std::string& root : options.folders) {
    check<FileError>(fs::is_directory(root), "parity: ", root, " is no folder");
    std::vector<fs::path> folders{fs::path(root)};
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.is_directory()) folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    for (const fs::path& folder : folders)
      for (const Kind& kind : kinds) {
        if (!fs::exists(folder / kind.mark)) continue;
        const std::string relative = fs::relative(folder, root).string(), name = relative == "." ? fs::absolute(root).lexically_normal().filename().string() : relative;
        const auto holds = [&](const std::string& text) { return name.find(text) != std::string::npos; };
        if (!options.only.empty() && std::none_of(options.only.begin(), options.only.end(), holds)) continue;
        if (std::any_of(options.except.begin(), options.except.end(), holds)) continue;
        Comparison result(name);
        try {
          result = kind.compare(folder.string(), name);
        } catch (const std::exception& error) {
          result.failure(error.what());
        }
        (result.passed() ? passed : failed) += 1;
        std::cout << result.line() << std::endl;
      }
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed > 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
