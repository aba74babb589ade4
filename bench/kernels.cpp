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

// Bytes are those that must be read and written once; what stays in a cache between two passes counts once.
void elementwise(const std::string& name, std::int64_t rows, std::int64_t n) {
  Buffer x({rows, n}, 3.0F), y({rows, n}), out({rows, n}), b({n});
  const double size = 4.0 * static_cast<double>(rows * n);
  Strided row = b;
  row.rank = 2;
  row.shape[0] = rows, row.shape[1] = n, row.strides[0] = 0, row.strides[1] = 1;
  bytes_row("add " + name, 3 * size, [&] { cpu::binary(context, BinaryFunction::add, out, x, y); });
  bytes_row("add a row " + name, 2 * size, [&] { cpu::binary(context, BinaryFunction::add, out, x, row); });
  bytes_row("mul_scalar " + name, 2 * size, [&] { cpu::unary(context, UnaryFunction::mul_scalar, out, x, 0.5, 0); });
  bytes_row("exp " + name, 2 * size, [&] { cpu::unary(context, UnaryFunction::exp, out, x, 0, 0); });
  bytes_row("gelu_tanh " + name, 2 * size, [&] { cpu::unary(context, UnaryFunction::gelu_tanh, out, x, 0, 0); });
  bytes_row("gelu_tanh backward " + name, 3 * size, [&] { cpu::unary_backward(context, UnaryFunction::gelu_tanh, out, y, x, 0, 0); });
  bytes_row("gelu_erf " + name, 2 * size, [&] { cpu::unary(context, UnaryFunction::gelu_erf, out, x, 0, 0); });
  bytes_row("gelu_erf backward " + name, 3 * size, [&] { cpu::unary_backward(context, UnaryFunction::gelu_erf, out, y, x, 0, 0); });
  bytes_row("dropout " + name, 2 * size, [&] { cpu::dropout(context, out, x, 0.1, 1, 2); });
}

void gated(const std::string& name, std::int64_t rows, std::int64_t n) {
  Buffer gate({rows, n}, 3.0F), up({rows, n}), g({rows, n}), out({rows, n}), dup({rows, n});
  const double size = 4.0 * static_cast<double>(rows * n);
  bytes_row("silu gate " + name, 3 * size, [&] { cpu::gated(context, UnaryFunction::silu, out, gate, up); });
  bytes_row("silu gate backward " + name, 5 * size, [&] { cpu::gated_backward(context, UnaryFunction::silu, out, dup, g, gate, up); });
}

void norms(const std::string& name, std::int64_t rows, std::int64_t n) {
  Buffer x({rows, n}), y({rows, n}), g({rows, n}), dx({rows, n}), gamma({n}), beta({n}), dgamma({n}), dbeta({n}), mean({rows}), rstd({rows});
  const double size = 4.0 * static_cast<double>(rows * n);
  bytes_row("layer_norm " + name, 2 * size, [&] { cpu::layer_norm_forward(context, y, mean, rstd, x, gamma, beta, 1e-5); });
  bytes_row("layer_norm backward, frozen " + name, 3 * size, [&] { cpu::layer_norm_backward(context, dx, {}, {}, g, x, mean, rstd, gamma); });
  bytes_row("layer_norm backward, all " + name, 3 * size, [&] { cpu::layer_norm_backward(context, dx, dgamma, dbeta, g, x, mean, rstd, gamma); });
  bytes_row("rms_norm " + name, 2 * size, [&] { cpu::rms_norm_forward(context, y, rstd, x, gamma, 1e-5); });
  bytes_row("rms_norm backward, frozen " + name, 3 * size, [&] { cpu::rms_norm_backward(context, dx, {}, g, x, rstd, gamma); });
  bytes_row("softmax " + name, 2 * size, [&] { cpu::softmax_forward(context, y, x, false); });
  bytes_row("softmax backward " + name, 3 * size, [&] { cpu::softmax_backward(context, dx, g, y, false); });
}

void loss(const std::string& name, std::int64_t rows, std::int64_t n) {
  Buffer logits({rows, n}, 3.0F), losses({rows}), lse({rows}), g({rows});
  std::vector<std::int64_t> target(static_cast<std::size_t>(rows), 17);
  Strided targets;
  targets.data = target.data();
  targets.dtype = DType::i64;
  targets.rank = 1;
  targets.shape[0] = rows;
  targets.strides[0] = 1;
  Buffer dlogits({rows, n});
  const double size = 4.0 * static_cast<double>(rows * n);
  bytes_row("cross entropy " + name, size, [&] { cpu::cross_entropy_forward(context, losses, lse, logits, targets, {}, -100, 0); });
  bytes_row("cross entropy backward " + name, 2 * size, [&] { cpu::cross_entropy_backward(context, dlogits, g, logits, lse, targets, {}, -100, 0); });
}

void rotary(const std::string& name, std::int64_t T, std::int64_t H, std::int64_t D) {
  Buffer x({1, T, H, D}), out({1, T, H, D}), frequencies({D / 2});
  std::vector<std::int64_t> position(static_cast<std::size_t>(T));
  for (std::int64_t t = 0; t < T; ++t) position[static_cast<std::size_t>(t)] = t;
  Strided positions;
  positions.data = position.data();
  positions.dtype = DType::i64;
  positions.rank = 2;
  positions.shape[0] = 1, positions.shape[1] = T, positions.strides[0] = T, positions.strides[1] = 1;
  const double size = 8.0 * static_cast<double>(T * H * D);
  bytes_row("rotary " + name, size, [&] { cpu::rotary(context, out, x, positions, frequencies, 1, false, false); });
  bytes_row("rotary interleaved " + name, size, [&] { cpu::rotary(context, out, x, positions, frequencies, 1, true, false); });
}

void optimizer(const std::string& name, std::int64_t tensors, std::int64_t n) {
  std::vector<Buffer> p, g, m, v;
  std::vector<OptimizerTensor> list;
  for (std::int64_t k = 0; k < tensors; ++k) {
    p.emplace_back(std::vector{n});
    g.emplace_back(std::vector{n});
    m.emplace_back(std::vector{n}, 0.0F);
    v.emplace_back(std::vector{n}, 0.0F);
  }
  for (std::size_t k = 0; k < p.size(); ++k) list.push_back({p[k], g[k], m[k], v[k]});
  bytes_row("adamw " + name, 28.0 * static_cast<double>(tensors * n), [&] {
    cpu::adamw(context, list.data(), static_cast<int>(list.size()), {.learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01, .step = 10});
  });
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
  elementwise("512 x 768", 512, 768);
  elementwise("512 x 3072", 512, 3072);
  gated("512 x 1536", 512, 1536);
  norms("512 x 768", 512, 768);
  norms("512 x 576", 512, 576);
  norms("4096 x 768", 4096, 768);
  loss("512 x 50257", 512, 50257);
  loss("512 x 49152", 512, 49152);
  rotary("512 x 9 x 64", 512, 9, 64);
  optimizer("24 tensors of 18432", 24, 18432);
  optimizer("one tensor of 38.6 M", 1, 38597376);
  return 0;
}
