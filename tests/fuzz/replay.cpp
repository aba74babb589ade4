// Runs a fuzz target on the files given, on every cut of them and on a few thousand damaged copies: the way the targets run as tests.
// With clang the same target is a fuzzer instead: -fsanitize=fuzzer,address,undefined on it and on the library, without this file.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void run(const std::string& bytes) {
  // A heap block of the exact size, so that a read beyond it is seen.
  const std::vector<std::uint8_t> copy(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

}  // namespace

int main(int count, char** arguments) {
  run("");
  std::mt19937_64 random(23);
  for (int i = 1; i < count; ++i) {
    std::ifstream stream(arguments[i], std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "cannot read %s\n", arguments[i]);
      return 1;
    }
    const std::string bytes(std::istreambuf_iterator<char>(stream), {});
    run(bytes);
    if (bytes.empty()) continue;
    for (std::size_t n = 0; n < bytes.size() && n < 3000; ++n) run(bytes.substr(0, n));
    for (int round = 0; round < 3000; ++round) {
      std::string damaged = bytes;
      for (std::uint64_t edits = 1 + random() % 4; edits > 0; --edits) damaged[random() % damaged.size()] = static_cast<char>(random());
      run(damaged);
    }
  }
  return 0;
}
