// What attention's forward and backward share: blocks of rows and keys as floats, and masks and biases on a block of scores.
#pragma once

#include "kernels/cpu/isa/attention.h"
#include "kernels/cpu/isa/block.h"
#include "kernels/cpu/isa/element_visit.h"
#include "kernels/cpu/isa/math.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

inline constexpr int kBlock = kAttentionBlock;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t padded_dim(int64_t dim) { return round_up(dim, kLanes); }

/// The keys that a row may see, as far as causality and window say.
struct KeyRange { int64_t begin, end; };
inline KeyRange keys_of_row(const AttentionHead& h, int64_t row) {
  const int64_t position = row / h.group + h.keys - h.queries;
  KeyRange r{0, h.keys};
  if (h.causal && position + 1 < r.end) r.end = position + 1 > 0 ? position + 1 : 0;
  if (h.window > 0 && position - h.window + 1 > r.begin) r.begin = position - h.window + 1;
  return r;
}

/// Ranges of the rows of a block by lane; lanes past the rows see nothing.
struct RowRanges {
  float begin[kBlock], end[kBlock];
  int64_t any_begin, any_end;    // keys that some row sees lie inside
  int64_t all_begin, all_end;    // keys that every row sees
};
inline void find_ranges(RowRanges& ranges, const AttentionHead& h, int64_t row_begin, int64_t row_end) {
  const int64_t rows = row_end - row_begin;
  for (int64_t i = 0; i < kBlock; ++i) {
    const KeyRange r = i < rows ? keys_of_row(h, row_begin + i) : KeyRange{0, 0};
    ranges.begin[i] = static_cast<float>(r.begin);
    ranges.end[i] = static_cast<float>(r.end);
  }
  const KeyRange a = keys_of_row(h, row_begin), b = keys_of_row(h, row_end - 1);
  ranges.any_begin = a.begin;
  ranges.any_end = b.end;
  ranges.all_begin = b.begin;
  ranges.all_end = a.end;
}

/// Rows as floats times `factor`, to[i] for row row_begin + i, and transposed. Transposed lanes past the rows are 0.
template <class T>
inline void load_rows(float* to, float* transposed, const AttentionHead& h, const void* x, int64_t stride, int64_t head, int64_t row_begin, int64_t row_end, float factor) {
  const int64_t padded = padded_dim(h.dim), rows = row_end - row_begin, lanes = round_up(rows, kLanes);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = row_begin + i;
    load_row(to + i * padded, row_at<T>(x, row / h.group * stride + row % h.group * head), h.dim, padded, factor);
  }
  for (int64_t i = rows * padded; i < lanes * padded; ++i) to[i] = 0.0F;
  transpose_block(transposed, kBlock, to, padded, lanes, padded);
}

/// A block of keys or values as floats with rows of whole vectors: where they lie if they lie so, or copied to `buffer`.
struct FloatRows { const float* data; int64_t stride; };
template <class T>
inline FloatRows float_rows(float* buffer, const void* x, int64_t stride, int64_t begin, int64_t end, int64_t dim) {
  const int64_t padded = padded_dim(dim);
  if constexpr (sizeof(T) == sizeof(float)) {
    if (padded == dim) return {row_at<float>(x, begin * stride), stride};
  }
  for (int64_t i = begin; i < end; ++i) load_row(buffer + (i - begin) * padded, row_at<T>(x, i * stride), dim, padded, 1.0F);
  return {buffer, padded};
}

template <class T>
inline void add_bias(float* scores, const AttentionHead& h, int64_t row_begin, int64_t rows, int64_t key_begin, int64_t keys) {
  const T* bias = static_cast<const T*>(h.bias);
  if (h.bias_query == 0 && (h.group == 1 || h.bias_head == 0)) {  // one number per key, as for ALiBi
    for (int64_t j = 0; j < keys; ++j) {
      const vf b = set(value_of(bias[(key_begin + j) * h.bias_key]));
      for (int64_t i = 0; i < kBlock; i += kLanes) store(scores + j * kBlock + i, load(scores + j * kBlock + i) + b);
    }
    return;
  }
  if (h.bias_query == 1 && h.group == 1) {  // queries next to each other, as scores lie here
    for (int64_t j = 0; j < keys; ++j) {
      const T* b = bias + row_begin + (key_begin + j) * h.bias_key;
      float* s = scores + j * kBlock;
      int64_t i = 0;
      for (; i + kLanes <= rows; i += kLanes) store(s + i, load(s + i) + load(b + i));
      for (; i < rows; ++i) s[i] += value_of(b[i]);
    }
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = row_begin + i;
    const T* b = bias + row / h.group * h.bias_query + row % h.group * h.bias_head + key_begin * h.bias_key;
    for (int64_t j = 0; j < keys; ++j) scores[j * kBlock + i] += value_of(b[j * h.bias_key]);
  }
}

/// Adds the bias to scores (keys, kBlock rows) and sets forbidden ones to -infinity.
inline void restrict_scores(float* scores, const AttentionHead& h, const RowRanges& ranges, int64_t row_begin, int64_t rows, int64_t key_begin, int64_t key_end) {
  const int64_t keys = key_end - key_begin;
  if (h.bias) visit_element(h.bias_type, [&](auto* type) { add_bias<Pointee<decltype(type)>>(scores, h, row_begin, rows, key_begin, keys); });
  if (key_begin < ranges.all_begin || key_end > ranges.all_end) {
    for (int64_t j = 0; j < keys; ++j) {
      const float key = static_cast<float>(key_begin + j);
      for (int64_t i = 0; i < kBlock; i += kLanes) {
        const vi allowed = (load(ranges.begin + i) <= key) & (load(ranges.end + i) > key);
        store(scores + j * kBlock + i, select(allowed, load(scores + j * kBlock + i), set(-kInfinity)));
      }
    }
  }
  if (h.key_mask) {
    for (int64_t j = 0; j < keys; ++j) {
      if (h.key_mask[(key_begin + j) * h.key_mask_stride]) continue;
      for (int64_t i = 0; i < kBlock; i += kLanes) store(scores + j * kBlock + i, set(-kInfinity));
    }
  }
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
