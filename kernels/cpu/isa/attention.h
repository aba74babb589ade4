// Entries of the table of an instruction set: tiled attention over one key head of one sequence.
#pragma once

#include "kernels/cpu/isa/element.h"

namespace cambium::kernels::cpu {

/// Queries per block times heads per key head: rows r = query * group + head in group are worked on 64 at a time, keys too.
inline constexpr int kAttentionBlock = 64;

/// One key head of one sequence, the `group` query heads that share it, and who may attend to whom. Strides in elements.
struct AttentionHead {
  Element type, bias_type;
  int64_t queries, keys, dim, group;
  const void *q, *k, *v;                 ///< (queries, group, dim), (keys, dim), (keys, dim)
  int64_t q_stride, q_head, k_stride, v_stride;
  const uint8_t* key_mask;               ///< (keys) or absent
  int64_t key_mask_stride;
  const void* bias;                      ///< (group, queries, keys) or absent
  int64_t bias_head, bias_query, bias_key;
  float scale;
  bool causal;
  int64_t window;
};

struct AttentionForward {
  void* out;                             ///< (queries, group, dim), or floats (row, dim) when `partial`
  int64_t out_stride, out_head;
  float* lse;                            ///< or absent; element (query, head) at lse[head * lse_head + query], or (row) when `partial`
  int64_t lse_head;
  bool partial;                          ///< keys are cut: `out` is normalised over these keys only and combined later
};

struct AttentionBackward {
  const void *g, *out;                   ///< (queries, group, dim)
  int64_t g_stride, g_head, out_stride, out_head;
  const float* lse;
  int64_t lse_head;
  void *dq, *dk, *dv;                    ///< each may be absent
  int64_t dq_stride, dq_head, dk_stride, dv_stride;
  float* dq_partial;                     ///< when keys are cut: floats (row, dim) instead of dq; else absent
};

struct AttentionTable {
  /// Bytes of scratch, 64-byte aligned, that a call over `keys` keys needs.
  int64_t (*forward_scratch)(int64_t dim);
  int64_t (*backward_scratch)(int64_t dim, int64_t keys);
  /// Rows [row_begin, row_end), at most kAttentionBlock of them, over keys [key_begin, key_end).
  void (*forward)(const AttentionHead&, const AttentionForward&, int64_t row_begin, int64_t row_end, int64_t key_begin, int64_t key_end, void* scratch);
  /// All rows over keys [key_begin, key_end); key_begin a multiple of kAttentionBlock.
  void (*backward)(const AttentionHead&, const AttentionBackward&, int64_t key_begin, int64_t key_end, void* scratch);
  /// Combines `parts` partial results of `rows` rows: outs (parts, rows, dim), lses (parts, rows).
  void (*combine)(const AttentionHead&, const AttentionForward&, int64_t rows, int64_t parts, const float* outs, const float* lses);
  /// dq rows [row_begin, row_end) = sum over parts, in order, of (parts, rows, dim).
  void (*sum_dq)(const AttentionHead&, const AttentionBackward&, int64_t row_begin, int64_t row_end, int64_t rows, int64_t parts, const float* partial);
};

}  // namespace cambium::kernels::cpu
