// Rows of views, joins, cuts, repetitions and conversions.
#include <algorithm>
#include <cmath>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Index = std::vector<std::int64_t>;

// An op that only moves elements: out[i] = x[source(i)].
OpRow moving(std::string name, std::string variant, std::function<Tensor(const Tensor&)> call, std::function<Index(const Index&)> shape,
             std::function<Index(const Index& at, const Index& shape)> source, std::vector<Inputs> samples, std::vector<BadInput> bad = {}) {
  OpRow out{std::move(name), std::move(variant), [call](const Inputs& x) { return call(x[0]); }, [=](const std::vector<Array>& x) {
    Array moved(shape(x[0].shape));
    for_each_index(moved.shape, [&](const Index& i) { moved[i] = x[0].at(source(i, x[0].shape)); });
    return moved;
  }};
  out.samples = std::move(samples);
  out.bad = std::move(bad);
  return out;
}

Index same(const Index& shape) { return shape; }
Index unravel(std::int64_t linear, const Index& shape) {
  Index at(shape.size());
  for (std::size_t d = shape.size(); d-- > 0; linear /= shape[d]) at[d] = linear % shape[d];
  return at;
}
std::int64_t ravel(const Index& at, const Index& shape) {
  std::int64_t linear = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) linear = linear * shape[d] + at[d];
  return linear;
}

std::vector<Inputs> cubes() { return {{uniform({2, 3, 4}, 1)}, {uniform({1, 1, 1}, 2)}, {uniform({3, 5, 2}, 3)}, {integers({2, 3, 4}, 4, -9, 9)}}; }

OpRow relabelled(std::string name, std::string variant, std::function<Tensor(const Tensor&)> call, std::function<Index(const Index&)> shape, std::vector<Inputs> samples, std::vector<BadInput> bad = {}) {
  return moving(std::move(name), std::move(variant), std::move(call), shape, [shape](const Index& i, const Index& from) { return unravel(ravel(i, shape(from)), from); }, std::move(samples), std::move(bad));
}

// An op whose values are those of its input.
OpRow keeping(std::string name, std::function<Tensor(const Tensor&)> call) {
  OpRow out{std::move(name), "", [call](const Inputs& x) { return call(x[0]); }, [](const std::vector<Array>& x) { return x[0]; }};
  out.samples = {{uniform({0, 2}, 1)}, {uniform({}, 2)}, {uniform({3, 5}, 3)}, {integers({7}, 4, 0, 9)}, {coins({7}, 4)}};
  out.bad = {{[call] { call(Tensor()); }, out.name + ": an input is undefined"}};
  return out;
}

