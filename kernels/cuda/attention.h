// What the CUDA kernels of attention share: the problem as they see it, who may attend to whom, biases and masks.
#pragma once

#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

/// A tensor (B, T, heads, D) whose last dimension is dense; strides in elements. data nullptr: absent.
struct AttentionOperand {
  void* data = nullptr;
  std::int64_t batch = 0, time = 0, head = 0;
};

/// One call. Queries of the heads that share keys are the rows of one matrix, row = query * group + head: keys and values are loaded once for the whole
/// group, a decoding step fills its tile, and sums over the group have a fixed order.
struct AttentionProblem {
  AttentionOperand q, k, v, g, out, dq, dk, dv;
  void *lse = nullptr, *delta = nullptr;                 // (B, H, Tq) in acc_t's dtype; delta: rowsum(g out)
  float *partial_out = nullptr, *partial_lse = nullptr;  // (B, G, parts, rows, D) and (B, G, parts, rows) where keys are cut into parts
  const std::uint8_t* key_mask = nullptr;
  const void* bias = nullptr;
  const std::int32_t* starts = nullptr;
  std::int64_t mask_batch = 0, mask_key = 0, bias_batch = 0, bias_head = 0, bias_query = 0, bias_key = 0;
  DType bias_type = DType::f32;
  int queries = 0, keys = 0, heads = 0, group = 0, dim = 0, rows = 0, sequences = 0, window = 0;
  int parts = 1, keys_of_part = 0;
  double scale = 1;
  bool causal = false, packs = false, pairs = false;  // 16-byte loads of q, k, v and g, and stores of two results at once, are aligned

  __host__ __device__ int key_heads() const { return heads / group; }
};

// Launchers of the kernels on tensor cores; T is bfloat16 or float16, D at most kMostTensorDim.
inline constexpr int kMostTensorDim = 256;
void attention_forward_on_tensor_cores(cudaStream_t, const AttentionProblem&, DType, int batch);
void attention_backward_on_tensor_cores(cudaStream_t, const AttentionProblem&, DType, int batch);
/// Most shared memory of a block that these take.
std::int64_t attention_forward_tensor_core_bytes(int dim);
std::int64_t attention_backward_tensor_core_bytes(int dim);
/// Launchers of the kernels with multiply-adds, for every float dtype and any D.
void attention_forward_in_tiles(cudaStream_t, const AttentionProblem&, DType, int batch);
void attention_backward_in_tiles(cudaStream_t, const AttentionProblem&, DType, int batch);

struct KeyRange {
  int begin, end;  // nothing where begin >= end
};

/// The packed sequence that a position lies in; nothing outside of all of them.
__device__ __forceinline__ KeyRange sequence_at(const AttentionProblem& p, int position) {
  int low = 0, high = p.sequences;  // the last sequence that starts at or before the position is in [low - 1, high - 1]
  while (low < high) {
    const int middle = (low + high) / 2;
    if (p.starts[middle] <= position) low = middle + 1;
    else high = middle;
  }
  if (low == 0) return {0, 0};
  const int end = p.starts[low];
  return position < end ? KeyRange{p.starts[low - 1], end} : KeyRange{end, end};
}

/// Keys that a row may attend to, as far as sequences, causality and window say. Both ends ascend with the row.
__device__ __forceinline__ KeyRange keys_of_row(const AttentionProblem& p, int row) {
  const int query = p.group == 1 ? row : row / p.group;
  KeyRange keys = p.starts ? sequence_at(p, query) : KeyRange{0, p.keys};
  const int position = p.starts ? query : query + p.keys - p.queries;
  if (p.causal && position + 1 < keys.end) keys.end = position + 1 > 0 ? position + 1 : 0;
  if (p.window > 0 && position - p.window + 1 > keys.begin) keys.begin = position - p.window + 1;
  return keys;
}

/// Rows outside of which none may attend to a key of [begin, end).
__device__ __forceinline__ KeyRange rows_of_keys(const AttentionProblem& p, int begin, int end) {
  const int offset = p.starts ? 0 : p.keys - p.queries;
  KeyRange queries{0, p.queries};
  if (p.starts) {
    const KeyRange first = sequence_at(p, begin), last = sequence_at(p, end - 1);
    if (first.begin < first.end) queries.begin = first.begin;
    if (last.begin < last.end) queries.end = last.end;
  }
  if (p.causal && begin - offset > queries.begin) queries.begin = begin - offset;
  if (p.window > 0 && end - 1 - offset < queries.end - p.window) queries.end = end - 1 - offset + p.window;
  return {queries.begin * p.group, queries.end * p.group};
}

/// Where a row's entries start in an operand with all heads.
template <class T>
__device__ __forceinline__ T* row_address(const AttentionOperand& x, const AttentionProblem& p, int batch, int key_head, int row) {
  const int query = p.group == 1 ? row : row / p.group, head = key_head * p.group + (row - query * p.group);
  return static_cast<T*>(x.data) + batch * x.batch + query * x.time + head * x.head;
}
template <class T>
__device__ __forceinline__ T* key_address(const AttentionOperand& x, int batch, int key_head, int key) {
  return static_cast<T*>(x.data) + batch * x.batch + key * x.time + key_head * x.head;
}
/// The number of a row in lse and delta.
__device__ __forceinline__ std::int64_t statistic_of(const AttentionProblem& p, int batch, int key_head, int row) {
  const int query = p.group == 1 ? row : row / p.group, head = key_head * p.group + (row - query * p.group);
  return (static_cast<std::int64_t>(batch) * p.heads + head) * p.queries + query;
}

template <class A>
__device__ __forceinline__ A bias_value(const AttentionProblem& p, std::int64_t offset) {
  switch (p.bias_type) {
    case DType::f64: return static_cast<A>(static_cast<const double*>(p.bias)[offset]);
    case DType::f32: return static_cast<A>(static_cast<const float*>(p.bias)[offset]);
    case DType::bf16: return static_cast<A>(widen(static_cast<const bfloat16*>(p.bias)[offset]));
    default: return static_cast<A>(widen(static_cast<const float16*>(p.bias)[offset]));
  }
}
__device__ __forceinline__ std::int64_t bias_row(const AttentionProblem& p, int batch, int key_head, int row) {
  const int query = p.group == 1 ? row : row / p.group, head = key_head * p.group + (row - query * p.group);
  return batch * p.bias_batch + head * p.bias_head + query * p.bias_query;
}
__device__ __forceinline__ bool key_allowed(const AttentionProblem& p, int batch, int key) {
  return !p.key_mask || p.key_mask[batch * p.mask_batch + key * p.mask_key] != 0;
}

}  // namespace cambium::kernels::cuda
