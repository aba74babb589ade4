// Combining two LoRA adapters by singular values: time and memory beside PEFT's add_weighted_adapter, one line of JSON.
// bench_combine linear SIZE RANK [REPEATS]    one SIZE x SIZE matrix, rank RANK each and RANK of the result
// bench_combine smollm2 RANK [REPEATS]        all 210 matrices of SmolLM2-135M
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "peft/combine.h"

using namespace cambium;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

long status_kib(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) return std::strtol(line.c_str() + std::strlen(key) + 1, nullptr, 10);
  return 0;
}

LoraAdapter adapter(const std::vector<std::pair<std::int64_t, std::int64_t>>& shapes, std::int64_t rank, std::uint64_t seed) {
  LoraAdapter out;
  out.where = "adapter";
  out.config.r = rank;
  out.config.lora_alpha = static_cast<double>(rank);
  out.config.target_modules = {"proj"};
  for (std::size_t i = 0; i < shapes.size(); ++i)
    out.parts.push_back({"layers." + std::to_string(i) + ".proj", false, 1.0, random_normal({rank, shapes[i].second}, RandomKey{seed, 0}.fold("a").fold(i), 0.0, 0.02),
                         random_normal({shapes[i].first, rank}, RandomKey{seed, 0}.fold("b").fold(i), 0.0, 0.02), {}, {}});
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "linear";
  const bool one = kind == "linear";
  std::int64_t size = 4096, rank = 8;
  int next = 2, repeats = 5;
  if (one && argc > next) size = std::atoll(argv[next++]);
  if (argc > next) rank = std::atoll(argv[next++]);
  if (argc > next) repeats = std::atoi(argv[next++]);
  kernels::set_threads(1);
  std::vector<std::pair<std::int64_t, std::int64_t>> shapes;
  if (one) shapes = {{size, size}};
  else
    for (int layer = 0; layer < 30; ++layer)
      for (const auto& [out, in] : {std::pair<std::int64_t, std::int64_t>{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}}) shapes.emplace_back(out, in);
  const std::vector<LoraAdapter> sources{adapter(shapes, rank, 1), adapter(shapes, rank, 2)};
  const CombineOptions options{.svd_rank = rank};
  combine_adapters({adapter({{64, 64}}, 4, 1), adapter({{64, 64}}, 4, 2)}, {0.7, 0.3}, {.svd_rank = 4});  // libraries are loaded and kernels chosen
  const long before = status_kib("VmHWM:");
  std::vector<double> times;
  CombinationReport report;
  long after = 0;
  for (int i = 0; i < repeats; ++i) {
    const double start = seconds();
    const LoraAdapter result = combine_adapters(sources, {0.7, 0.3}, options, &report);
    times.push_back(seconds() - start);
    if (i == 0) after = status_kib("VmHWM:");
  }
  std::sort(times.begin(), times.end());
  std::int64_t sides = 0;
  for (const auto& [out, in] : shapes) sides = std::max(sides, out + in);
  // What one layer may take: 8 (m + n) R floats, R the sum of the ranks.
  const double allowed = 8.0 * static_cast<double>(sides) * 2.0 * static_cast<double>(rank) * 4.0 / 1024.0;
  std::printf("{\"program\": \"cambium\", \"case\": \"%s\", \"size\": %lld, \"rank\": %lld, \"median_s\": %.6f, \"best_s\": %.6f, \"error\": %.3e, \"extra_kib\": %ld, \"allowed_kib\": %.0f}\n", kind.c_str(),
              static_cast<long long>(size), static_cast<long long>(rank), times[times.size() / 2], times.front(), report.largest_error(), after - before, allowed);
  return 0;
}
