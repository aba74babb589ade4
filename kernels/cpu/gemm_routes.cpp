// How a matrix product is cut into tasks: the packed route, and the two routes for few lines against many.
#include <unistd.h>

#include <algorithm>

#include "kernels/cpu/gemm_driver.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::int64_t up(std::int64_t x, std::int64_t step) { return (x + step - 1) / step; }

std::int64_t second_level_cache() {
  static const std::int64_t bytes = [] {
    const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return found >= (128 << 10) ? static_cast<std::int64_t>(found) : std::int64_t{1} << 20;
  }();
  return bytes;
}

}  // namespace

/// The cut of a packed product. It depends on sizes and caches, never on the number of threads.
template <class T>
struct GemmCut {
  std::int64_t range;                         // of K
  std::int64_t columns, column_tasks;         // columns of a task
  std::int64_t rows, row_blocks;              // rows packed together
  bool shared;                                // A is packed once for all column tasks, before them
  bool whole;                                 // all ranges of B are packed before the first is used: sums wait in a small buffer
  GemmCut(const GemmFunctions<T>& f, const GemmProblem<T>& s, bool direct) : range(range_of<T>(s.K)) {
    const std::int64_t W = f.panel_columns, item = sizeof(T);
    whole = !direct && s.K > range;
    // With one range the packed rows stay in the cache beside a small block of columns; with several they stream past a large one.
    const std::int64_t budget = second_level_cache() * (s.K > range ? 2 : 1) / 5 / (item * (whole ? s.K : range));
    const std::int64_t most = std::clamp<std::int64_t>(budget / W, 1, 256 / W < 1 ? 1 : 256 / W);
    const std::int64_t enough = up(std::int64_t{1} << 19, s.M * s.K * W);  // panels that make a task worth handing out
    const std::int64_t panels = up(s.N, W);
    std::int64_t per = std::min(most, std::max({panels / (s.K > range ? 4 : 8), enough, std::int64_t{1}}));
    columns = std::min(per * W, panels * W);
    column_tasks = up(s.N, columns);
    shared = s.batch == 1 && column_tasks > 1;
    row_blocks = up(s.M, shared ? 1024 : 256);
    rows = up(s.M, row_blocks);
    row_blocks = up(s.M, rows);
  }
};

/// Rows of one block of A, cut into panels of nearly equal height, and its packed place.
struct GemmPanels {
  std::int64_t count, base, extra;
  GemmPanels(std::int64_t rows, std::int64_t height) : count(up(rows, height)), base(rows / count), extra(rows % count) {}
  std::int64_t start(std::int64_t panel) const { return panel * base + std::min(panel, extra); }
};

