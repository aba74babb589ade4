// Matrix products of strided operands: checks their layout and chooses the route.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdlib>
#include <string_view>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_driver.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kFew = 16;  // lines of the small side that the dot route takes

GemmRoute route_from_environment() {
  const char* text = std::getenv("CAMBIUM_GEMM");
  const std::string_view name = text ? text : "";
  check<ConfigError>(name.empty() || name == "own" || name == "openblas", "CAMBIUM_GEMM: expected own or openblas, found ", name);
  return name == "openblas" ? GemmRoute::openblas : GemmRoute::own;
}

constexpr int kUnknown = -1;
std::atomic<int> chosen_route{kUnknown};

std::int64_t batch_step(const Strided& s) { return s.rank > 2 ? s.strides[0] : 0; }

/// Strides of a side of size 1 mean nothing: 1 where the other side is not dense, so that it counts as dense.
void tidy(std::int64_t lines, std::int64_t k, GemmSource& s) {
  if (k <= 1) s.k = s.line == 1 && lines > 1 ? lines : 1;
  if (lines <= 1) s.line = s.k == 1 ? k : 1;
}

template <class T>
GemmProblem<T> problem_of(const Strided& c, const Strided& a, const Weight& weight, const GemmOptions& o) {
  const Strided& b = weight.dense;
  GemmProblem<T> s{};
  s.batch = c.rank > 2 ? c.shape[0] : 1;
  s.M = c.size(-2);
  s.N = c.size(-1);
  s.K = a.size(-1);
  s.a = {a.data, storage_of(a.dtype), a.stride(-2), a.stride(-1)};
  s.b = {b.data, storage_of(b.dtype), b.stride(-1), b.stride(-2)};
  s.c = {c.data, storage_of(c.dtype), c.stride(-2), c.stride(-1), static_cast<T>(o.alpha), static_cast<T>(o.beta), nullptr, false, static_cast<GemmActivation>(o.activation)};
  s.a_step = batch_step(a);
  s.b_step = batch_step(b);
  s.c_step = batch_step(c);
  // A batch that shares B is one taller product.
  if (s.batch > 1 && s.b_step == 0 && (s.M == 1 || (s.a_step == s.M * s.a.line && s.c_step == s.M * s.c.row))) {
    if (s.M == 1) s.a.line = s.a_step, s.c.row = s.c_step;
    s.M *= s.batch;
    s.batch = 1;
  }
  tidy(s.M, s.K, s.a);
  tidy(s.N, s.K, s.b);
  if (s.N == 1 && s.c.row != 1) s.c.column = 1;
  if (s.M == 1) s.c.row = s.c.column == 1 ? s.N : 1;
  s.prepacked = weight.format == Weight::Format::packed ? weight.packed : nullptr;
  return s;
}

template <class T>
void no_sums(const GemmFunctions<T>& f, const GemmProblem<T>& s) {
  const T zeros[64] = {};
  for (std::int64_t item = 0; item < s.batch; ++item)
    for (std::int64_t j = 0; j < s.N; j += 64) f.finish(zeros, 0, s.M, std::min<std::int64_t>(64, s.N - j), 0, j, s.c_of(item));
}

template <class T>
void run_packed(const GemmFunctions<T>& f, GemmProblem<T>& s) {
  // Vectors run along the longer side of C, and along the dense one.
  const bool narrow = s.N < f.panel_columns / 2 && s.M > s.N;
  if (!s.prepacked && s.M > f.panel_rows / 2 && (narrow || (s.c.row == 1 && s.c.column != 1))) s.turn();
  gemm_packed(f, s);
}

/// The routes for few lines on one side; false if there are too many.
bool run_skinny(const GemmTable& table, GemmProblem<float>& s) {
  if (s.prepacked) return false;
  const bool rows = s.M <= kFew && s.b.k == 1, columns = s.N <= kFew && s.a.k == 1;
  if (rows || columns) {
    if (!rows || (columns && s.N < s.M)) s.turn();
    gemm_dot(table, s);
    return true;
  }
  if (s.N <= 4 && s.a.line == 1 && !(s.M <= 4 && s.b.line == 1)) s.turn();
  if (s.M <= 4 && s.b.line == 1) {
    gemm_accumulate(table, s);
    return true;
  }
  return false;
}

template <class T>
void run(const Strided& c, const Strided& a, const Weight& b, const GemmOptions& o) {
  const GemmTable& table = *isa().gemm;
  GemmProblem<T> s = problem_of<T>(c, a, b, o);
  const GemmFunctions<T>* f;
  if constexpr (sizeof(T) == 8) f = &table.twice; else f = &table.single;
  if (s.batch == 0 || s.M == 0 || s.N == 0) return;
  const bool copied = o.bias && (o.bias.dtype != dtype_of<T> || (o.bias.strides[0] != 1 && c.size(-1) > 1));
  const Scratch<T> bias(copied ? c.size(-1) : 0);
  if (copied) f->gather(bias.data(), s.N, {o.bias.data, storage_of(o.bias.dtype), 0, o.bias.strides[0]}, 1, c.size(-1));
  if (o.bias) s.c.bias = copied ? bias.data() : o.bias.as<T>();
  if (s.K == 0) return no_sums(*f, s);
  if (!s.prepacked && gemm_route() == GemmRoute::openblas && gemm_openblas(*f, s)) return;
  if constexpr (sizeof(T) == 4)
    if (run_skinny(table, s)) return;
  run_packed(*f, s);
}

}  // namespace

GemmRoute gemm_route() {
  int route = chosen_route.load(std::memory_order_relaxed);
  if (route == kUnknown) {
    route = static_cast<int>(route_from_environment());
    chosen_route.store(route, std::memory_order_relaxed);
  }
  return static_cast<GemmRoute>(route);
}
void set_gemm_route(GemmRoute route) { chosen_route.store(static_cast<int>(route), std::memory_order_relaxed); }

std::int64_t packed_weight_bytes(const Strided& weight) {
  const std::int64_t lanes = isa().gemm->single.panel_columns / 2;
  return (weight.size(-1) + lanes - 1) / lanes * lanes * weight.size(-2) * 4;
}

void pack_weight(void* to, const Strided& weight) {
  assert(weight.dtype != DType::f64);
  const GemmFunctions<float>& f = isa().gemm->single;
  const std::int64_t K = weight.size(-2), N = weight.size(-1), W = f.panel_columns, lanes = W / 2, all = (N + lanes - 1) / lanes * lanes;
  const std::int64_t range = range_of<float>(K);
  GemmSource source{weight.data, storage_of(weight.dtype), weight.stride(-1), weight.stride(-2)};
  tidy(N, K, source);
  parallel_for((N + W - 1) / W, [&](std::int64_t panel) {
    for (std::int64_t from = 0; from < K; from += range) {
      const std::int64_t length = std::min(range, K - from), column = panel * W;
      f.pack_columns(static_cast<float*>(to) + from * all + column * length, GemmProblem<float>::moved(source, column * source.line + from * source.k),
                     std::min(W, N - column), length);
    }
  });
}

void gemm(Context&, Strided c, Strided a, const Weight& b, const GemmOptions& o) {
  assert(c.size(-2) == a.size(-2) && (!b.packed || b.format == Weight::Format::packed));
  if (c.dtype == DType::f64) run<double>(c, a, b, o);
  else run<float>(c, a, b, o);
}

}  // namespace cambium::kernels::cpu
