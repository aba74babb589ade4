// Sums, products and extrema over any set of dimensions, by trees that depend on shape and layout alone.
#include <vector>

#include "kernels/choices.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.h"

namespace cambium::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::uint32_t kRun = 64;        // values that a thread takes up before they are joined with what it has
constexpr std::int64_t kPiece = 16384;    // values of a piece of a long line
constexpr std::int64_t kManyResults = 1024;  // with so many, lines are not cut into pieces
constexpr std::int64_t kPieceRows = 256;  // rows of a piece when whole rows are added up
constexpr int kColumnLanes = 32, kRowLanes = kThreads / kColumnLanes;
constexpr std::int64_t kLeastColumns = 16;

struct ProductOf {
  template <class A> __host__ __device__ static constexpr A identity() { return A(1); }
  template <class A> __device__ static A join(A a, A b) {
    if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
    else return a * b;
  }
};
struct MinimumOf {
  template <class A> __host__ __device__ static constexpr A identity() {
    return std::is_integral_v<A> ? std::numeric_limits<A>::max() : std::numeric_limits<A>::infinity();
  }
  template <class A> __device__ static A join(A a, A b) { return a < b || a != a ? a : b; }
};

// Values in packs of V, joined or lane by lane. Only floats have an element type of their own.
template <class T, int V>
struct Source {
  using Value = acc_t<T>;
  static constexpr int kWidth = V;
  const T* data;
  __device__ __forceinline__ void values(std::int64_t offset, Value (&to)[V]) const {
    const Pack<T, V> pack = load_pack<V>(data + offset);
    for (int j = 0; j < V; ++j) to[j] = convert_to<Value>(pack.element[j]);
  }
};
struct IntegerSource {
  using Value = std::int64_t;
  static constexpr int kWidth = 1;
  Elements elements;
  __device__ __forceinline__ void values(std::int64_t offset, Value (&to)[1]) const { to[0] = elements.load<Value>(offset); }
};

// Results go out at once if there is one piece, else to partial[piece + pieces * result] for the second launch.
template <class A>
struct Sink {
  Elements out;
  A* partial;
  std::uint32_t first_piece, pieces;  // of this launch; in all
  __device__ __forceinline__ void put(std::uint32_t result, std::uint32_t piece, std::int32_t out_offset, A value) const {
    if (partial) partial[static_cast<std::int64_t>(result) * pieces + first_piece + piece] = value;
    else out.store(out_offset, value);
  }
};

// `lanes` threads, 1, 32 or all of the block, join their values.
template <class Op, class A>
__device__ __forceinline__ A join_lanes(A value, int lanes) {
  if (lanes == 1) return value;
  return lanes == static_cast<int>(kWarp) ? warp_reduce<Op>(value) : block_reduce<Op, kThreads>(value);
}

// Every result is made of pieces of `length` packs of its elements. kept: the results in x and out; line: what is reduced, in packs.
template <class Op, class From>
__global__ void __launch_bounds__(kThreads)
    reduce_lines_kernel(Layout<2> kept, Layout<1> line, From x, Sink<typename From::Value> sink, std::uint32_t pieces, std::uint32_t length, int lanes) {
  using A = typename From::Value;
  constexpr int V = From::kWidth;
  const std::uint32_t per_block = kThreads / static_cast<std::uint32_t>(lanes), lane = threadIdx.x % static_cast<std::uint32_t>(lanes);
  const std::uint32_t step = static_cast<std::uint32_t>(lanes);
  for (std::uint32_t item = blockIdx.x * per_block + threadIdx.x / step; item < kept.count * pieces; item += gridDim.x * per_block) {
    const std::uint32_t result = item / pieces, piece = item % pieces;
    std::int32_t base[2];
    kept.locate(result, base);
    const std::uint32_t begin = piece * length, end = begin + length < line.count ? begin + length : line.count;
    A total = Op::template identity<A>();
    for (std::uint32_t run = begin; run < end; run += kRun * step) {
      A sum = Op::template identity<A>();
      const std::uint32_t run_end = run + kRun * step < end ? run + kRun * step : end;
      for (std::uint32_t i = run + lane; i < run_end; i += step) {
        std::int32_t at[1];
        line.locate(i, at);
        A values[V];
        x.values(static_cast<std::int64_t>(base[0]) + at[0], values);
        for (int j = 0; j < V; ++j) sum = Op::join(sum, values[j]);
      }
      total = Op::join(total, sum);
    }
    total = join_lanes<Op>(total, lanes);
    if (lane == 0) sink.put(result, piece, base[1], total);
  }
}