namespace {

template <class T>
void pack_panels(const GemmFunctions<T>& f, T* to, const GemmSource& a, const GemmPanels& panels, std::int64_t first, std::int64_t last, std::int64_t K, std::int64_t range) {
  const std::int64_t R = f.panel_rows;
  for (std::int64_t from = 0; from < K; from += range) {
    const std::int64_t length = std::min(range, K - from);
    const GemmSource source = GemmProblem<T>::moved(a, panels.start(first) * a.line + from * a.k);
    f.pack_rows(to + from * panels.count * R + first * R * length, source, last - first, panels.base, std::max<std::int64_t>(panels.extra - first, 0), length);
  }
}

/// GemmPanels [first, last) of packed rows against `columns` columns from `column` on. `c` starts at the first row of the block of panels.
template <class T>
void multiply(const GemmFunctions<T>& f, const GemmProblem<T>& s, const GemmCut<T>& cut, const T* a, const GemmSource& b, const GemmTarget<T>& c,
              const GemmPanels& panels, std::int64_t first, std::int64_t last, std::int64_t column, std::int64_t columns) {
  const std::int64_t R = f.panel_rows, W = f.panel_columns, L = W / 2, padded = up(columns, L) * L, all = up(s.N, L) * L;
  const GemmSource from_column = GemmProblem<T>::moved(b, column * b.line);
  const Scratch<T> packed(s.prepacked ? 0 : padded * (cut.whole ? s.K : cut.range));
  const auto b_at = [&](std::int64_t from, std::int64_t length) -> const T* {
    if (s.prepacked) return static_cast<const T*>(s.prepacked) + from * all + column * length;
    return packed.data() + (cut.whole ? from * padded : 0);
  };
  const auto pack_b = [&](std::int64_t from, std::int64_t length) {
    if (!s.prepacked) f.pack_columns(packed.data() + (cut.whole ? from * padded : 0), GemmProblem<T>::moved(from_column, from * b.k), columns, length);
  };
  GemmBlock<T> block{};
  block.base = panels.base;
  block.extra = panels.extra;
  block.first_column = column;
  block.columns = columns;
  block.partial_stride = padded;
  const auto run = [&](std::int64_t from, std::int64_t p0, std::int64_t p1) {
    block.k = std::min(cut.range, s.K - from);
    block.a = a + from * panels.count * R + p0 * R * block.k;
    block.b = b_at(from, block.k);
    block.first_panel = p0;
    block.last_panel = p1;
    block.first = from == 0;
    block.last = from + block.k == s.K;
    f.block(block, c);
  };
  if (!cut.whole) {
    for (std::int64_t from = 0; from < s.K; from += cut.range) {
      pack_b(from, std::min(cut.range, s.K - from));
      run(from, first, last);
    }
    return;
  }
  for (std::int64_t from = 0; from < s.K; from += cut.range) pack_b(from, std::min(cut.range, s.K - from));
  constexpr std::int64_t group = 4;
  const Scratch<T> partial(group * R * padded);
  block.partial = partial.data();
  for (std::int64_t p = first; p < last; p += group)
    for (std::int64_t from = 0; from < s.K; from += cut.range) run(from, p, std::min(p + group, last));
}

}  // namespace

template <class T>
void gemm_packed(const GemmFunctions<T>& f, const GemmProblem<T>& s) {
  const bool direct = s.c.type == (sizeof(T) == 8 ? Storage::f64 : Storage::f32) && s.c.column == 1 && !s.c.bias && s.c.activation == GemmActivation::none;
  const GemmCut<T> cut(f, s, direct);
  const std::int64_t R = f.panel_rows;
  const auto target = [&](std::int64_t item, std::int64_t row) {
    GemmTarget<T> c = s.c_of(item);
    c.data = static_cast<char*>(c.data) + row * c.row * bytes_of(c.type);
    if (c.bias && c.bias_by_row) c.bias += row;
    return c;
  };
  if (!cut.shared) {
    parallel_for(s.batch * cut.row_blocks * cut.column_tasks, [&](std::int64_t task) {
      const std::int64_t part = task % cut.column_tasks, block = task / cut.column_tasks % cut.row_blocks, item = task / cut.column_tasks / cut.row_blocks;
      const std::int64_t row = block * cut.rows, rows = std::min(cut.rows, s.M - row), column = part * cut.columns;
      const GemmPanels panels(rows, R);
      const Scratch<T> a(panels.count * R * s.K);
      pack_panels(f, a.data(), GemmProblem<T>::moved(s.a_of(item), row * s.a.line), panels, 0, panels.count, s.K, cut.range);
      multiply(f, s, cut, a.data(), s.b_of(item), target(item, row), panels, 0, panels.count, column, std::min(cut.columns, s.N - column));
    });
    return;
  }
  const Scratch<T> a((up(cut.rows, R)) * R * s.K);
  for (std::int64_t row = 0; row < s.M; row += cut.rows) {
    const GemmPanels panels(std::min(cut.rows, s.M - row), R);
    const GemmSource source = GemmProblem<T>::moved(s.a, row * s.a.line);
    const std::int64_t group = std::max<std::int64_t>(1, (std::int64_t{1} << 17) / (R * s.K));
    parallel_ranges(panels.count, group, [&](std::int64_t first, std::int64_t last) { pack_panels(f, a.data(), source, panels, first, last, s.K, cut.range); });
    // Too few column tasks are cut by rows as well, each packing its columns again.
    const std::int64_t parts = cut.column_tasks >= 4 ? 1 : std::clamp<std::int64_t>(4 / cut.column_tasks, 1, std::max<std::int64_t>(1, panels.count / 8));
    const std::int64_t per = up(panels.count, parts);
    const GemmTarget<T> c = target(0, row);
    parallel_for(cut.column_tasks * up(panels.count, per), [&](std::int64_t task) {
      const std::int64_t column = task % cut.column_tasks * cut.columns, first = task / cut.column_tasks * per;
      multiply(f, s, cut, a.data(), s.b, c, panels, first, std::min(first + per, panels.count), column, std::min(cut.columns, s.N - column));
    });
  }
}