void add_views(std::vector<OpRow>& rows) {
  const auto merged = [](const Index& s) { return Index{s[0] * s[1], s[2]}; };
  rows.push_back(relabelled("reshape", "", [](const Tensor& x) { return reshape(x, {-1, x.size(2)}); }, merged, cubes(),
                            {{[] { reshape(ones({2, 3}), {4, -1}); }, "reshape: 6 elements do not fit [4, -1]"}, {[] { reshape(ones({2}), {-1, -1}); }, "reshape: more than one size is -1"},
                             {[] { reshape(Tensor(), {1}); }, "reshape: an input is undefined"}}));
  rows.push_back(relabelled("reshape", "span", [](const Tensor& x) { return reshape(x, std::span<const std::int64_t>(Index{x.size(0), x.size(1) * x.size(2)})); },
                            [](const Index& s) { return Index{s[0], s[1] * s[2]}; }, cubes()));
  rows.push_back(moving("reshape", "same shape", [](const Tensor& x) { return reshape(x, x.shape().to_vector()); }, same, [](const Index& i, const Index&) { return i; }, cubes()));
  rows.push_back(relabelled("flatten", "", [](const Tensor& x) { return flatten(x, 1, 2); }, [](const Index& s) { return Index{s[0], s[1] * s[2]}; }, cubes(),
                            {{[] { flatten(ones({2, 3}), 1, 0); }, "flatten: dimension 1 comes after 0"}}));
  rows.push_back(moving("transpose", "", [](const Tensor& x) { return transpose(x, 0, -1); }, [](const Index& s) { return Index{s[2], s[1], s[0]}; },
                        [](const Index& i, const Index&) { return Index{i[2], i[1], i[0]}; }, cubes(), {{[] { transpose(ones({2}), 0, 1); }, "transpose: dimension 1 is out of range"}}));
  rows.push_back(moving("permute", "", [](const Tensor& x) { return permute(x, {2, 0, -2}); }, [](const Index& s) { return Index{s[2], s[0], s[1]}; },
                        [](const Index& i, const Index&) { return Index{i[1], i[2], i[0]}; }, cubes(),
                        {{[] { permute(ones({2, 3}), {0, 0}); }, "permute: dimension 0 appears twice"}, {[] { permute(ones({2, 3}), {0}); }, "permute: 1 positions for 2 dimensions"}}));
  rows.push_back(moving("slice", "", [](const Tensor& x) { return slice(x, 1, 1); }, [](const Index& s) { return Index{s[0], s[1] - 1, s[2]}; },
                        [](const Index& i, const Index&) { return Index{i[0], i[1] + 1, i[2]}; }, cubes(), {{[] { slice(ones({2}), 0, 0, 2, 0); }, "slice: the step must be at least 1, found 0"}}));
  rows.push_back(moving("slice", "stepping, from the end", [](const Tensor& x) { return slice(x, -1, -2, 100, 2); }, [](const Index& s) { return Index{s[0], s[1], 1}; },
                        [](const Index& i, const Index& s) { return Index{i[0], i[1], std::max<std::int64_t>(s[2] - 2, 0)}; }, cubes()));
  rows.push_back(moving("select", "", [](const Tensor& x) { return select(x, 1, -1); }, [](const Index& s) { return Index{s[0], s[2]}; },
                        [](const Index& i, const Index& s) { return Index{i[0], s[1] - 1, i[1]}; }, cubes(), {{[] { select(ones({2}), 0, 2); }, "select: index 2 is out of range for size 2"}}));
  rows.push_back(relabelled("unsqueeze", "", [](const Tensor& x) { return unsqueeze(x, -1); }, [](const Index& s) { return Index{s[0], s[1], s[2], 1}; }, cubes(),
                            {{[] { unsqueeze(ones({2}), 2); }, "unsqueeze: dimension 2 is out of range"}}));
  rows.push_back(relabelled("squeeze", "", [](const Tensor& x) { return squeeze(x, -2); }, [](const Index& s) { return Index{s[0], s[2]}; }, {{uniform({2, 1, 3}, 1)}, {uniform({0, 1, 3}, 2)}},
                            {{[] { squeeze(ones({2, 3}), 1); }, "squeeze: dimension 1 of [2, 3] is not of size 1"}}));
  rows.push_back(moving("broadcast_to", "", [](const Tensor& x) { return broadcast_to(x, {2, 3, 4}); }, [](const Index&) { return Index{2, 3, 4}; },
                        [](const Index& i, const Index& s) {
                          Index at;
                          for (std::size_t d = 0; d < s.size(); ++d) at.push_back(s[d] == 1 ? 0 : i[d + 3 - s.size()]);
                          return at;
                        },
                        {{uniform({}, 1)}, {uniform({4}, 2)}, {uniform({3, 1}, 3)}, {uniform({2, 1, 4}, 4)}, {uniform({2, 3, 4}, 5)}},
                        {{[] { broadcast_to(ones({2, 3}), {3}); }, "broadcast_to: [2, 3] does not broadcast to [3]"}, {[] { broadcast_to(ones({2}), {3}); }, "broadcast_to: [2] does not broadcast to [3]"}}));
}