// Rows of neighbouring results: 32 lanes take V columns each, 8 lines of them every eighth row of a piece. kept counts packs of columns.
template <class Op, class From>
__global__ void __launch_bounds__(kThreads)
    reduce_columns_kernel(Layout<2> kept, Layout<1> rows, From x, Sink<typename From::Value> sink, std::uint32_t pieces, std::int32_t out_step) {
  using A = typename From::Value;
  constexpr int V = From::kWidth;
  KSHARED(sums, A[kRowLanes][V][kColumnLanes]);
  const std::uint32_t lane = threadIdx.x % kColumnLanes, line = threadIdx.x / kColumnLanes;
  const std::uint32_t blocks = (kept.count + kColumnLanes - 1) / kColumnLanes;
  for (std::uint32_t item = blockIdx.x; item < blocks * pieces; item += gridDim.x) {
    const std::uint32_t piece = item % pieces, column = item / pieces * kColumnLanes + lane;
    const bool inside = column < kept.count;
    std::int32_t base[2];
    kept.locate(inside ? column : 0, base);
    A totals[V];
    for (int j = 0; j < V; ++j) totals[j] = Op::template identity<A>();
    const std::uint32_t begin = piece * static_cast<std::uint32_t>(kPieceRows);
    const std::uint32_t end = begin + kPieceRows < rows.count ? begin + static_cast<std::uint32_t>(kPieceRows) : rows.count;
    for (std::uint32_t row = begin + line; inside && row < end; row += kRowLanes) {
      std::int32_t at[1];
      rows.locate(row, at);
      A values[V];
      x.values(static_cast<std::int64_t>(base[0]) + at[0], values);
      for (int j = 0; j < V; ++j) totals[j] = Op::join(totals[j], values[j]);
    }
    for (int j = 0; j < V; ++j) sums[line][j][lane] = totals[j];
    __syncthreads();
    for (std::uint32_t half = kRowLanes / 2; half > 0; half /= 2) {
      if (line < half)
        for (int j = 0; j < V; ++j) sums[line][j][lane] = Op::join(sums[line][j][lane], sums[line + half][j][lane]);
      __syncthreads();
    }
    if (line == 0 && inside)
      for (int j = 0; j < V; ++j) sink.put(column * V + static_cast<std::uint32_t>(j), piece, base[1] + j * out_step, sums[0][j][lane]);
    __syncthreads();
  }
}

// A warp joins the pieces of a result.
template <class Op, class A>
__global__ void __launch_bounds__(kThreads) reduce_pieces_kernel(Layout<1> results, Elements out, const A* partial, std::uint32_t pieces) {
  const std::uint32_t lane = threadIdx.x % kWarp, per_block = kThreads / kWarp;
  for (std::uint32_t result = blockIdx.x * per_block + threadIdx.x / kWarp; result < results.count; result += gridDim.x * per_block) {
    A value = Op::template identity<A>();
    for (std::uint32_t piece = lane; piece < pieces; piece += kWarp) value = Op::join(value, partial[static_cast<std::int64_t>(result) * pieces + piece]);
    value = warp_reduce<Op>(value);
    std::int32_t at[1];
    results.locate(result, at);
    if (lane == 0) out.store(at[0], value);
  }
}

// What is reduced, in parts that a Layout takes, and how many pieces each has.
struct Parts {
  std::vector<Strided> boxes;
  std::vector<std::uint32_t> pieces;
  std::uint32_t all = 0;
};

bool by_columns(const Strided& kept, const Strided& box) {
  return kept.stride(-1) == 1 && kept.size(-1) >= kLeastColumns && (box.stride(-1) != 1 || box.count() == 1);
}

template <class T, int V>
Source<T, V> source_of(const void* data) { return {static_cast<const T*>(data)}; }

template <class Op, class From>
void launch_lines(Context& context, const std::array<Strided, 2>& kept, const Strided& box, From x, const Sink<typename From::Value>& sink, std::uint32_t pieces) {
  const Layout<2> results(kept);
  const Layout<1> line({box});
  const int lanes = line.count <= 8 ? 1 : line.count <= 1024 ? static_cast<int>(kWarp) : kThreads;
  const std::uint32_t length = ceil_div(line.count, pieces);
  const std::int64_t items = static_cast<std::int64_t>(results.count) * pieces;
  launch(KERNEL(reduce_lines_kernel<Op, From>), grid_for(items, kThreads / lanes), kThreads, 0, stream_of(context), results, line, x, sink, pieces, length, lanes);
}

template <class Op, class From>
void launch_columns(Context& context, std::array<Strided, 2> kept, const Strided& box, From x, const Sink<typename From::Value>& sink, std::uint32_t pieces) {
  const int last = kept[0].rank - 1;
  const std::int32_t out_step = static_cast<std::int32_t>(kept[1].strides[last]);
  for (Strided& s : kept) {
    s.shape[last] /= From::kWidth;
    s.strides[last] *= From::kWidth;
  }
  const Layout<2> columns(kept);
  const std::int64_t items = ceil_div<std::int64_t>(columns.count, kColumnLanes) * pieces;
  launch(KERNEL(reduce_columns_kernel<Op, From>), grid_for(items, 1), kThreads, 0, stream_of(context), columns, Layout<1>({box}), x, sink, pieces, out_step);
}

