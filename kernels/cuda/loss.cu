// Cross entropy of rows of logits with class weights, ignored rows and label smoothing: one pass over the logits forward, one backward.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kColumnThreads = 256;              // of a block of the backward,
constexpr std::int64_t kColumnsOfThread = 64;    // each of whose threads takes that many columns at most

// smoothing/V sum_v w_v (lse - x_v) comes from sums of w_v and w_v (x_v - pivot), the pivot being the target's logit, so that large logits do not cancel.
template <class T, int kWidth, int kTeam>
__global__ void __launch_bounds__(kTeam == kLanes ? kRowThreads : kTeam)
    cross_entropy_rows(acc_t<T>* loss, acc_t<T>* lse, const T* logits, const std::int64_t* targets, const T* weights, std::int64_t rows, std::int64_t n,
                       std::int64_t ignore_index, acc_t<T> smoothing) {
  using A = acc_t<T>;
  const std::int64_t r = Team<kTeam>::row();
  if (r >= rows) return;
  const T* x = logits + r * n;
  const std::int64_t target = targets[r];
  const bool counts = target != ignore_index, known = target >= 0 && target < n;
  const bool smooth = counts && smoothing > 0;
  const A at_target = counts && known ? widen(x[target]) : A(0);
  const A pivot = at_target - at_target == A(0) ? at_target : A(0);  // infinite logits cannot be one
  RunningExponentials<A> sums;
  A weight_sum = 0, gaps = 0;
  each_of_row<T, kWidth, kTeam>(x, n, [&](std::int64_t i, auto width) {
    constexpr int kCount = decltype(width)::value;
    A value[kCount];
    widen_pack(value, load_pack<kCount>(x + i));
    sums.add(value);
    if (smooth && weights) {
      const auto weight = load_each<kCount>(weights + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        weight_sum += widen(weight.element[j]);
        gaps += widen(weight.element[j]) * (value[j] - pivot);
      }
    } else if (smooth) {
#pragma unroll
      for (int j = 0; j < kCount; ++j) gaps += value[j] - pivot;
    }
  });
  sums.template combine<kTeam>();
  const A total = sums.maximum + logarithm_of(sums.total);
  A value = 0;
  if (counts) {
    value = (weights && known ? widen(weights[target]) : A(1)) * (A(1) - smoothing) * (total - at_target);
    if (smooth) {
      gaps = Team<kTeam>::sum(gaps);
      weight_sum = weights ? Team<kTeam>::sum(weight_sum) : static_cast<A>(n);
      value += smoothing / static_cast<A>(n) * ((total - pivot) * weight_sum - gaps);
    }
    if (!known) value = infinity<A>() - infinity<A>();  // the op has checked targets; whoever calls without it must not get a number
  }
  if (Team<kTeam>::thread() == 0) {
    loss[r] = value;
    if (lse) lse[r] = total;
  }
}

// The sum of all class weights, by one block.
template <class T>
__global__ void __launch_bounds__(kLongRowThreads) cross_entropy_weight_sum(acc_t<T>* out, const T* weights, std::int64_t n) {
  using A = acc_t<T>;
  A sum = 0;
  each_of_row<T, kPack<T>, kLongRowThreads>(weights, n, [&](std::int64_t i, auto width) {
    const auto pack = load_pack<decltype(width)::value>(weights + i);
#pragma unroll
    for (int j = 0; j < decltype(width)::value; ++j) sum += widen(pack.element[j]);
  });
  sum = Team<kLongRowThreads>::sum(sum);
  if (threadIdx.x == 0) *out = sum;
}

