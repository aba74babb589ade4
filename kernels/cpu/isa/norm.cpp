// Layer and RMS normalisation of rows: sums in four chains of vectors, then over the lanes by a fixed tree.
#include "kernels/cpu/isa/norm.h"

#include "kernels/cpu/isa/element_visit.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

// Calls f(i, lanes) for whole vectors and once for the rest of a row.
template <class F>
inline void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}
template <class T> inline vf load_lanes(const T* p, int lanes) { return lanes == kLanes ? load(p) : load_partial(p, lanes); }
template <class T> inline void store_lanes(T* p, vf x, int lanes) {
  if (lanes == kLanes) store(p, x);
  else store_partial(p, x, lanes);
}

// Sum of f(i, lanes) over a row.
template <class F>
inline float sum_of(int64_t n, F f) {
  vf a{}, b{}, c{}, d{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a += f(i, kLanes);
    b += f(i + kLanes, kLanes);
    c += f(i + 2 * kLanes, kLanes);
    d += f(i + 3 * kLanes, kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) a += f(i, kLanes);
  if (i < n) b += f(i, static_cast<int>(n - i));
  return sum((a + b) + (c + d));
}

// Lanes past the end of a row hold 0 in `x`, but not in x - mean.
inline vf only(vf x, int lanes) {
  if (lanes == kLanes) return x;
  float t[kLanes];
  store(t, x);
  return load_partial(t, lanes);
}

template <class T>
void layer_forward_rows(T* y, float* mean, float* rstd, const T* x, const T* gamma, const T* beta, int64_t rows, int64_t n, float epsilon) {
  const float share = 1.0F / static_cast<float>(n);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const float m = sum_of(n, [&](int64_t i, int lanes) { return load_lanes(x + i, lanes); }) * share;
    const vf vm = set(m);
    const float variance = sum_of(n, [&](int64_t i, int lanes) { const vf d = only(load_lanes(x + i, lanes) - vm, lanes); return d * d; }) * share;
    const float s = 1.0F / sqrt(set(variance + epsilon))[0];
    const vf vs = set(s);
    for_vectors(n, [&](int64_t i, int lanes) {
      vf v = (load_lanes(x + i, lanes) - vm) * vs;
      if (gamma) v *= load_lanes(gamma + i, lanes);
      if (beta) v += load_lanes(beta + i, lanes);
      store_lanes(y + i, v, lanes);
    });
    if (mean) mean[r] = m;
    if (rstd) rstd[r] = s;
  }
}

template <class T>
void rms_forward_rows(T* y, float* rstd, const T* x, const T* gamma, int64_t rows, int64_t n, float epsilon) {
  const float share = 1.0F / static_cast<float>(n);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const float squares = sum_of(n, [&](int64_t i, int lanes) { const vf v = load_lanes(x + i, lanes); return v * v; }) * share;
    const float s = 1.0F / sqrt(set(squares + epsilon))[0];
    const vf vs = set(s);
    for_vectors(n, [&](int64_t i, int lanes) {
      vf v = load_lanes(x + i, lanes) * vs;
      if (gamma) v *= load_lanes(gamma + i, lanes);
      store_lanes(y + i, v, lanes);
    });
    if (rstd) rstd[r] = s;
  }
}

