// parity DIR… [--only TEXT]… [--except TEXT]… [--device D]: compares with every reference folder below DIR; what cannot be done is a failure.
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "tests/goldens/folders.h"

using namespace cambium;

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
    else test::set_comparison_device(parse_device(value));
  }
  check<ConfigError>(!out.folders.empty(), "parity: expected folders: parity DIR… [--only TEXT]… [--except TEXT]… [--device D]");
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  const Options options = parse(argc, argv);
  int passed = 0, failed = 0;
  for (const std::string& root : options.folders)
    for (const test::ReferenceFolder& reference : test::reference_folders(root)) {
      const auto holds = [&](const std::string& text) { return reference.name.find(text) != std::string::npos; };
      if (!options.only.empty() && std::none_of(options.only.begin(), options.only.end(), holds)) continue;
      if (std::any_of(options.except.begin(), options.except.end(), holds)) continue;
      const test::Comparison result = reference.compare();
      (result.passed() ? passed : failed) += 1;
      std::cout << result.line() << std::endl;
    }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed > 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
