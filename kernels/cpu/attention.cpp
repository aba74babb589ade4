// Attention: cut into tasks by shape, each handed to the tiled kernels of the chosen instruction set.
#include "kernels/cpu/isa/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/attention_plain.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/scratch.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kKeysPerPart = 512;     // of a decoding step, whose rows are too few to occupy the threads
constexpr std::int64_t kBackwardTasks = 8;     // with fewer (batch, key head) pairs the keys of the backward are cut, too
constexpr std::int64_t kBackwardKeys = 256;    // but into pieces of no fewer keys than this

// Rows of q and k that attend among themselves: one row of the batch, or one packed sequence.
struct Sequence {
  std::int64_t batch, query_begin, queries, key_begin, keys;
};

std::vector<Sequence> sequences_of(const Strided& q, const Strided& k, const AttentionOptions& options) {
  std::vector<Sequence> all;
  if (options.starts) {
    const std::int32_t* starts = options.starts.as<std::int32_t>();
    for (std::int64_t s = 0; s + 1 < options.starts.shape[0]; ++s) all.push_back({0, starts[s], starts[s + 1] - starts[s], starts[s], starts[s + 1] - starts[s]});
  } else {
    for (std::int64_t b = 0; b < q.shape[0]; ++b) all.push_back({b, 0, q.shape[1], 0, k.shape[1]});
  }
  return all;
}

std::byte* at(const Strided& s, std::int64_t b, std::int64_t t, std::int64_t h) {
  return s.as<std::byte>() + (b * s.strides[0] + t * s.strides[1] + h * s.strides[2]) * item_size(s.dtype);
}

AttentionHead head_of(const Sequence& s, std::int64_t key_head, const Strided& q, const Strided& k, const Strided& v, const AttentionOptions& options) {
  const std::int64_t group = q.shape[2] / k.shape[2], first = key_head * group;
  AttentionHead h{};
  h.type = element_of(q.dtype);
  h.queries = s.queries;
  h.keys = s.keys;
  h.dim = q.shape[3];
  h.group = group;
  h.q = at(q, s.batch, s.query_begin, first);
  h.k = at(k, s.batch, s.key_begin, key_head);
  h.v = at(v, s.batch, s.key_begin, key_head);
  h.q_stride = q.strides[1];
  h.q_head = q.strides[2];
  h.k_stride = k.strides[1];
  h.v_stride = v.strides[1];
  if (const Strided& mask = options.key_mask) {
    h.key_mask = mask.as<std::uint8_t>() + s.batch * mask.strides[0] + s.key_begin * mask.strides[1];
    h.key_mask_stride = mask.strides[1];
  }
  if (const Strided& bias = options.bias) {
    h.bias_type = element_of(bias.dtype);
    h.bias = bias.as<std::byte>() +
             (s.batch * bias.strides[0] + first * bias.strides[1] + s.query_begin * bias.strides[2] + s.key_begin * bias.strides[3]) * item_size(bias.dtype);
    h.bias_head = bias.strides[1];
    h.bias_query = bias.strides[2];
    h.bias_key = bias.strides[3];
  }
  h.scale = static_cast<float>(options.scale);
  h.causal = options.causal;
  h.window = options.window;
  return h;
}

// A step of decoding: the keys are cut into parts of fixed length, whose results are combined in order.
void forward_in_parts(const AttentionHead& h, const AttentionForward& f, float* outs, float* lses, std::int64_t part, std::int64_t rows) {
  const AttentionTable& table = *isa().attention;
  AttentionForward partial = f;
  partial.partial = true;
  partial.out = outs + part * rows * h.dim;
  partial.lse = lses + part * rows;
  table.forward(h, partial, 0, rows, part * kKeysPerPart, std::min(h.keys, (part + 1) * kKeysPerPart), thread_scratch(table.forward_scratch(h.dim)));
}

bool is_tiled(const Strided& q, const AttentionOptions& options) {
  return is_vector_type(q.dtype) && (!options.bias || is_vector_type(options.bias.dtype));
}

}  // namespace

