// Attention: how a call is cut up, which kernels take it, and the small kernels around them.
#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_route.h"
#include "kernels/cuda/cuda.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kFewRows = 64, kPartBlocks = 256, kFewestKeysOfPart = 256;  // of a decoding step, whose rows are too few to occupy a GPU

std::atomic<AttentionRoute> chosen_route{AttentionRoute::automatic};

// delta = sum over D of g out, a warp for each (batch, query, head).
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) attention_delta(AttentionProblem p, std::int64_t count) {
  using A = acc_t<T>;
  const std::int64_t i = Team<kLanes>::row();
  if (i >= count) return;
  const int head = static_cast<int>(i % p.heads), query = static_cast<int>(i / p.heads % p.queries), batch = static_cast<int>(i / p.heads / p.queries);
  const T* g = static_cast<const T*>(p.g.data) + batch * p.g.batch + query * p.g.time + head * p.g.head;
  const T* out = static_cast<const T*>(p.out.data) + batch * p.out.batch + query * p.out.time + head * p.out.head;
  A sum = 0;
  each_of_row<T, kWidth, kLanes>(g, p.dim, [&](std::int64_t d, auto width) {
    const auto left = load_pack<decltype(width)::value>(g + d);
    const auto right = load_pack<decltype(width)::value>(out + d);
#pragma unroll
    for (int j = 0; j < decltype(width)::value; ++j) sum += widen(left.element[j]) * widen(right.element[j]);
  });
  sum = warp_sum(sum);
  if (threadIdx.x % kLanes == 0) static_cast<A*>(p.delta)[(static_cast<std::int64_t>(batch) * p.heads + head) * p.queries + query] = sum;
}

// Puts the parts of the keys together: a warp for each row of each key head.
template <class T>
__global__ void __launch_bounds__(kThreads) attention_combine(AttentionProblem p, std::int64_t count) {
  const std::int64_t i = Team<kLanes>::row();
  if (i >= count) return;
  const int row = static_cast<int>(i % p.rows);
  const std::int64_t head = i / p.rows;  // of keys, counted over the batch
  const int batch = static_cast<int>(head / p.key_heads()), key_head = static_cast<int>(head % p.key_heads());
  const float* lse = p.partial_lse + head * p.parts * p.rows + row;
  const float* partial = p.partial_out + (head * p.parts * p.rows + row) * p.dim;
  float top = -infinity<float>(), total = 0;
  for (int part = 0; part < p.parts; ++part) top = fmaxf(top, lse[static_cast<std::int64_t>(part) * p.rows]);
  const bool any = top > -infinity<float>();
  for (int part = 0; any && part < p.parts; ++part) total += expf(lse[static_cast<std::int64_t>(part) * p.rows] - top);
  T* out = row_address<T>(p.out, p, batch, key_head, row);
  for (int d = static_cast<int>(threadIdx.x) % kLanes; d < p.dim; d += kLanes) {
    float sum = 0;
    for (int part = 0; any && part < p.parts; ++part)
      sum += expf(lse[static_cast<std::int64_t>(part) * p.rows] - top) * partial[static_cast<std::int64_t>(part) * p.rows * p.dim + d];
    out[d] = convert_to<T>(any ? sum / total : 0.0F);
  }
  if (threadIdx.x % kLanes == 0 && p.lse) static_cast<float*>(p.lse)[statistic_of(p, batch, key_head, row)] = any ? top + logf(total) : top;
}

AttentionOperand operand(const Strided& s) { return {s.data, s.strides[0], s.strides[1], s.strides[2]}; }

// True if every row of D entries starts at a multiple of `bytes`.
bool rows_aligned(const Strided& s, std::int64_t bytes) {
  if (!s) return true;
  bool aligned = reinterpret_cast<std::uintptr_t>(s.data) % static_cast<std::uintptr_t>(bytes) == 0;
  for (int i = 0; i < 3; ++i) aligned = aligned && (s.shape[i] == 1 || s.strides[i] * item_size(s.dtype) % bytes == 0);
  return aligned;
}

AttentionProblem problem_of(const Strided& q, const Strided& k, const Strided& v, const AttentionOptions& options) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max() / 4;
  const std::int64_t rows = q.shape[1] * (q.shape[2] / std::max<std::int64_t>(k.shape[2], 1));
  check<ShapeError>(rows <= kMost && k.shape[1] <= kMost, "attention: expected fewer than 2^29 queries and keys, found ", shape_text(q), " and ", shape_text(k));
  AttentionProblem p;
  p.q = operand(q);
  p.k = operand(k);
  p.v = operand(v);
  p.queries = static_cast<int>(q.shape[1]);
  p.heads = static_cast<int>(q.shape[2]);
  p.dim = static_cast<int>(q.shape[3]);
  p.keys = static_cast<int>(k.shape[1]);
  p.group = static_cast<int>(q.shape[2] / k.shape[2]);
  p.rows = p.queries * p.group;
  p.keys_of_part = p.keys;
  p.scale = options.scale;
  p.causal = options.causal;
  p.window = static_cast<int>(std::min<std::int64_t>(options.window, kMost));
  if (const Strided& mask = options.key_mask) {
    p.key_mask = mask.as<std::uint8_t>();
    p.mask_batch = mask.strides[0];
    p.mask_key = mask.strides[1];
  }
  if (const Strided& bias = options.bias) {
    p.bias = bias.data;
    p.bias_type = bias.dtype;
    p.bias_batch = bias.strides[0];
    p.bias_head = bias.strides[1];
    p.bias_query = bias.strides[2];
    p.bias_key = bias.strides[3];
  }
  if (options.starts) {
    p.starts = options.starts.as<std::int32_t>();
    p.sequences = static_cast<int>(options.starts.shape[0]) - 1;
  }
  return p;
}

