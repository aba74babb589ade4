// Attention in float64, query by query; also the yardstick of the tiled one in the tests.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_plain.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

// Keys [begin, end) that query i of a row may attend to, apart from the key mask.
struct KeyRange {
  std::int64_t begin, end;
};

KeyRange keys_of(const AttentionOptions& options, std::int64_t i, std::int64_t Tq, std::int64_t Tk) {
  std::int64_t position = i + Tk - Tq;
  KeyRange keys{0, Tk};
  if (options.starts) {
    const std::int32_t* starts = options.starts.as<std::int32_t>();
    const std::int64_t sequences = options.starts.shape[0] - 1;
    keys = {0, 0};
    position = i;
    for (std::int64_t s = 0; s < sequences; ++s)
      if (i >= starts[s] && i < starts[s + 1]) keys = {starts[s], starts[s + 1]};
  }
  if (options.causal) keys.end = std::min(keys.end, position + 1);
  if (options.window > 0) keys.begin = std::max(keys.begin, position - options.window + 1);
  return keys;
}

template <class T>
T* row_of(const Strided& s, std::int64_t b, std::int64_t t, std::int64_t h) {
  return s.as<T>() + b * s.strides[0] + t * s.strides[1] + h * s.strides[2];
}

// The scaled, biased and masked score of one query and key; -inf where the key may not be attended to.
template <class T>
acc_t<T> score(const AttentionOptions& options, const T* q, const T* k, std::int64_t D, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  using A = acc_t<T>;
  if (options.key_mask && !options.key_mask.as<bool>()[b * options.key_mask.strides[0] + j * options.key_mask.strides[1]])
    return -std::numeric_limits<A>::infinity();
  A sum = 0;
  for (std::int64_t d = 0; d < D; ++d) sum += convert<A>(q[d]) * convert<A>(k[d]);
  sum *= static_cast<A>(options.scale);
  if (options.bias) {
    const Strided& s = options.bias;
    const std::int64_t offset = b * s.strides[0] + h * s.strides[1] + i * s.strides[2] + j * s.strides[3];
    visit_float(s.dtype, "attention", [&](auto tag) { sum += convert<A>(s.as<typename decltype(tag)::type>()[offset]); });
  }
  return sum;
}

}  // namespace

void attention_forward_plain(Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions& options) {
  const std::int64_t B = q.shape[0], Tq = q.shape[1], H = q.shape[2], D = q.shape[3], Tk = k.shape[1], G = k.shape[2];
  visit_float(q.dtype, "attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(B * H, [&](std::int64_t task) {
      const std::int64_t b = task / H, h = task % H, group = h / (H / G);
      std::vector<A> p(static_cast<std::size_t>(Tk)), sum(static_cast<std::size_t>(D));
      for (std::int64_t i = 0; i < Tq; ++i) {
        const KeyRange keys = keys_of(options, i, Tq, Tk);
        A top = -std::numeric_limits<A>::infinity(), total = 0;
        for (std::int64_t j = keys.begin; j < keys.end; ++j) {
          p[static_cast<std::size_t>(j)] = score(options, row_of<T>(q, b, i, h), row_of<T>(k, b, j, group), D, b, h, i, j);
          top = std::max(top, p[static_cast<std::size_t>(j)]);
        }
        std::fill(sum.begin(), sum.end(), A(0));
        const bool any = top > -std::numeric_limits<A>::infinity();
        for (std::int64_t j = keys.begin; any && j < keys.end; ++j) {
          const A weight = std::exp(p[static_cast<std::size_t>(j)] - top);
          total += weight;
          const T* value = row_of<T>(v, b, j, group);
          for (std::int64_t d = 0; d < D; ++d) sum[static_cast<std::size_t>(d)] += weight * convert<A>(value[d]);
        }
        T* o = row_of<T>(out, b, i, h);
        for (std::int64_t d = 0; d < D; ++d) o[d] = convert<T>(any ? sum[static_cast<std::size_t>(d)] / total : A(0));
        if (lse) lse.as<A>()[(b * H + h) * Tq + i] = any ? top + std::log(total) : top;
      }
    });
  });
}

void attention_backward_plain(Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v,
                              const AttentionOptions& options) {
  const std::int64_t B = q.shape[0], Tq = q.shape[1], H = q.shape[2], D = q.shape[3], Tk = k.shape[1], G = k.shape[2], heads = H / G;
  visit_float(q.dtype, "attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    parallel_for(B * G, [&](std::int64_t task) {
      const std::int64_t b = task / G, group = task % G;
      std::vector<A> key_sum(static_cast<std::size_t>(Tk * D)), value_sum(static_cast<std::size_t>(Tk * D)), query_sum(static_cast<std::size_t>(D));
      for (std::int64_t h = group * heads; h < (group + 1) * heads; ++h) {
        for (std::int64_t i = 0; i < Tq; ++i) {
          const KeyRange keys = keys_of(options, i, Tq, Tk);
          const A total = lse.as<A>()[(b * H + h) * Tq + i];
          const T *gi = row_of<T>(g, b, i, h), *oi = row_of<T>(out, b, i, h), *qi = row_of<T>(q, b, i, h);
          A delta = 0;
          for (std::int64_t d = 0; d < D; ++d) delta += convert<A>(gi[d]) * convert<A>(oi[d]);
          std::fill(query_sum.begin(), query_sum.end(), A(0));
          for (std::int64_t j = keys.begin; j < keys.end && total > -std::numeric_limits<A>::infinity(); ++j) {
            const T *kj = row_of<T>(k, b, j, group), *vj = row_of<T>(v, b, j, group);
            const A p = std::exp(score(options, qi, kj, D, b, h, i, j) - total);
            A dp = 0;
            for (std::int64_t d = 0; d < D; ++d) dp += convert<A>(gi[d]) * convert<A>(vj[d]);
            const A ds = p * (dp - delta) * static_cast<A>(options.scale);
            for (std::int64_t d = 0; d < D; ++d) {
              const auto at = static_cast<std::size_t>(j * D + d);
              value_sum[at] += p * convert<A>(gi[d]);
              key_sum[at] += ds * convert<A>(qi[d]);
              query_sum[static_cast<std::size_t>(d)] += ds * convert<A>(kj[d]);
            }
          }
          if (dq) for (std::int64_t d = 0; d < D; ++d) row_of<T>(dq, b, i, h)[d] = convert<T>(query_sum[static_cast<std::size_t>(d)]);
        }
      }
      for (std::int64_t j = 0; j < Tk; ++j) {
        for (std::int64_t d = 0; d < D; ++d) {
          if (dk) row_of<T>(dk, b, j, group)[d] = convert<T>(key_sum[static_cast<std::size_t>(j * D + d)]);
          if (dv) row_of<T>(dv, b, j, group)[d] = convert<T>(value_sum[static_cast<std::size_t>(j * D + d)]);
        }
      }
    });
  });
}

}  // namespace cambium::kernels::cpu
