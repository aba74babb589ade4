// Rows of keys with their positions in stable order: tiles are sorted in shared memory, runs of them merged in pairs.
#pragma once

#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

/// Key above position in one number. No two entries of a row are equal, which makes any sort stable; the greatest stands for nothing.
struct NarrowEntry {
  std::uint64_t bits;
  __device__ static NarrowEntry make(std::uint64_t key, std::uint32_t position) { return {key << 32 | position}; }
  __device__ static NarrowEntry nothing() { return {~std::uint64_t{0}}; }
  __device__ std::uint64_t key() const { return bits >> 32; }
  __device__ std::uint32_t position() const { return static_cast<std::uint32_t>(bits); }
  __device__ bool operator<(const NarrowEntry& other) const { return bits < other.bits; }
};
/// The same for keys of 64 bits.
struct WideEntry {
  std::uint64_t bits;
  std::uint64_t place;
  __device__ static WideEntry make(std::uint64_t key, std::uint32_t position) { return {key, position}; }
  __device__ static WideEntry nothing() { return {~std::uint64_t{0}, ~std::uint64_t{0}}; }
  __device__ std::uint64_t key() const { return bits; }
  __device__ std::uint32_t position() const { return static_cast<std::uint32_t>(place); }
  __device__ bool operator<(const WideEntry& other) const { return bits != other.bits ? bits < other.bits : place < other.place; }
};

/// Where keys come from: row r, column i is element lines(r) + i * step of x. Numbers rank as values (0 equals -0, NaN is the greatest) or, as indices,
/// which are at least 0 and below 2^32, by themselves.
struct Keys {
  Layout<1> lines;
  std::int64_t step;
  Elements x;
  bool indices, descending;
};

/// Sorted entries in memory of the call: row r begins at data() + r * take.
template <class Entry>
class SortedRows {
 public:
  /// The first `take` of each row's `n` entries, 1 <= take <= n < 2^32.
  SortedRows(const Context& context, const Keys& keys, std::int64_t n, std::int64_t take);
  const Entry* data() const { return sorted_; }

 private:
  Scratch<Entry> first_, second_;
  const Entry* sorted_ = nullptr;
};

}  // namespace cambium::kernels::cuda