void attention_forward(Context&, Strided out, Strided lse, Strided q, Strided k, Strided v, const AttentionOptions& options) {
  if (!is_tiled(q, options)) return attention_forward_plain(out, lse, q, k, v, options);
  const AttentionTable& table = *isa().attention;
  const std::vector<Sequence> sequences = sequences_of(q, k, options);
  const std::int64_t H = q.shape[2], G = k.shape[2], D = q.shape[3], group = H / G, lse_head = q.shape[1];
  const auto result_of = [&](const Sequence& s, std::int64_t key_head) {
    return AttentionForward{at(out, s.batch, s.query_begin, key_head * group), out.strides[1], out.strides[2],
                            lse ? lse.as<float>() + (s.batch * H + key_head * group) * lse_head + s.query_begin : nullptr, lse_head, false};
  };
  const std::int64_t step_rows = q.shape[1] * group, parts = (k.shape[1] + kKeysPerPart - 1) / kKeysPerPart;
  if (!options.starts && step_rows <= kAttentionBlock && parts > 1) {
    const std::int64_t heads = q.shape[0] * G;
    std::vector<float> outs(static_cast<std::size_t>(heads * parts * step_rows * D)), lses(static_cast<std::size_t>(heads * parts * step_rows));
    const auto outs_of = [&](std::int64_t head) { return outs.data() + head * parts * step_rows * D; };
    const auto lses_of = [&](std::int64_t head) { return lses.data() + head * parts * step_rows; };
    parallel_for(heads * parts, [&](std::int64_t task) {
      const std::int64_t head = task / parts;
      const Sequence& s = sequences[static_cast<std::size_t>(head / G)];
      forward_in_parts(head_of(s, head % G, q, k, v, options), result_of(s, head % G), outs_of(head), lses_of(head), task % parts, step_rows);
    });
    for (std::int64_t head = 0; head < heads; ++head) {
      const Sequence& s = sequences[static_cast<std::size_t>(head / G)];
      table.combine(head_of(s, head % G, q, k, v, options), result_of(s, head % G), step_rows, parts, outs_of(head), lses_of(head));
    }
    return;
  }
  struct Task { std::int64_t sequence, key_head, row; };
  std::vector<Task> tasks;
  for (std::size_t s = 0; s < sequences.size(); ++s)
    for (std::int64_t key_head = 0; key_head < G; ++key_head)
      for (std::int64_t row = (sequences[s].queries * group - 1) / kAttentionBlock * kAttentionBlock; row >= 0; row -= kAttentionBlock)
        if (sequences[s].queries > 0) tasks.push_back({static_cast<std::int64_t>(s), key_head, row});
  parallel_for(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t i) {
    const Task& t = tasks[static_cast<std::size_t>(i)];
    const Sequence& s = sequences[static_cast<std::size_t>(t.sequence)];
    table.forward(head_of(s, t.key_head, q, k, v, options), result_of(s, t.key_head), t.row, std::min(s.queries * group, t.row + kAttentionBlock), 0, s.keys,
                  thread_scratch(table.forward_scratch(D)));
  });
}

void attention_backward(Context&, Strided dq, Strided dk, Strided dv, Strided g, Strided out, Strided lse, Strided q, Strided k, Strided v,
                        const AttentionOptions& options) {
  if (!is_tiled(q, options)) return attention_backward_plain(dq, dk, dv, g, out, lse, q, k, v, options);
  const AttentionTable& table = *isa().attention;
  const std::vector<Sequence> sequences = sequences_of(q, k, options);
  const std::int64_t H = q.shape[2], G = k.shape[2], D = q.shape[3], group = H / G, lse_head = q.shape[1];
  const std::int64_t heads = static_cast<std::int64_t>(sequences.size()) * G;
  std::int64_t longest = 0;
  for (const Sequence& s : sequences) longest = std::max(longest, s.keys);
  // Sums over rows stay inside a task, so dK and dV need no second pass; dQ does where the keys of a head are cut.
  std::int64_t parts = std::clamp((kBackwardTasks + heads - 1) / std::max<std::int64_t>(heads, 1), std::int64_t{1}, std::max<std::int64_t>(longest / kBackwardKeys, 1));
  if (options.starts) parts = 1;
  const std::int64_t keys_per_part = ((longest + parts - 1) / parts + kAttentionBlock - 1) / kAttentionBlock * kAttentionBlock;
  const std::int64_t rows = q.shape[1] * group;
  std::vector<float> partial(static_cast<std::size_t>(dq && parts > 1 ? heads * parts * rows * D : 0));
  const auto gradients_of = [&](const Sequence& s, std::int64_t key_head) {
    const std::int64_t first = key_head * group;
    AttentionBackward b{};
    b.g = at(g, s.batch, s.query_begin, first);
    b.out = at(out, s.batch, s.query_begin, first);
    b.g_stride = g.strides[1];
    b.g_head = g.strides[2];
    b.out_stride = out.strides[1];
    b.out_head = out.strides[2];
    b.lse = lse.as<float>() + (s.batch * H + first) * lse_head + s.query_begin;
    b.lse_head = lse_head;
    if (dq) b.dq = at(dq, s.batch, s.query_begin, first);
    if (dk) b.dk = at(dk, s.batch, s.key_begin, key_head);
    if (dv) b.dv = at(dv, s.batch, s.key_begin, key_head);
    b.dq_stride = dq.strides[1];
    b.dq_head = dq.strides[2];
    b.dk_stride = dk.strides[1];
    b.dv_stride = dv.strides[1];
    return b;
  };
  const auto partial_of = [&](std::int64_t head) { return partial.empty() ? nullptr : partial.data() + head * parts * rows * D; };
  parallel_for(heads * parts, [&](std::int64_t task) {
    const std::int64_t head = task / parts, part = task % parts;
    const Sequence& s = sequences[static_cast<std::size_t>(head / G)];
    AttentionBackward b = gradients_of(s, head % G);
    if (!partial.empty()) b.dq_partial = partial_of(head) + part * rows * D;
    const std::int64_t begin = part * keys_per_part, end = std::min(s.keys, begin + keys_per_part);
    table.backward(head_of(s, head % G, q, k, v, options), b, std::min(begin, end), end, thread_scratch(table.backward_scratch(D, keys_per_part)));
  });
  if (partial.empty()) return;
  const std::int64_t blocks = (rows + kAttentionBlock - 1) / kAttentionBlock;
  parallel_for(heads * blocks, [&](std::int64_t task) {
    const std::int64_t head = task / blocks, row = task % blocks * kAttentionBlock;
    const Sequence& s = sequences[static_cast<std::size_t>(head / G)];
    table.sum_dq(head_of(s, head % G, q, k, v, options), gradients_of(s, head % G), row, std::min(rows, row + kAttentionBlock), rows, parts, partial_of(head));
  });
}

}  // namespace cambium::kernels::cpu