// d loss / d x_v = p_v (hard + share W) - share w_v - (v is the target) hard, with hard = weight_t (1-s), share = s/V and W the sum of the weights.
// Block (x, y) takes columns [y span, (y+1) span) of row x. dlogits may be the logits: a thread reads its elements before it writes them.
template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    cross_entropy_columns(T* dlogits, const acc_t<T>* g, const T* logits, const acc_t<T>* lse, const std::int64_t* targets, const T* weights, const acc_t<T>* weight_sum,
                          std::int64_t n, std::int64_t span, std::int64_t ignore_index, acc_t<T> smoothing) {
  using A = acc_t<T>;
  const std::int64_t r = blockIdx.x, begin = blockIdx.y * span, count = begin + span < n ? span : n - begin, target = targets[r];
  const T* x = logits + r * n + begin;
  T* out = dlogits + r * n + begin;
  const bool counts = target != ignore_index, known = target >= 0 && target < n;
  const A upstream = counts ? g[r] : A(0), total = counts ? lse[r] : A(0), share = upstream * (smoothing / static_cast<A>(n));
  A hard = 0;
  if (counts) hard = known ? upstream * (weights ? widen(weights[target]) : A(1)) * (A(1) - smoothing) : infinity<A>() - infinity<A>();  // as in the loss
  const A slope = hard + (smoothing > 0 ? share * (weights ? *weight_sum : static_cast<A>(n)) : A(0));
  each_of_row<T, kWidth, kColumnThreads>(x, count, [&](std::int64_t i, auto width) {
    constexpr int kCount = decltype(width)::value;
    Pack<T, kCount> out_pack{};
    if (counts) {
      const auto pack = load_pack<kCount>(x + i);
      Pack<T, kCount> weight{};
      if (weights && smoothing > 0) weight = load_each<kCount>(weights + begin + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        A d = exponential(widen(pack.element[j]) - total) * slope;
        if (smoothing > 0) d -= weights ? widen(weight.element[j]) * share : share;
        if (begin + i + j == target) d -= hard;
        out_pack.element[j] = convert_to<T>(d);
      }
    }
    store_pack(out + i, out_pack);
  });
}

}  // namespace

void cross_entropy_forward(Context& context, Strided loss, Strided lse, Strided logits, Strided targets, Strided weights, std::int64_t ignore_index, double smoothing) {
  const std::int64_t rows = logits.shape[0], n = logits.shape[1];
  if (rows == 0 || n == 0) return;
  visit_float(logits.dtype, "cross_entropy", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    with_row_team<T>(true, rows, n, [&](auto width, auto team, dim3 grid, dim3 block) {
      launch(KERNEL(cross_entropy_rows<T, decltype(width)::value, decltype(team)::value>), grid, block, 0, stream_of(context), loss.as<A>(), lse.as<A>(),
             logits.as<T>(), targets.as<std::int64_t>(), weights.as<T>(), rows, n, ignore_index, static_cast<A>(smoothing));
    });
  });
}

void cross_entropy_backward(Context& context, Strided dlogits, Strided g, Strided logits, Strided lse, Strided targets, Strided weights, std::int64_t ignore_index,
                            double smoothing) {
  const std::int64_t rows = logits.shape[0], n = logits.shape[1];
  if (rows == 0 || n == 0) return;
  visit_float(logits.dtype, "cross_entropy_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const bool needs_sum = weights && smoothing > 0;
    const Scratch<A> weight_sum(context, needs_sum ? 1 : 0);
    if (needs_sum) launch(KERNEL(cross_entropy_weight_sum<T>), dim3(1), dim3(kLongRowThreads), 0, stream_of(context), weight_sum.data(), weights.as<T>(), n);
    // Spans of whole packs keep the alignment of the row.
    const std::int64_t span = kColumnThreads * kColumnsOfThread;
    const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>((n + span - 1) / span));
    const auto run = [&](auto width) {
      launch(KERNEL(cross_entropy_columns<T, decltype(width)::value>), grid, dim3(kColumnThreads), 0, stream_of(context), dlogits.as<T>(), g.as<A>(),
             logits.as<T>(), lse.as<A>(), targets.as<std::int64_t>(), weights.as<T>(), weight_sum.data(), n, span, ignore_index, static_cast<A>(smoothing));
    };
    if (equal_modulo_16(logits.data, dlogits.as<T>())) run(Width<kPack<T>>{});
    else run(Width<1>{});
  });
}

}  // namespace cambium::kernels::cuda