void add_copies(std::vector<OpRow>& rows) {
  rows.push_back(keeping("contiguous", contiguous));
  rows.push_back(keeping("clone", clone));
  rows.push_back(keeping("detach", detach));
  rows.back().differentiable = false;
  rows.push_back(keeping("to_device", [](const Tensor& x) { return to_device(x, created_on()); }));
  rows.push_back(keeping("to_dtype", [](const Tensor& x) { return to_dtype(x, x.defined() ? x.dtype() : DType::f32); }));
  OpRow widened = keeping("to_dtype", [](const Tensor& x) { return to_dtype(x, DType::f64); });
  widened.variant = "to float64";
  rows.push_back(widened);
  OpRow rounded{"to_dtype", "to float32", [](const Inputs& x) { return to_dtype(x[0], DType::f32); },
                [](const std::vector<Array>& x) { return map(x[0], [](double v) { return static_cast<double>(static_cast<float>(v)); }); }};
  // Values that float32 holds exactly: the difference quotient would otherwise see steps.
  rounded.samples = {{from_vector<double>({0.5, -0.25, 3.0}, {3})}};
  rounded.differentiable = false;
  rows.push_back(rounded);
  OpRow truncated{"to_dtype", "to int64", [](const Inputs& x) { return to_dtype(x[0], DType::i64); }, [](const std::vector<Array>& x) { return map(x[0], [](double v) { return std::trunc(v); }); }};
  truncated.samples = {{distinct({3, 5}, 1)}, {coins({5}, 2)}};
  truncated.differentiable = false;
  rows.push_back(truncated);

  OpRow written{"copy_into", "", [](const Inputs& x) {
    const Tensor to = zeros(x[0].shape(), x[0].dtype(), x[0].device());
    copy_into(to, x[0]);
    return to;
  }, [](const std::vector<Array>& x) { return x[0]; }};
  written.samples = {{uniform({0, 2}, 1)}, {uniform({}, 2)}, {uniform({3, 5}, 3)}, {integers({7}, 4, 0, 9)}};
  written.differentiable = false;
  const auto leaf = [] { return Tensor(ones({2}).set_requires_grad(true)); };
  written.bad = {{[] { copy_into(ones({2}), ones({3})); }, "copy_into: a source of shape [3] for a destination of shape [2]"},
                 {[=] { copy_into(leaf(), ones({2})); }, "copy_into: the destination of shape [2] requires a gradient: write to it under NoGrad"},
                 {[=] { copy_into(neg(leaf()), ones({2})); }, "copy_into: the destination of shape [2] is the result of a recorded op"},
                 {[=] { copy_into(ones({2}), leaf()); }, "copy_into: the source requires a gradient, which would be lost"},
                 {[] { copy_into(broadcast_to(ones({1}), {3}), ones({3})); }, "copy_into: the destination of shape [3] repeats its elements"},
                 {[] { copy_into(Tensor(), ones({3})); }, "copy_into: an input is undefined"}};
  rows.push_back(written);
  OpRow filled{"fill_into", "", [](const Inputs& x) {
    const Tensor to = clone(x[0]);
    fill_into(to, 3.0);
    return to;
  }, [](const std::vector<Array>& x) { return map(x[0], [](double) { return 3.0; }); }};
  filled.samples = written.samples;
  filled.differentiable = false;
  filled.bad = {{[=] { fill_into(leaf(), 1.0); }, "fill_into: the destination of shape [2] requires a gradient"}, {[] { fill_into(arange(2), 0.5); }, "fill_into: 0.5 is no int64"}};
  rows.push_back(filled);
}

Array joined(const std::vector<Array>& parts, bool list) {
  const Array& a = parts[0];
  Array out = list ? Array({a.shape[0], a.shape[1] + parts[1].shape[1] + parts[2].shape[1]}) : Array({a.shape[0], 3, a.shape[1]});
  for_each_index(out.shape, [&](const Index& i) {
    std::int64_t at = i[1];
    if (!list) {
      out[i] = parts[static_cast<std::size_t>(at)].at({i[0], i[2]});
      return;
    }
    std::size_t part = 0;
    while (at >= parts[part].shape[1]) at -= parts[part++].shape[1];
    out[i] = parts[part].at({i[0], at});
  });
  return out;
}

