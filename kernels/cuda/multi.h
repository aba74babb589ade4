// Lists of dense tensors as one launch: tensors lie in a table in the kernel's arguments, blocks take chunks of them.
#pragma once

#include "kernels/cuda/block.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

inline constexpr int kListThreads = 256;
inline constexpr std::int64_t kChunk = 4096;  // elements of a block
inline constexpr int kListTensors = 48;       // of a launch: the table must fit into 4 KiB of arguments

/// N operands each of up to kListTensors tensors; chunk c of the launch belongs to the last tensor whose first_chunk is not above c.
template <int N>
struct TensorList {
  void* operands[kListTensors][N];
  std::int64_t counts[kListTensors];
  std::uint32_t first_chunk[kListTensors];  // in this launch
  std::uint32_t place[kListTensors];        // number of the first chunk among the chunks of all tensors of the call
  int tensors = 0;
  std::uint32_t chunks = 0;

  /// The tensor of a chunk; the same for all threads of a block.
  __device__ __forceinline__ int find(std::uint32_t chunk) const {
    int low = 0, high = tensors - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first_chunk[middle] <= chunk) low = middle;
      else high = middle - 1;
    }
    return low;
  }
};

inline std::int64_t chunks_of(std::int64_t count) { return ceil_div(count, kChunk); }

/// Calls `launch_list(list)` for lists that together hold the tensors k < n for which `takes(k)`; `operand(k, i)` is operand i of tensor k.
template <int N, class Takes, class Operand, class Launch>
void for_each_list(int n, Takes&& takes, Operand&& operand, Launch&& launch_list) {
  TensorList<N> list;
  std::int64_t place = 0;
  const auto flush = [&] {
    if (list.tensors > 0) launch_list(list);
    list.tensors = 0;
    list.chunks = 0;
  };
  for (int k = 0; k < n; ++k) {
    const Strided first = operand(k, 0);
    const std::int64_t count = first.count(), chunks = chunks_of(count);
    if (count > 0 && takes(k)) {
      if (list.tensors == kListTensors || list.chunks + chunks > (std::int64_t{1} << 31) - 1) flush();
      for (int i = 0; i < N; ++i) list.operands[list.tensors][i] = operand(k, i).data;
      list.counts[list.tensors] = count;
      list.first_chunk[list.tensors] = list.chunks;
      list.place[list.tensors++] = static_cast<std::uint32_t>(place);
      list.chunks += static_cast<std::uint32_t>(chunks);
    }
    place += chunks;
  }
  flush();
}

}  // namespace cambium::kernels::cuda
