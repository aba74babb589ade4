// Sums, products and extrema over any set of dimensions, by trees that depend on shape and layout alone.
#include <bit>
#include <limits>
#include <vector>

#include "kernels/choices.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t kBlock = 1024;   // elements that 16 running values take up before they are joined in pairs
constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kColumns = 512;  // columns of a task when whole rows are added up
constexpr std::int64_t kLeafRows = 16;

struct Sum {
  template <class A> static constexpr A identity() { return A(0); }
  template <class A> static A join(A a, A b) {
    if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    else return a + b;
  }
};
struct Product {
  template <class A> static constexpr A identity() { return A(1); }
  template <class A> static A join(A a, A b) {
    if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
    else return a * b;
  }
};
// NaN in either operand stays.
struct Maximum {
  template <class A> static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::min() : -std::numeric_limits<A>::infinity();
  }
  template <class A> static A join(A a, A b) { return a > b || a != a ? a : b; }
};
struct Minimum {
  template <class A> static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::max() : std::numeric_limits<A>::infinity();
  }
  template <class A> static A join(A a, A b) { return a < b || a != a ? a : b; }
};

/// The dimensions of a reduction, each group ordered by x's strides and merged; `kept` has x's strides and `out` the result's.
struct Plan {
  Strided kept, out, reduced;
  ConvertRow load, store;
  bool direct;  // x is of the type that is computed in
};

template <class A>
const A* element(const Plan& plan, std::int64_t offset) {
  return reinterpret_cast<const A*>(static_cast<const std::byte*>(plan.kept.data) + offset * item_size(plan.kept.dtype));
}

// n <= kBlock contiguous values.
template <class Op, class A>
A reduce_block(const A* x, std::int64_t n) {
  A lanes[kLanes];
  for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = Op::template identity<A>();
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = Op::join(lanes[j], x[i + j]);
  for (std::int64_t j = 0; i + j < n; ++j) lanes[j] = Op::join(lanes[j], x[i + j]);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t j = 0; j < width; ++j) lanes[j] = Op::join(lanes[j], lanes[j + width]);
  return lanes[0];
}

template <class Op, class A>
A reduce_line(const Plan& plan, std::int64_t offset, std::int64_t n, std::int64_t stride) {
  if (n <= kBlock) {
    if (plan.direct && stride == 1) return reduce_block<Op>(element<A>(plan, offset), n);
    A buffer[kBlock];
    plan.load(buffer, 1, element<A>(plan, offset), stride, n);
    return reduce_block<Op>(buffer, n);
  }
  const std::int64_t left = (n / 2 + kBlock - 1) / kBlock * kBlock;
  return Op::join(reduce_line<Op, A>(plan, offset, left, stride), reduce_line<Op, A>(plan, offset + left * stride, n - left, stride));
}

template <class Op, class F>
auto tree(std::int64_t begin, std::int64_t end, const F& leaf) -> decltype(leaf(begin)) {
  if (end - begin == 1) return leaf(begin);
  const std::int64_t middle = begin + (end - begin) / 2;
  return Op::join(tree<Op>(begin, middle, leaf), tree<Op>(middle, end, leaf));
}

// Every result is made of pieces: stretches of a line, or several short lines.
template <class Op, class A>
void reduce_lines(const Plan& plan) {
  const Strided& reduced = plan.reduced;
  const std::int64_t n = reduced.size(-1), stride = reduced.stride(-1), lines = reduced.count() / n;
  const std::int64_t results = plan.kept.count();
  const std::int64_t stretches = (n + kGrain - 1) / kGrain, lines_per_piece = stretches > 1 ? 1 : std::max<std::int64_t>(1, kGrain / n);
  const std::int64_t pieces = stretches > 1 ? lines * stretches : (lines + lines_per_piece - 1) / lines_per_piece;
  std::vector<A> partial(static_cast<std::size_t>(results * pieces));
  Strided line = reduced;  // all but the last dimension
  line.rank -= 1;
  parallel_ranges(results * pieces, std::max<std::int64_t>(1, kGrain / std::min(n * lines, n * lines_per_piece)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t base = offset_of(plan.kept, at / pieces), piece = at % pieces;
      A& value = partial[static_cast<std::size_t>(at)];
      if (stretches > 1) {
        const std::int64_t first = piece % stretches * kGrain;
        value = reduce_line<Op, A>(plan, base + offset_of(line, piece / stretches) + first * stride, std::min(kGrain, n - first), stride);
      } else {
        const std::int64_t first = piece * lines_per_piece;
        value = tree<Op>(first, std::min(lines, first + lines_per_piece),
                         [&](std::int64_t i) { return reduce_line<Op, A>(plan, base + offset_of(line, i), n, stride); });
      }
    }
  });
  for (std::int64_t i = 0; i < results; ++i) {
    const A value = tree<Op>(0, pieces, [&](std::int64_t piece) { return partial[static_cast<std::size_t>(i * pieces + piece)]; });
    plan.store(static_cast<std::byte*>(plan.out.data) + offset_of(plan.out, i) * item_size(plan.out.dtype), 1, &value, 1, 1);
  }
}