void add_joins(std::vector<OpRow>& rows) {
  OpRow cats{"cat", "", [](const Inputs& x) { return cat(x, 1); }, [](const std::vector<Array>& x) { return joined(x, true); }};
  cats.samples = {{uniform({2, 3}, 1), uniform({2, 0}, 2), uniform({2, 5}, 3)}, {uniform({3, 1}, 1), uniform({3, 1}, 2), uniform({3, 1}, 3)}};
  cats.bad = {{[] { cat(Inputs{}); }, "cat: nothing to join"}, {[] { cat({ones({2, 3}), ones({3, 3})}, 1); }, "cat: shapes [2, 3] and [3, 3] differ outside dimension 1"},
              {[] { cat({ones({2}), arange(2)}); }, "cat: tensors of float32 and int64"}};
  rows.push_back(cats);
  OpRow listed = cats;
  listed.variant = "list";
  listed.call = [](const Inputs& x) { return cat({x[0], x[1], x[2]}, -1); };
  listed.bad.clear();
  rows.push_back(listed);
  OpRow stacks{"stack", "", [](const Inputs& x) { return stack(x, 1); }, [](const std::vector<Array>& x) { return joined(x, false); }};
  stacks.samples = {{uniform({2, 3}, 1), uniform({2, 3}, 2), uniform({2, 3}, 3)}, {uniform({1, 1}, 1), uniform({1, 1}, 2), uniform({1, 1}, 3)}};
  stacks.bad = {{[] { stack(Inputs{}); }, "stack: nothing to join"}, {[] { stack(Inputs{ones({2}), ones({3})}); }, "stack: shapes [2] and [3] differ"}};
  rows.push_back(stacks);

  rows.push_back(moving("split", "", [](const Tensor& x) { return split(x, Index{2, 0, x.size(1) - 2}, 1)[2]; }, [](const Index& s) { return Index{s[0], s[1] - 2}; },
                        [](const Index& i, const Index&) { return Index{i[0], i[1] + 2}; }, {{uniform({2, 3}, 1)}, {uniform({3, 7}, 1)}},
                        {{[] { split(ones({3}), Index{1, 1}); }, "split: sizes add up to 2, dimension 0 of [3] is 3"}, {[] { split(ones({3}), Index{4, -1}); }, "split: negative size -1"}}));
  rows.push_back(moving("chunk", "", [](const Tensor& x) { return chunk(x, 3, 1).back(); }, [](const Index& s) { return Index{s[0], s[1] - (s[1] + 2) / 3 * 2}; },
                        [](const Index& i, const Index& s) { return Index{i[0], i[1] + (s[1] + 2) / 3 * 2}; }, {{uniform({2, 3}, 1)}, {uniform({3, 8}, 1)}},
                        {{[] { chunk(ones({3}), 0); }, "chunk: expected at least one part, found 0"}}));
  rows.push_back(moving("repeat_interleave", "", [](const Tensor& x) { return repeat_interleave(x, 3, 1); }, [](const Index& s) { return Index{s[0], s[1] * 3, s[2]}; },
                        [](const Index& i, const Index&) { return Index{i[0], i[1] / 3, i[2]}; }, cubes(), {{[] { repeat_interleave(ones({3}), -1, 0); }, "repeat_interleave: negative count -1"}}));
  rows.push_back(moving("tile", "", [](const Tensor& x) { return tile(x, {2, 1, 3}); }, [](const Index& s) { return Index{s[0] * 2, s[1], s[2] * 3}; },
                        [](const Index& i, const Index& s) { return Index{i[0] % s[0], i[1], i[2] % s[2]}; }, cubes(), {{[] { tile(ones({3}), {1, 2}); }, "tile: 2 counts for 1 dimensions"}}));
  rows.push_back(moving("flip", "", [](const Tensor& x) { return flip(x, 1); }, same, [](const Index& i, const Index& s) { return Index{i[0], s[1] - 1 - i[1], i[2]}; }, cubes(),
                        {{[] { flip(ones({3}), 1); }, "dimension 1 is out of range"}}));
  for (std::int64_t shift : {2, -1, 0})
    rows.push_back(moving("roll", std::to_string(shift), [=](const Tensor& x) { return roll(x, shift, 1); }, same,
                          [=](const Index& i, const Index& s) { return Index{i[0], ((i[1] - shift) % s[1] + s[1]) % s[1], i[2]}; }, cubes(),
                          {{[=] { roll(ones({3}), shift, 1); }, "dimension 1 is out of range"}}));
  OpRow padded{"pad", "", [](const Inputs& x) { return pad(x[0], 1, 2, 1, 0.5); }, [](const std::vector<Array>& x) {
    Array out({x[0].shape[0], x[0].shape[1] + 3});
    for_each_index(out.shape, [&](const Index& i) { out[i] = i[1] >= 1 && i[1] <= x[0].shape[1] ? x[0].at({i[0], i[1] - 1}) : 0.5; });
    return out;
  }};
  padded.samples = {{uniform({2, 3}, 1)}, {uniform({2, 0}, 1)}, {uniform({3, 7}, 1)}};
  padded.bad = {{[] { pad(ones({3}), -1, 0); }, "pad: negative sizes -1, 0"}, {[] { pad(arange(3), 1, 0, 0, 0.5); }, "pad: 0.5 is no int64"}};
  rows.push_back(padded);
  for (bool lower : {true, false})
    for (std::int64_t diagonal : {0, 1, -2}) {
      OpRow triangle{lower ? "tril" : "triu", std::to_string(diagonal), [=](const Inputs& x) { return lower ? tril(x[0], diagonal) : triu(x[0], diagonal); }, [=](const std::vector<Array>& x) {
        Array out = x[0];
        for_each_index(out.shape, [&](const Index& i) {
          const std::int64_t r = i[i.size() - 2], c = i.back();
          if (lower ? c > r + diagonal : c < r + diagonal) out[i] = 0.0;
        });
        return out;
      }};
      triangle.samples = {{uniform({1, 1}, 1)}, {uniform({3, 5}, 2)}, {uniform({2, 5, 3}, 3)}, {uniform({0, 3}, 4)}};
      triangle.bad = {{[=] { lower ? tril(ones({3})) : triu(ones({3})); }, std::string(lower ? "tril" : "triu") + ": expected at least two dimensions, found [3]"}};
      rows.push_back(triangle);
    }
}

}  // namespace

std::vector<OpRow> shape_rows() {
  std::vector<OpRow> rows;
  add_views(rows);
  add_copies(rows);
  add_joins(rows);
  return rows;
}

}  // namespace cambium::test