template void gemm_packed(const GemmFunctions<float>&, const GemmProblem<float>&);
template void gemm_packed(const GemmFunctions<double>&, const GemmProblem<double>&);

namespace {

/// Rows of A as dense floats: where they lie if they are, else copied for every item of the batch.
class DenseRows {
 public:
  DenseRows(const GemmTable& table, const GemmProblem<float>& s)
      : copied_(s.a.type != Storage::f32 || (s.a.k != 1 && s.K > 1)), stride_(copied_ ? s.K : s.a.line), step_(copied_ ? s.M * s.K : s.a_step),
        copy_(copied_ ? s.batch * s.M * s.K : 0), data_(copied_ ? copy_.data() : static_cast<const float*>(s.a.data)) {
    if (copied_) parallel_for(s.batch, [&](std::int64_t item) { table.single.gather(copy_.data() + item * step_, stride_, s.a_of(item), s.M, s.K); });
  }
  const float* of(std::int64_t item) const { return data_ + item * step_; }
  std::int64_t stride() const { return stride_; }

 private:
  bool copied_;
  std::int64_t stride_, step_;
  Scratch<float> copy_;
  const float* data_;
};

}  // namespace

void gemm_dot(const GemmTable& table, const GemmProblem<float>& s) {
  constexpr std::int64_t room = 8192;
  const DenseRows p(table, s);
  const std::int64_t lines = std::clamp<std::int64_t>((std::int64_t{1} << 16) / s.K / 16 * 16, 16, std::min<std::int64_t>(512, room / s.M / 16 * 16));
  const std::int64_t blocks = up(s.N, lines);
  const bool along_rows = s.c.row == 1 && s.c.column != 1;  // C lies dense along M: sums are laid out alike
  parallel_for(s.batch * blocks, [&](std::int64_t task) {
    const std::int64_t item = task / blocks, from = task % blocks * lines, n = std::min(lines, s.N - from);
    alignas(64) float sums[room];
    const GemmSource q = GemmProblem<float>::moved(s.b_of(item), from * s.b.line);
    GemmTarget<float> c = s.c_of(item);
    if (along_rows) {
      table.dot(sums, 1, s.M, p.of(item), p.stride(), s.M, q, n, s.K);
      std::swap(c.row, c.column);
      c.bias_by_row = !c.bias_by_row;
      table.single.finish(sums, s.M, n, s.M, from, 0, c);
    } else {
      table.dot(sums, lines, 1, p.of(item), p.stride(), s.M, q, n, s.K);
      table.single.finish(sums, lines, s.M, n, 0, from, c);
    }
  });
}

void gemm_accumulate(const GemmTable& table, const GemmProblem<float>& s) {
  constexpr std::int64_t lines = 512;
  const DenseRows p(table, s);
  const std::int64_t blocks = up(s.N, lines);
  parallel_for(s.batch * blocks, [&](std::int64_t task) {
    const std::int64_t item = task / blocks, from = task % blocks * lines, n = std::min(lines, s.N - from);
    alignas(64) float sums[4 * lines];
    table.accumulate(sums, lines, p.of(item), p.stride(), s.M, GemmProblem<float>::moved(s.b_of(item), from * s.b.line), n, s.K);
    table.single.finish(sums, lines, s.M, n, 0, from, s.c_of(item));
  });
}

}  // namespace cambium::kernels::cpu
