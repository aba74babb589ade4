// Stable sorting of rows and the largest k of each row.
#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

// Unsigned numbers in the order of the values: 0 equals -0, and NaN is the greatest.
std::uint32_t rank_of(float value) {
  if (value != value) return ~std::uint32_t{0};
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value + 0.0F);
  return (u >> 31) != 0 ? ~u : u | (std::uint32_t{1} << 31);
}
std::uint64_t rank_of(double value) {
  if (value != value) return ~std::uint64_t{0};
  const std::uint64_t u = std::bit_cast<std::uint64_t>(value + 0.0);
  return (u >> 63) != 0 ? ~u : u | (std::uint64_t{1} << 63);
}
std::uint64_t rank_of(std::int64_t value) { return static_cast<std::uint64_t>(value) ^ (std::uint64_t{1} << 63); }

// Value and position in one number where both fit: comparing entries is then one instruction, and no two are equal.
struct Narrow {
  using Entry = std::uint64_t;
  static Entry make(std::uint32_t rank, std::int64_t position) { return (static_cast<std::uint64_t>(rank) << 32) | static_cast<std::uint64_t>(position); }
  static std::int64_t position(Entry entry) { return static_cast<std::int64_t>(entry & 0xffffffffU); }
};
// Least digit first over the upper 32 bits: entries arrive by ascending position, and every pass keeps the order of equals.
void sort_entries(std::vector<std::uint64_t>& entries) {
  constexpr std::size_t kDigit = 2048;
  if (entries.size() < 1024) return std::sort(entries.begin(), entries.end());
  std::vector<std::uint64_t> other(entries.size());
  std::vector<std::size_t> starts(kDigit);
  for (const int shift : {32, 43, 54}) {
    const auto digit = [shift](std::uint64_t entry) { return static_cast<std::size_t>(entry >> shift) & (kDigit - 1); };
    std::fill(starts.begin(), starts.end(), std::size_t{0});
    for (const std::uint64_t entry : entries) ++starts[digit(entry)];
    std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), std::size_t{0});
    for (const std::uint64_t entry : entries) other[starts[digit(entry)]++] = entry;
    entries.swap(other);
  }
}
template <class Entry>
void sort_entries(std::vector<Entry>& entries) { std::sort(entries.begin(), entries.end()); }

struct Wide {
  struct Entry {
    std::uint64_t rank;
    std::int64_t place;
    bool operator<(const Entry& other) const { return rank != other.rank ? rank < other.rank : place < other.place; }
  };
  static Entry make(std::uint64_t rank, std::int64_t position) { return {rank, position}; }
  static std::int64_t position(const Entry& entry) { return entry.place; }
};

template <class Packing, class T>
void sort_rows(const Strided& values, const Strided& indices, const Strided& x, bool descending) {
  const std::int64_t rows = x.shape[0], n = x.shape[1], take = values.shape[1];
  parallel_ranges(rows, std::max<std::int64_t>(1, kGrain / 4 / std::max<std::int64_t>(1, n)), [&](std::int64_t begin, std::int64_t end) {
    std::vector<typename Packing::Entry> entries(static_cast<std::size_t>(n));
    for (std::int64_t r = begin; r < end; ++r) {
      const T* row = x.as<T>() + r * n;
      for (std::int64_t i = 0; i < n; ++i) {
        const auto rank = rank_of(convert<acc_t<T>>(row[i]));
        entries[static_cast<std::size_t>(i)] = Packing::make(descending ? ~rank : rank, i);  // positions ascend in both orders
      }
      if (take == n) sort_entries(entries);
      else std::partial_sort(entries.begin(), entries.begin() + take, entries.end());
      for (std::int64_t i = 0; i < take; ++i) {
        const std::int64_t position = Packing::position(entries[static_cast<std::size_t>(i)]);
        values.as<T>()[r * take + i] = row[position];
        indices.as<std::int64_t>()[r * take + i] = position;
      }
    }
  });
}

void sort_any(const Strided& values, const Strided& indices, const Strided& x, bool descending) {
  if (values.count() == 0) return;
  visit_all(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<acc_t<T>, float>) {
      if (x.shape[1] <= std::numeric_limits<std::uint32_t>::max()) return sort_rows<Narrow, T>(values, indices, x, descending);
    }
    sort_rows<Wide, T>(values, indices, x, descending);
  });
}

}  // namespace

void sort(Context&, Strided values, Strided indices, Strided x, bool descending) { sort_any(values, indices, x, descending); }

void topk(Context&, Strided values, Strided indices, Strided x) { sort_any(values, indices, x, true); }

}  // namespace cambium::kernels::cpu
