// Softmax of rows and cross entropy. Long rows are taken in pieces that stay in the first-level cache, with a running maximum.
#include "kernels/cpu/isa/softmax.h"

#include "kernels/cpu/isa/element_visit.h"
#include "kernels/cpu/isa/math.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {
namespace {

constexpr int64_t kPiece = 4096;

template <class T> inline vf load_or(const T* p, int lanes, float other) {
  if (lanes == kLanes) return load(p);
  float t[kLanes];
  store(t, set(other));
  store_partial(t, load_partial(p, lanes), lanes);
  return load(t);
}
template <class T> inline void store_lanes(T* p, vf x, int lanes) {
  if (lanes == kLanes) store(p, x);
  else store_partial(p, x, lanes);
}
template <class F>
inline void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}

template <class T>
inline float maximum_of(const T* x, int64_t n) {
  vf a = set(-kInfinity), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a = max(a, load(x + i));
    b = max(b, load(x + i + kLanes));
    c = max(c, load(x + i + 2 * kLanes));
    d = max(d, load(x + i + 3 * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) a = max(a, load(x + i));
  if (i < n) b = max(b, load_or(x + i, static_cast<int>(n - i), -kInfinity));
  return max_of(max(max(a, b), max(c, d)));
}

// Sum of e^(x - base), kept in `keep` if given.
template <class T>
inline float exponentials(float* keep, const T* x, int64_t n, float base) {
  vf a{}, b{};
  const vf vb = set(base);
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const vf p = exp_negative(load(x + i) - vb), q = exp_negative(load(x + i + kLanes) - vb);
    if (keep) store(keep + i, p), store(keep + i + kLanes, q);
    a += p;
    b += q;
  }
  for (; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const vf p = exp_negative(load_or(x + i, lanes, -kInfinity) - vb);
    if (keep) store_lanes(keep + i, p, lanes);
    a += p;
  }
  return sum(a + b);
}

struct Statistics { float maximum; double total; };  // sum_i e^x_i = total e^maximum

template <class T>
Statistics statistics_of(const T* x, int64_t n) {
  Statistics s{-kInfinity, 0.0};
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = n - begin < kPiece ? n - begin : kPiece;
    const float m = maximum_of(x + begin, count);
    if (m > s.maximum) {
      s.total *= static_cast<double>(vexp(set(s.maximum - m))[0]);
      s.maximum = m;
    }
    s.total += static_cast<double>(exponentials(nullptr, x + begin, count, s.maximum == -kInfinity ? 0.0F : s.maximum));
  }
  return s;
}

double log_of(double total) { return __builtin_log(total); }

template <class T>
void forward_rows(T* y, const T* x, int64_t rows, int64_t n, bool logarithm) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    if (!logarithm && sizeof(T) == sizeof(float)) {
      const float m = maximum_of(x, n);
      float* to = reinterpret_cast<float*>(y);
      double total = 0;
      for (int64_t begin = 0; begin < n; begin += kPiece)
        total += static_cast<double>(exponentials(to + begin, x + begin, n - begin < kPiece ? n - begin : kPiece, m));
      const vf inverse = set(static_cast<float>(1.0 / total));
      for_vectors(n, [&](int64_t i, int lanes) { store_lanes(to + i, load_or(to + i, lanes, 0.0F) * inverse, lanes); });
      continue;
    }
    const Statistics s = statistics_of(x, n);
    const vf m = set(s.maximum), log_total = set(static_cast<float>(log_of(s.total))), inverse = set(static_cast<float>(1.0 / s.total));
    for_vectors(n, [&](int64_t i, int lanes) {
      const vf shifted = load_or(x + i, lanes, 0.0F) - m;
      store_lanes(y + i, logarithm ? shifted - log_total : exp_negative(shifted) * inverse, lanes);
    });
  }
}

template <class T>
void backward_rows(T* dx, const T* g, const T* y, int64_t rows, int64_t n, bool logarithm) {
  for (int64_t r = 0; r < rows; ++r, dx += n, g += n, y += n) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += kPiece) {
      vf a{}, b{};
      const int64_t count = n - begin < kPiece ? n - begin : kPiece;
      for_vectors(count, [&](int64_t i, int lanes) {
        const vf vg = load_or(g + begin + i, lanes, 0.0F), term = logarithm ? vg : vg * load_or(y + begin + i, lanes, 0.0F);
        if (i / kLanes % 2) a += term;
        else b += term;
      });
      total += static_cast<double>(sum(a + b));
    }
    const vf vt = set(static_cast<float>(total));
    for_vectors(n, [&](int64_t i, int lanes) {
      const vf vg = load_or(g + i, lanes, 0.0F), vy = load_or(y + i, lanes, 0.0F);
      store_lanes(dx + i, logarithm ? vg - vexp(vy) * vt : vy * (vg - vt), lanes);
    });
  }
}

template <class T>
double log_sum_exp_row(const T* x, const T* weights, int64_t n, double* smooth) {
  const Statistics s = statistics_of(x, n);
  const double lse = static_cast<double>(s.maximum) + log_of(s.total);
  if (!smooth) return lse;
  *smooth = 0;
  const vf top = set(static_cast<float>(lse));
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    vf total{};
    for_vectors(n - begin < kPiece ? n - begin : kPiece, [&](int64_t i, int lanes) {
      const vf gap = top - load_or(x + begin + i, lanes, static_cast<float>(lse));
      total += weights ? gap * load_or(weights + begin + i, lanes, 0.0F) : gap;
    });
    *smooth += static_cast<double>(sum(total));
  }
  return lse;
}

template <class T>
void cross_entropy_row(T* out, const T* x, const T* weights, int64_t n, float lse, int64_t target, float slope, float share, float hard) {
  const vf top = set(lse), vslope = set(slope), vshare = set(share);
  const vf at_target = exp_negative(set(value_of(x[target])) - top) * vslope - (weights ? set(value_of(weights[target])) * vshare : vshare) - hard;
  for_vectors(n, [&](int64_t i, int lanes) {
    const vf p = exp_negative(load_or(x + i, lanes, 0.0F) - top);
    store_lanes(out + i, p * vslope - (weights ? load_or(weights + i, lanes, 0.0F) * vshare : vshare), lanes);
  });
  put(out + target, at_target[0]);
}

void forward(Element type, void* y, const void* x, int64_t rows, int64_t n, bool logarithm) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    forward_rows(static_cast<T*>(y), static_cast<const T*>(x), rows, n, logarithm);
  });
}
void backward(Element type, void* dx, const void* g, const void* y, int64_t rows, int64_t n, bool logarithm) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    backward_rows(static_cast<T*>(dx), static_cast<const T*>(g), static_cast<const T*>(y), rows, n, logarithm);
  });
}
double log_sum_exp(Element type, const void* x, const void* weights, int64_t n, double* smooth) {
  double lse = 0;
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    lse = log_sum_exp_row(static_cast<const T*>(x), static_cast<const T*>(weights), n, smooth);
  });
  return lse;
}
void cross_entropy_backward(Element type, void* out, const void* x, const void* weights, int64_t n, float lse, int64_t target, float slope, float share, float hard) {
  visit_element(type, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    cross_entropy_row(static_cast<T*>(out), static_cast<const T*>(x), static_cast<const T*>(weights), n, lse, target, slope, share, hard);
  });
}

}  // namespace

extern const SoftmaxTable softmax_table;
constinit const SoftmaxTable softmax_table = {
    .forward = forward,
    .backward = backward,
    .log_sum_exp = log_sum_exp,
    .cross_entropy_backward = cross_entropy_backward,
};

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