// One body for both norms: kCentred subtracts means, as layer norm does. h = (x - mean) rstd, d = g gamma:
// dx = rstd (d - mean(d) - h mean(d h)), dgamma = sum g h, dbeta = sum g.
template <bool kCentred, class T>
void backward_rows(T* dx, float* dgamma, float* dbeta, const T* g, const T* x, const float* mean, const float* rstd, const T* gamma, int64_t rows, int64_t n) {
  const float share = 1.0F / static_cast<float>(n);
  if (dgamma) memset(dgamma, 0, static_cast<size_t>(n) * sizeof(float));
  if (dbeta) memset(dbeta, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t r = 0; r < rows; ++r, x += n, g += n) {
    const vf vm = set(kCentred ? mean[r] : 0.0F), vs = set(rstd[r]);
    const auto hat = [&](int64_t i, int lanes) { return kCentred ? (load_lanes(x + i, lanes) - vm) * vs : load_lanes(x + i, lanes) * vs; };
    const auto scaled = [&](int64_t i, int lanes) { return gamma ? load_lanes(g + i, lanes) * load_lanes(gamma + i, lanes) : load_lanes(g + i, lanes); };
    if (dx) {
      const float c1 = kCentred ? sum_of(n, [&](int64_t i, int lanes) { return scaled(i, lanes); }) * share : 0.0F;
      const float c2 = sum_of(n, [&](int64_t i, int lanes) { return scaled(i, lanes) * hat(i, lanes); }) * share;
      T* to = dx + r * n;
      for_vectors(n, [&](int64_t i, int lanes) { store_lanes(to + i, (scaled(i, lanes) - c1 - hat(i, lanes) * c2) * vs, lanes); });
    }
    if (dgamma) for_vectors(n, [&](int64_t i, int lanes) { store_lanes(dgamma + i, fma(load_lanes(g + i, lanes), hat(i, lanes), load_lanes(dgamma + i, lanes)), lanes); });
    if (dbeta) for_vectors(n, [&](int64_t i, int lanes) { store_lanes(dbeta + i, load_lanes(dbeta + i, lanes) + load_lanes(g + i, lanes), lanes); });
  }
}

void layer_forward(Element type, void* y, float* mean, float* rstd, const void* x, const void* gamma, const void* beta, int64_t rows, int64_t n, float epsilon) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    layer_forward_rows(static_cast<T*>(y), mean, rstd, static_cast<const T*>(x), static_cast<const T*>(gamma), static_cast<const T*>(beta), rows, n, epsilon);
  });
}
void rms_forward(Element type, void* y, float* rstd, const void* x, const void* gamma, int64_t rows, int64_t n, float epsilon) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    rms_forward_rows(static_cast<T*>(y), rstd, static_cast<const T*>(x), static_cast<const T*>(gamma), rows, n, epsilon);
  });
}
void layer_backward(Element type, void* dx, float* dgamma, float* dbeta, const void* g, const void* x, const float* mean, const float* rstd, const void* gamma, int64_t rows,
                    int64_t n) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    backward_rows<true>(static_cast<T*>(dx), dgamma, dbeta, static_cast<const T*>(g), static_cast<const T*>(x), mean, rstd, static_cast<const T*>(gamma), rows, n);
  });
}
void rms_backward(Element type, void* dx, float* dgamma, const void* g, const void* x, const float* rstd, const void* gamma, int64_t rows, int64_t n) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    backward_rows<false>(static_cast<T*>(dx), dgamma, nullptr, static_cast<const T*>(g), static_cast<const T*>(x), nullptr, rstd, static_cast<const T*>(gamma), rows, n);
  });
}

void sum_blocks(Element type, void* out, float* partial, int64_t blocks, int64_t stride, int64_t n) {
  for (int64_t step = 1; step < blocks; step *= 2)
    for (int64_t b = 0; b + step < blocks; b += 2 * step)
      for_vectors(n, [&](int64_t i, int lanes) {
        float *to = partial + b * stride + i, *from = partial + (b + step) * stride + i;
        store_lanes(to, load_lanes(to, lanes) + load_lanes(from, lanes), lanes);
      });
  visit_element(type, [&](auto* p) { store_row(static_cast<Pointee<decltype(p)>*>(out), partial, n, 1.0F); });
}

}  // namespace

extern const NormTable norm_table;
constinit const NormTable norm_table = {
    .layer_forward = layer_forward,
    .rms_forward = rms_forward,
    .layer_backward = layer_backward,
    .rms_backward = rms_backward,
    .sum_blocks = sum_blocks,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