// Compute capability 7.5 multiplies f16 on tensor cores but not bf16, and has little shared memory.
bool on_tensor_cores(const Context& context, const Strided& q, bool backward) {
  if ((q.dtype != DType::bf16 && q.dtype != DType::f16) || q.shape[3] > kMostTensorDim) return false;
  const AttentionRoute route = chosen_route;
  if (route == AttentionRoute::multiply_add) return false;
  const Properties& properties = properties_of(context.device);
  if (route == AttentionRoute::automatic && properties.major < 8 && q.dtype == DType::bf16) return false;
  const int dim = static_cast<int>(q.shape[3]);
  return (backward ? attention_backward_tensor_core_bytes(dim) : attention_forward_tensor_core_bytes(dim)) <= properties.shared_bytes;
}

unsigned warps_for(std::int64_t count) { return static_cast<unsigned>((count + kThreads / kLanes - 1) / (kThreads / kLanes)); }

}  // namespace

void use_attention_route(AttentionRoute route) { chosen_route = route; }

void attention_forward(Context& context, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions& options) {
  if (q.count() == 0) return;
  AttentionProblem p = problem_of(q, k, v, options);
  p.out = operand(out);
  p.lse = lse.data;
  p.packs = p.dim * item_size(q.dtype) % 16 == 0 && rows_aligned(q, 16) && rows_aligned(k, 16) && rows_aligned(v, 16);
  p.pairs = p.dim % 2 == 0 && rows_aligned(out, 2 * item_size(out.dtype));
  const int batch = static_cast<int>(q.shape[0]), heads = batch * p.key_heads();
  if (q.dtype != DType::f64 && !p.starts && p.rows <= kFewRows) {
    const std::int64_t parts = std::clamp<std::int64_t>(kPartBlocks / heads, 1, std::max(p.keys / kFewestKeysOfPart, 1));
    p.keys_of_part = static_cast<int>((p.keys + parts * kFewRows - 1) / (parts * kFewRows)) * kFewRows;  // whole tiles
    if (parts > 1) p.parts = (p.keys + p.keys_of_part - 1) / p.keys_of_part;
  }
  const std::int64_t partial_rows = p.parts > 1 ? static_cast<std::int64_t>(heads) * p.parts * p.rows : 0;
  const Scratch<float> partial_out(context, partial_rows * p.dim), partial_lse(context, partial_rows);
  p.partial_out = partial_out.data();
  p.partial_lse = partial_lse.data();
  if (on_tensor_cores(context, q, false)) attention_forward_on_tensor_cores(stream_of(context), p, q.dtype, batch);
  else attention_forward_in_tiles(stream_of(context), p, q.dtype, batch);
  if (p.parts == 1) return;
  visit_float(q.dtype, "attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const std::int64_t count = static_cast<std::int64_t>(heads) * p.rows;
    if constexpr (!std::is_same_v<T, double>) launch(KERNEL(attention_combine<T>), dim3(warps_for(count)), dim3(kThreads), 0, stream_of(context), p, count);
  });
}

void attention_backward(Context& context, Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v,
                        const AttentionOptions& options) {
  if (q.count() == 0 && k.count() == 0) return;
  AttentionProblem p = problem_of(q, k, v, options);
  p.g = operand(g);
  p.out = operand(out);
  if (dq) p.dq = operand(dq);
  if (dk) p.dk = operand(dk);
  if (dv) p.dv = operand(dv);
  p.lse = lse.data;
  p.packs = p.dim * item_size(q.dtype) % 16 == 0 && rows_aligned(q, 16) && rows_aligned(k, 16) && rows_aligned(v, 16) && rows_aligned(g, 16);
  const std::int64_t two = 2 * item_size(q.dtype);
  p.pairs = p.dim % 2 == 0 && rows_aligned(dq, two) && rows_aligned(dk, two) && rows_aligned(dv, two);
  const std::int64_t statistics = q.shape[0] * q.shape[1] * q.shape[2];
  visit_float(q.dtype, "attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Scratch<acc_t<T>> delta(context, statistics);
    p.delta = delta.data();
    const auto launch_delta = [&](auto width) {
      launch(KERNEL(attention_delta<T, decltype(width)::value>), dim3(warps_for(statistics)), dim3(kThreads), 0, stream_of(context), p, statistics);
    };
    if (statistics > 0 && rows_aligned(g, 16) && rows_aligned(out, 16)) launch_delta(Width<kPack<T>>{});
    else if (statistics > 0) launch_delta(Width<1>{});
    if (on_tensor_cores(context, q, true)) attention_backward_on_tensor_cores(stream_of(context), p, q.dtype, static_cast<int>(q.shape[0]));
    else attention_backward_in_tiles(stream_of(context), p, q.dtype, static_cast<int>(q.shape[0]));
  });
}

}  // namespace cambium::kernels::cuda