// True if kept columns, or the line, can be read in packs of `pack`.
bool aligned_rows(const Strided& rows, const Strided& others, std::int64_t pack) {
  const int last = rows.rank - 1;
  if (rows.strides[last] != 1 || rows.shape[last] % pack != 0 || reinterpret_cast<std::uintptr_t>(rows.data) % static_cast<std::uintptr_t>(pack * item_size(rows.dtype)) != 0)
    return false;
  for (int i = 0; i < last; ++i)
    if (rows.strides[i] % pack != 0) return false;
  for (int i = 0; i < others.rank; ++i)
    if (others.shape[i] > 1 && others.strides[i] % pack != 0) return false;
  return true;
}

template <class Op, class T>
void launch_floats(Context& context, const std::array<Strided, 2>& kept, Strided box, const Sink<acc_t<T>>& sink, std::uint32_t pieces, bool columns) {
  constexpr int V = kPack<T> < 4 ? kPack<T> : 4;
  if (columns) {
    Strided rows = kept[0];
    rows.data = box.data;
    if constexpr (std::is_same_v<Op, SumOf>)
      if (aligned_rows(rows, box, V)) return launch_columns<Op>(context, kept, box, source_of<T, V>(box.data), sink, pieces);
    return launch_columns<Op>(context, kept, box, source_of<T, 1>(box.data), sink, pieces);
  }
  if constexpr (std::is_same_v<Op, SumOf>) {
    constexpr int W = kPack<T>;
    if (aligned_rows(box, kept[0], W)) {
      box.shape[box.rank - 1] /= W;
      box.strides[box.rank - 1] = W;
      return launch_lines<Op>(context, kept, box, source_of<T, W>(box.data), sink, pieces);
    }
  }
  launch_lines<Op>(context, kept, box, source_of<T, 1>(box.data), sink, pieces);
}

template <class Op>
void run(Context& context, const std::array<Strided, 2>& kept, const Strided& x, const Parts& parts, bool columns) {
  visit_computed(x.dtype, [&](auto tag) {
    using A = typename decltype(tag)::type;
    const std::int64_t results = kept[0].count();
    const Scratch<A> partial(context, parts.all > 1 ? results * parts.all : 0);
    Sink<A> sink{Elements(kept[1]), parts.all > 1 ? partial.data() : nullptr, 0, parts.all};
    for (std::size_t i = 0; i < parts.boxes.size(); ++i) {
      Strided box = parts.boxes[i];  // moved to where this part of the results begins
      box.data = box.as<std::byte>() + (kept[0].as<std::byte>() - x.as<std::byte>());
      if constexpr (std::is_integral_v<A>) {
        if (columns) launch_columns<Op>(context, kept, box, IntegerSource{Elements(box)}, sink, parts.pieces[i]);
        else launch_lines<Op>(context, kept, box, IntegerSource{Elements(box)}, sink, parts.pieces[i]);
      } else {
        visit_float(x.dtype, "reduce", [&](auto element_tag) {
          using T = typename decltype(element_tag)::type;
          if constexpr (std::is_same_v<acc_t<T>, A>) launch_floats<Op, T>(context, kept, box, sink, parts.pieces[i], columns);
        });
      }
      sink.first_piece += parts.pieces[i];
    }
    if (parts.all > 1)
      launch(KERNEL(reduce_pieces_kernel<Op, A>), grid_for(results, kThreads / static_cast<int>(kWarp)), kThreads, 0, stream_of(context), Layout<1>({kept[1]}), Elements(kept[1]),
             partial.data(), parts.all);
  });
}

}  // namespace

void reduce(Context& context, Reduction reduction, Strided out, Strided x) {
  if (out.count() == 0) return;
  if (x.count() == 0) return fill(context, out, empty_value(reduction));
  Strided kept = x, target = out, reduced = x;
  kept.rank = target.rank = reduced.rank = 0;
  for (int i = 0; i < x.rank; ++i) {
    Strided& group = out.shape[i] == 1 ? reduced : kept;
    group.shape[group.rank] = x.shape[i];
    group.strides[group.rank++] = x.strides[i];
    if (out.shape[i] == 1) continue;
    target.shape[target.rank] = x.shape[i];
    target.strides[target.rank++] = out.strides[i];
  }
  for_each_part<2>({kept, target}, [&](const std::array<Strided, 2>& part) {
    Parts parts;
    bool columns = false;
    for_each_part<1>({reduced}, [&](const std::array<Strided, 1>& box) {
      if (parts.boxes.empty()) columns = by_columns(part[0], box[0]);
      const std::int64_t count = box[0].count();
      parts.boxes.push_back(box[0]);
      parts.pieces.push_back(static_cast<std::uint32_t>(columns ? ceil_div(count, kPieceRows) : part[0].count() >= kManyResults ? 1 : ceil_div(count, kPiece)));
      parts.all += parts.pieces.back();
    });
    switch (reduction) {
      case Reduction::sum: return run<SumOf>(context, part, x, parts, columns);
      case Reduction::product: return run<ProductOf>(context, part, x, parts, columns);
      case Reduction::maximum: return run<MaximumOf>(context, part, x, parts, columns);
      case Reduction::minimum: return run<MinimumOf>(context, part, x, parts, columns);
    }
  });
}

}  // namespace cambium::kernels::cuda
