// Matrix products: own kernels of each instruction set and OpenBLAS, against the arithmetic peak measured in the same moments.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa/gemm.h"
#include "kernels/parallel.h"

using namespace cambium;
using namespace cambium::kernels;

namespace {

/// Time of this thread alone where there is only one, so that other programs on the core do not count; else of the clock.
double seconds() {
  timespec now;
  clock_gettime(threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Floats aligned as a tensor's memory is.
class Floats {
 public:
  explicit Floats(std::int64_t count) : count_(static_cast<std::size_t>(count)), data_(static_cast<float*>(allocate(Device{}, count_ * 4 + 64))) {
    for (std::size_t i = 0; i < count_; ++i) data_[i] = static_cast<float>(i % 17) * 0.1F - 0.8F;
  }
  ~Floats() { deallocate(Device{}, data_, count_ * 4 + 64); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  float* data() const { return data_; }

 private:
  std::size_t count_;
  float* data_;
};

struct Shape {
  std::int64_t M, N, K;
  const char* kind;  // "xWt": W (N, K); "gW": W (K, N); "xtg": A (K, M) transposed
};

constexpr Shape kShapes[] = {
    {512, 768, 768, "xWt"},  {512, 3072, 768, "xWt"}, {512, 768, 3072, "xWt"}, {128, 1536, 384, "xWt"}, {32, 3072, 768, "xWt"}, {16, 3072, 768, "xWt"},
    {8, 3072, 768, "xWt"},   {4, 3072, 768, "xWt"},   {1, 3072, 768, "xWt"},   {512, 8, 768, "xWt"},    {512, 768, 8, "xWt"},   {512, 50257, 768, "xWt"},
    {512, 768, 768, "gW"},   {512, 768, 3072, "gW"},  {32, 768, 3072, "gW"},   {8, 768, 3072, "gW"},    {1, 768, 3072, "gW"},   {512, 8, 3072, "gW"},
    {768, 768, 512, "xtg"},  {8, 768, 512, "xtg"},    {3072, 8, 512, "xtg"},   {64, 64, 64, "xWt"},
};

Strided matrix(float* data, std::int64_t rows, std::int64_t columns, bool turned) {
  Strided s;
  s.data = data;
  s.rank = 2;
  s.shape[0] = rows;
  s.shape[1] = columns;
  s.strides[0] = turned ? 1 : columns;
  s.strides[1] = turned ? rows : 1;
  return s;
}

/// Register-only multiply-adds on every thread in use; operations per second.
double probe(std::int64_t rounds) {
  std::vector<float> sinks(static_cast<std::size_t>(threads()) * 16, 0.0F);
  std::vector<double> done(static_cast<std::size_t>(threads()), 0.0);
  const double start = seconds();
  parallel_for(threads(), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    done[at] = cpu::isa().gemm->probe(rounds, &sinks[at * 16]);
  });
  const double time = seconds() - start;
  double sum = 0;
  for (double d : done) sum += d;
  return sum / time;
}

struct Row {
  double peak, own, packed, openblas;  // operations per second, best of all
  double ratio;                        // median of own over the probe just before it
};

Row measure(const Shape& shape, double budget, bool with_openblas, bool with_packed) {
  const bool wt = std::strcmp(shape.kind, "xWt") == 0, xt = std::strcmp(shape.kind, "xtg") == 0;
  const Floats a(shape.M * shape.K), b(shape.N * shape.K), c(shape.M * shape.N);
  const Strided A = matrix(a.data(), shape.M, shape.K, xt), B = matrix(b.data(), shape.K, shape.N, wt), C = matrix(c.data(), shape.M, shape.N, false);
  Context context;
  Weight frozen(B);
  const Floats panels(with_packed ? cpu::packed_weight_bytes(B) / 4 : 1);
  if (with_packed) {
    cpu::pack_weight(panels.data(), B);
    frozen.format = Weight::Format::packed;
    frozen.packed = panels.data();
    frozen.dense.data = nullptr;
  }
  const double work = 2.0 * static_cast<double>(shape.M) * static_cast<double>(shape.N) * static_cast<double>(shape.K);
  const auto best = [&](const Weight& weight, cpu::GemmRoute route, double& rate) {
    cpu::set_gemm_route(route);
    const double start = seconds();
    cpu::gemm(context, C, A, weight, {});
    rate = std::max(rate, work / (seconds() - start));
    cpu::set_gemm_route(cpu::GemmRoute::own);
  };
  Row row{};
  std::vector<double> ratios;
  const double end = seconds() + budget;
  for (int i = 0; i < 5 || seconds() < end; ++i) {
    const double peak = probe(20000);
    row.peak = std::max(row.peak, peak);
    double own = 0;
    for (int k = 0; k < (work < 1e8 ? 8 : 1); ++k) best(Weight(B), cpu::GemmRoute::own, own);
    row.own = std::max(row.own, own);
    ratios.push_back(own / peak);
    if (with_packed) best(frozen, cpu::GemmRoute::own, row.packed);
    if (with_openblas) best(Weight(B), cpu::GemmRoute::openblas, row.openblas);
  }
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2), ratios.end());
  row.ratio = ratios[ratios.size() / 2];
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false, openblas = true, packed = true;
  double budget = 0.6;
  int count = 1;
  std::string only;
  std::int64_t one[3] = {0, 0, 0};
  std::string kind = "xWt";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") json = true;
    else if (word == "--no-openblas") openblas = false;
    else if (word == "--no-packed") packed = false;
    else if (word == "--seconds" && i + 1 < argc) budget = std::atof(argv[++i]);
    else if (word == "--threads" && i + 1 < argc) count = std::atoi(argv[++i]);
    else if (word == "--set" && i + 1 < argc) only = argv[++i];
    else if (word == "--shape" && i + 4 < argc) {
      for (std::int64_t& n : one) n = std::atoll(argv[++i]);
      kind = argv[++i];
    } else {
      std::fprintf(stderr, "usage: gemm [--json] [--set portable|avx2|avx512] [--threads N] [--seconds S] [--no-openblas] [--no-packed] [--shape M N K xWt|gW|xtg]\n");
      return 2;
    }
  }
  set_threads(count);
  if (json) std::printf("[");
  bool first = true;
  for (const cpu::Isa set : cpu::supported_isas()) {
    const std::string name(cpu::isa_name(set));
    if (!only.empty() && only != name) continue;
    const cpu::UseIsa use(set);
    if (!json) std::printf("%s, %d thread%s (best of many; GF/s)\n  %-22s %8s %8s %6s %7s %8s %8s\n", name.c_str(), count, count == 1 ? "" : "s", "M x N x K", "peak", "own", "%", "median", "packed W", "OpenBLAS");
    std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
    if (one[0]) shapes = {{one[0], one[1], one[2], kind.c_str()}};
    for (const Shape& shape : shapes) {
      const Row r = measure(shape, budget, openblas, packed && shape.M > 0);
      if (json) {
        std::printf("%s\n  {\"set\": \"%s\", \"threads\": %d, \"M\": %lld, \"N\": %lld, \"K\": %lld, \"kind\": \"%s\", \"peak\": %.4g, \"own\": %.4g, \"median_ratio\": %.4g, \"packed\": %.4g, \"openblas\": %.4g}",
                    first ? "" : ",", name.c_str(), count, static_cast<long long>(shape.M), static_cast<long long>(shape.N), static_cast<long long>(shape.K), shape.kind, r.peak, r.own, r.ratio, r.packed, r.openblas);
        first = false;
      } else {
        char text[64];
        std::snprintf(text, sizeof text, "%lldx%lldx%lld %s", static_cast<long long>(shape.M), static_cast<long long>(shape.N), static_cast<long long>(shape.K), shape.kind);
        std::printf("  %-22s %8.1f %8.1f %5.1f%% %6.1f%% %8.1f %8.1f\n", text, r.peak / 1e9, r.own / 1e9, 100 * r.own / r.peak, 100 * r.ratio, r.packed / 1e9, r.openblas / 1e9);
        std::fflush(stdout);
      }
    }
  }
  if (json) std::printf("\n]\n");
  return 0;
}
