// Times the CPU kernels at the sizes of GPT-2 124M and SmolLM2-135M beside probes of memory bandwidth and multiply-add speed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/parallel.h"

using namespace cambium;
using namespace cambium::kernels;

namespace {

struct Buffer {
  DType dtype;
  std::vector<std::int64_t> shape;
  std::vector<float> data;
  explicit Buffer(std::vector<std::int64_t> s, float scale = 1.0F, DType type = DType::f32) : dtype(type), shape(std::move(s)) {
    std::int64_t n = 1;
    for (const std::int64_t d : shape) n *= d;
    data.resize(static_cast<std::size_t>(n));
    unsigned state = 12345;
    for (float& x : data) {
      state = state * 1664525U + 1013904223U;
      x = scale * (static_cast<float>(state >> 8) * 0x1p-23F - 1.0F);
    }
  }
  operator Strided() {
    Strided s;
    s.data = data.data();
    s.dtype = dtype;
    s.rank = static_cast<int>(shape.size());
    std::int64_t stride = 1;
    for (int i = s.rank - 1; i >= 0; --i) {
      s.shape[i] = shape[static_cast<std::size_t>(i)];
      s.strides[i] = stride;
      stride *= s.shape[i];
    }
    return s;
  }
};

Context context;
std::string filter;

double seconds_of(const std::function<void()>& f) {
  f();
  double best = 1e30, spent = 0;
  for (int i = 0; i < 200 && (i < 5 || spent < 0.3); ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const double t = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, t);
    spent += t;
  }
  return best;
}

bool wanted(const std::string& name) { return filter.empty() || name.find(filter) != std::string::npos; }

void bytes_row(const std::string& name, double bytes, const std::function<void()>& f) {
  if (!wanted(name)) return;
  const double t = seconds_of(f);
  std::printf("%-52s %10.1f us %8.1f GB/s\n", name.c_str(), t * 1e6, bytes / t * 1e-9);
}
void flops_row(const std::string& name, double flops, const std::function<void()>& f) {
  if (!wanted(name)) return;
  const double t = seconds_of(f);
  std::printf("%-52s %10.1f us %8.1f GF/s\n", name.c_str(), t * 1e6, flops / t * 1e-9);
}

void probes() {
  for (const std::int64_t kib : {256, 2048, 131072}) {
    std::vector<char> a(static_cast<std::size_t>(kib * 512)), b(a.size());
    const double t = seconds_of([&] {
      const std::int64_t pieces = kib >= 1024 ? 16 : 1;
      const std::size_t piece = a.size() / static_cast<std::size_t>(pieces);
      parallel_for(pieces, [&](std::int64_t i) { std::memcpy(b.data() + static_cast<std::size_t>(i) * piece, a.data() + static_cast<std::size_t>(i) * piece, piece); });
    });
    std::printf("probe: copy, %6lld KiB read and written %30.1f GB/s\n", static_cast<long long>(kib), static_cast<double>(kib) * 1024 / t * 1e-9);
  }
  // A product that lives in the first-level cache: what attention's own tiles can reach.
  Buffer q({1, 64, 1, 64}), k({1, 64, 1, 64}), v({1, 64, 1, 64}), out({1, 64, 1, 64});
  AttentionOptions options{.scale = 0.125};
  flops_row("attention forward on one block (64 x 64 x 64)", 4.0 * 64 * 64 * 64, [&] { cpu::attention_forward(context, out, {}, q, k, v, options); });
}

void attention(const char* name, std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t G, std::int64_t D, bool causal) {
  Buffer fused({B, T, H + 2 * G, D}), g({B, T, H, D}), out({B, T, H, D}), lse({B, H, T}), dq({B, T, H, D}), dk({B, T, G, D}), dv({B, T, G, D});
  Strided q = fused, k = fused, v = fused;
  q.shape[2] = H;
  k.shape[2] = v.shape[2] = G;
  k.data = q.as<float>() + H * D;
  v.data = q.as<float>() + (H + G) * D;
  AttentionOptions options{.scale = 0.125, .causal = causal};
  // Multiply-adds of the pairs that are allowed; the backward has five products to the forward's two.
  const double pairs = static_cast<double>(B * H) * static_cast<double>(causal ? T * (T + 1) / 2 : T * T), forward = 4 * pairs * static_cast<double>(D);
  flops_row(std::string("attention forward ") + name, forward, [&] { cpu::attention_forward(context, out, lse, q, k, v, options); });
  flops_row(std::string("attention backward ") + name, 2.5 * forward, [&] { cpu::attention_backward(context, dq, dk, dv, g, out, lse, q, k, v, options); });
}

void decode(const char* name, std::int64_t Tk, std::int64_t H, std::int64_t G, std::int64_t D) {
  Buffer q({1, 1, H, D}), out({1, 1, H, D}), k({1, Tk, G, D}), v({1, Tk, G, D});
  AttentionOptions options{.scale = 0.125, .causal = true};
  bytes_row(std::string("attention step ") + name, 8.0 * static_cast<double>(Tk * G * D), [&] { cpu::attention_forward(context, out, {}, q, k, v, options); });
}

}  // namespace

// kernels [threads] [name]: all kernels, or those whose name holds the text.
int main(int argc, char** argv) {
  set_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  if (argc > 2) filter = argv[2];
  std::printf("instruction set %s, %d thread(s)\n", std::string(cpu::isa_name(cpu::active_isa())).c_str(), threads());
  probes();
  attention("GPT-2 B=4 T=128", 4, 128, 12, 12, 64, true);
  attention("GPT-2 B=1 T=512", 1, 512, 12, 12, 64, true);
  attention("GPT-2 B=1 T=1024", 1, 1024, 12, 12, 64, true);
  attention("SmolLM2 B=1 T=512", 1, 512, 9, 3, 64, true);
  attention("SmolLM2 B=1 T=1024", 1, 1024, 9, 3, 64, true);
  attention("MiniLM B=8 T=128 D=32", 8, 128, 12, 12, 32, false);
  attention("D=128 T=512", 1, 512, 8, 8, 128, true);
  decode("GPT-2 Tk=1024", 1024, 12, 12, 64);
  decode("SmolLM2 Tk=2048", 2048, 9, 3, 64);
  decode("7B Tk=4096", 4096, 32, 32, 128);
  return 0;
}