// Rows [begin, end) of `columns` values into `sums`; `scratch` has room for one row of sums per level of the tree, and for one row.
template <class Op, class A>
void reduce_rows(const Plan& plan, std::int64_t base, std::int64_t begin, std::int64_t end, std::int64_t columns, A* sums, A* scratch) {
  if (end - begin > kLeafRows) {
    const std::int64_t middle = begin + (end - begin) / 2;
    reduce_rows<Op>(plan, base, begin, middle, columns, sums, scratch);
    reduce_rows<Op>(plan, base, middle, end, columns, scratch, scratch + columns);
    for (std::int64_t j = 0; j < columns; ++j) sums[j] = Op::join(sums[j], scratch[j]);
    return;
  }
  plan.load(sums, 1, element<A>(plan, base + offset_of(plan.reduced, begin)), 1, columns);
  for (std::int64_t row = begin + 1; row < end; ++row) {
    const A* values = element<A>(plan, base + offset_of(plan.reduced, row));
    if (!plan.direct) {
      plan.load(scratch, 1, values, 1, columns);
      values = scratch;
    }
    for (std::int64_t j = 0; j < columns; ++j) sums[j] = Op::join(sums[j], values[j]);
  }
}

template <class Op, class A>
void reduce_columns(const Plan& plan) {
  const std::int64_t width = plan.kept.size(-1), outer = plan.kept.count() / width, rows = plan.reduced.count();
  const std::int64_t blocks = (width + kColumns - 1) / kColumns, rows_per_piece = std::max(kLeafRows, 2 * kGrain / std::min(width, kColumns));
  const std::int64_t pieces = (rows + rows_per_piece - 1) / rows_per_piece;
  const auto levels = static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(rows_per_piece))) + 2;
  std::vector<A> partial(static_cast<std::size_t>(outer * width * pieces));
  Strided kept = plan.kept, out = plan.out;  // all but the last dimension
  kept.rank -= 1;
  out.rank -= 1;
  const auto sums_of = [&](std::int64_t o, std::int64_t piece, std::int64_t column) {
    return partial.data() + (o * pieces + piece) * width + column;
  };
  const std::int64_t pieces_per_task = std::max<std::int64_t>(1, kGrain / (std::min(rows, rows_per_piece) * std::min(width, kColumns)));
  parallel_ranges(outer * pieces * blocks, pieces_per_task, [&](std::int64_t begin, std::int64_t end) {
    std::vector<A> scratch(static_cast<std::size_t>(levels * std::min(width, kColumns)));
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t column = at % blocks * kColumns, piece = at / blocks % pieces, o = at / blocks / pieces, first = piece * rows_per_piece;
      reduce_rows<Op>(plan, offset_of(kept, o) + column, first, std::min(rows, first + rows_per_piece), std::min(kColumns, width - column),
                      sums_of(o, piece, column), scratch.data());
    }
  });
  parallel_ranges(outer * blocks, std::max<std::int64_t>(1, kGrain / (pieces * std::min(width, kColumns))), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t column = at % blocks * kColumns, o = at / blocks, columns = std::min(kColumns, width - column);
      for (std::int64_t step = 1; step < pieces; step *= 2) {  // pairs, then pairs of pairs
        for (std::int64_t piece = 0; piece + step < pieces; piece += 2 * step) {
          A* to = sums_of(o, piece, column);
          const A* from = sums_of(o, piece + step, column);
          for (std::int64_t j = 0; j < columns; ++j) to[j] = Op::join(to[j], from[j]);
        }
      }
      const std::int64_t stride = plan.out.stride(-1);
      plan.store(static_cast<std::byte*>(out.data) + (offset_of(out, o) + column * stride) * item_size(out.dtype), stride, sums_of(o, 0, column), 1, columns);
    }
  });
}

template <class Op, class A>
void run(const Plan& plan) {
  const bool by_columns = plan.kept.stride(-1) == 1 && plan.kept.size(-1) > 1 && (plan.reduced.stride(-1) != 1 || plan.reduced.count() == 1);
  by_columns ? reduce_columns<Op, A>(plan) : reduce_lines<Op, A>(plan);
}

}  // namespace

void reduce(Context& context, Reduction reduction, Strided out, Strided x) {
  if (out.count() == 0) return;
  if (x.count() == 0) return fill(context, out, empty_value(reduction));
  Plan plan{x, out, x, nullptr, nullptr, false};
  plan.kept.rank = plan.out.rank = plan.reduced.rank = 0;
  for (int i = 0; i < x.rank; ++i) {
    Strided& group = out.shape[i] == 1 ? plan.reduced : plan.kept;
    group.shape[group.rank] = x.shape[i];
    group.strides[group.rank] = x.strides[i];
    if (out.shape[i] != 1) {
      plan.out.shape[plan.out.rank] = x.shape[i];
      plan.out.strides[plan.out.rank++] = out.strides[i];
    }
    ++group.rank;
  }
  Strided *kept[] = {&plan.kept, &plan.out}, *reduced[] = {&plan.reduced};
  order_dimensions(kept, 2);
  collapse(kept, 2);
  order_dimensions(reduced, 1);
  collapse(reduced, 1);
  visit_compute(x.dtype, [&](auto tag) {
    using A = typename decltype(tag)::type;
    plan.load = convert_row(dtype_of<A>, x.dtype);
    plan.store = convert_row(out.dtype, dtype_of<A>);
    plan.direct = x.dtype == dtype_of<A>;
    switch (reduction) {
      case Reduction::sum: return run<Sum, A>(plan);
      case Reduction::product: return run<Product, A>(plan);
      case Reduction::maximum: return run<Maximum, A>(plan);
      case Reduction::minimum: return run<Minimum, A>(plan);
    }
  });
}

}  // namespace cambium::kernels::cpu
