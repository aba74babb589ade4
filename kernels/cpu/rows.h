// Iteration over strided operands: dimensions merged and ordered, work cut into rows and rows into tasks by shape alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "kernels/parallel.h"
#include "kernels/strided.h"

namespace cambium::kernels::cpu {

/// Elements per task of memory-bound work.
inline constexpr std::int64_t kGrain = 16384;
/// Rows of n elements per task.
inline std::int64_t rows_per_task(std::int64_t n) { return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(n, 1)); }

/// The address of element i of a contiguous operand, or of nothing if the operand is absent.
inline std::byte* element(const Strided& s, std::int64_t i) { return s ? s.as<std::byte>() + i * item_size(s.dtype) : nullptr; }

/// Steps through all but the last dimension of several operands of one shape, keeping their byte offsets.
template <std::size_t N>
class RowCursor {
 public:
  RowCursor(const std::array<Strided, N>& operands, std::int64_t row) : operands_(operands) {
    const Strided& first = operands[0];
    for (int i = first.rank - 2; i >= 0; --i) {
      index_[i] = row % first.shape[i];
      row /= first.shape[i];
    }
    for (std::size_t k = 0; k < N; ++k) {
      std::int64_t offset = 0;
      for (int i = 0; i + 1 < first.rank; ++i) offset += index_[i] * operands[k].strides[i];
      pointers_[k] = static_cast<std::byte*>(operands[k].data) + offset * item_size(operands[k].dtype);
    }
  }
  const std::array<std::byte*, N>& pointers() const { return pointers_; }
  void next() {
    const Strided& first = operands_[0];
    for (int i = first.rank - 2; i >= 0; --i) {
      const bool wraps = ++index_[i] == first.shape[i];
      const std::int64_t steps = wraps ? 1 - first.shape[i] : 1;
      for (std::size_t k = 0; k < N; ++k) pointers_[k] += steps * operands_[k].strides[i] * item_size(operands_[k].dtype);
      if (!wraps) return;
      index_[i] = 0;
    }
  }

 private:
  const std::array<Strided, N>& operands_;
  std::int64_t index_[kMaxRank] = {};
  std::array<std::byte*, N> pointers_{};
};

/// Calls `body(pointers, strides, count)` for pieces of rows that together cover all elements of the operands (equal shapes), on all threads.
template <std::size_t N, class F>
void for_each_row(std::array<Strided, N> operands, F&& body, std::int64_t grain = kGrain) {
  const std::int64_t total = operands[0].count();
  if (total == 0) return;
  Strided* list[N];
  for (std::size_t k = 0; k < N; ++k) list[k] = &operands[k];
  order_dimensions(list, static_cast<int>(N));
  collapse(list, static_cast<int>(N));
  const std::int64_t inner = operands[0].size(-1), rows = total / inner;
  std::array<std::int64_t, N> strides, items;
  for (std::size_t k = 0; k < N; ++k) {
    strides[k] = operands[k].stride(-1);
    items[k] = item_size(operands[k].dtype);
  }
  if (inner > grain) {
    const std::int64_t pieces = (inner + grain - 1) / grain;
    parallel_for(rows * pieces, [&](std::int64_t task) {
      const std::int64_t begin = task % pieces * grain;
      std::array<std::byte*, N> pointers = RowCursor<N>(operands, task / pieces).pointers();
      for (std::size_t k = 0; k < N; ++k) pointers[k] += begin * strides[k] * items[k];
      body(pointers, strides, std::min(grain, inner - begin));
    });
  } else {
    parallel_ranges(rows, grain / inner, [&](std::int64_t begin, std::int64_t end) {
      RowCursor<N> cursor(operands, begin);
      for (std::int64_t row = begin; row < end; ++row, cursor.next()) body(cursor.pointers(), strides, inner);
    });
  }
}

}  // namespace cambium::kernels::cpu
