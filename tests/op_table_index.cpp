// Rows of ops that read and add at positions given by tensors.
#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Index = std::vector<std::int64_t>;

std::int64_t whole(double v) { return static_cast<std::int64_t>(v); }
Tensor narrow_ids(const Tensor& ids) { return to_dtype(ids, DType::i32); }

void add_lines(std::vector<OpRow>& rows) {
  OpRow gathers{"gather", "", [](const Inputs& x) { return gather(x[0], 1, x[1]); }, [](const std::vector<Array>& x) {
    Array out(x[1].shape);
    for_each_index(out.shape, [&](const Index& i) {
      Index at = i;
      at[1] = whole(x[1].at(i));
      out[i] = x[0].at(at);
    });
    return out;
  }};
  gathers.samples = {{uniform({3, 4}, 1), integers({3, 6}, 2, 0, 4)}, {uniform({3, 4, 2}, 1), narrow_ids(integers({2, 1, 2}, 2, 0, 4))}, {uniform({1, 1}, 1), integers({1, 3}, 1, 0, 1)},
                     {uniform({3, 4}, 1), integers({3, 0}, 2, 0, 4)}};
  gathers.bad = {{[] { gather(ones({2, 3}), 1, full({2, 1}, 3.0, DType::i64)); }, "gather: index 3 is out of range for size 3"},
                 {[] { gather(ones({2, 3}), 1, full({2, 1}, -1.0, DType::i64)); }, "gather: index -1 is out of range for size 3"},
                 {[] { gather(ones({2, 3}), 1, ones({2, 1})); }, "gather: expected int64 or int32 indices, found float32"},
                 {[] { gather(ones({2, 3}), 1, zeros({3, 1}, DType::i64)); }, "gather: an index of shape [3, 1] does not fit [2, 3] along dimension 1"},
                 {[] { gather(ones({2, 3}), 1, zeros({2}, DType::i64)); }, "gather: an index of shape [2] does not fit [2, 3]"}};
  rows.push_back(gathers);

  OpRow scatters{"scatter_add", "", [](const Inputs& x) { return scatter_add(x[0], 1, x[1], x[2]); }, [](const std::vector<Array>& x) {
    Array out = x[0];
    for_each_index(x[1].shape, [&](const Index& i) {
      Index at = i;
      at[1] = whole(x[1].at(i));
      out[at] += x[2].at(i);
    });
    return out;
  }};
  scatters.samples = {{uniform({3, 4}, 1), integers({3, 6}, 2, 0, 4), uniform({3, 6}, 3)}, {uniform({3, 4, 2}, 1), narrow_ids(integers({2, 9, 2}, 2, 0, 4)), uniform({2, 9, 2}, 3)},
                      {uniform({2, 2}, 1), integers({2, 0}, 2, 0, 2), uniform({2, 0}, 3)}};
  scatters.bad = {{[] { scatter_add(ones({2, 3}), 1, full({2, 1}, 3.0, DType::i64), ones({2, 1})); }, "scatter_add: index 3 is out of range for size 3"},
                  {[] { scatter_add(ones({2, 3}), 1, zeros({2, 1}, DType::i64), ones({2, 2})); }, "scatter_add: a source of shape [2, 2] for an index of shape [2, 1]"},
                  {[] { scatter_add(ones({2, 3}), 1, zeros({2, 1}, DType::i64), ones({2, 1}, DType::f64)); }, "scatter_add: tensors of float32 and float64"}};
  rows.push_back(scatters);
}

void add_lists(std::vector<OpRow>& rows) {
  OpRow selects{"index_select", "", [](const Inputs& x) { return index_select(x[0], 1, x[1]); }, [](const std::vector<Array>& x) {
    Index shape = x[0].shape;
    shape[1] = x[1].count();
    Array out(shape);
    for_each_index(shape, [&](const Index& i) {
      Index at = i;
      at[1] = whole(x[1].at({i[1]}));
      out[i] = x[0].at(at);
    });
    return out;
  }};
  selects.samples = {{uniform({3, 4}, 1), integers({7}, 2, 0, 4)}, {uniform({3, 4, 2}, 1), narrow_ids(integers({2}, 2, 0, 4))}, {uniform({3, 4}, 1), integers({0}, 2, 0, 4)}};
  selects.bad = {{[] { index_select(ones({2, 3}), 0, arange(3)); }, "index_select: index 2 is out of range for size 2"},
                 {[] { index_select(ones({2, 3}), 0, zeros({1, 1}, DType::i64)); }, "index_select: expected a list of indices, found shape [1, 1]"}};
  rows.push_back(selects);

  OpRow adds{"index_add", "", [](const Inputs& x) { return index_add(x[0], 1, x[1], x[2]); }, [](const std::vector<Array>& x) {
    Array out = x[0];
    for_each_index(x[2].shape, [&](const Index& i) {
      Index at = i;
      at[1] = whole(x[1].at({i[1]}));
      out[at] += x[2].at(i);
    });
    return out;
  }};
  adds.samples = {{uniform({3, 4}, 1), integers({7}, 2, 0, 4), uniform({3, 7}, 3)}, {uniform({3, 4, 2}, 1), narrow_ids(integers({2}, 2, 0, 4)), uniform({3, 2, 2}, 3)},
                  {uniform({3, 4}, 1), integers({0}, 2, 0, 4), uniform({3, 0}, 3)}};
  adds.bad = {{[] { index_add(ones({2, 3}), 0, arange(3), ones({3, 3})); }, "index_add: index 2 is out of range for size 2"},
              {[] { index_add(ones({2, 3}), 0, arange(2), ones({2, 2})); }, "index_add: a source of shape [2, 2], expected [2, 3]"}};
  rows.push_back(adds);

  OpRow chosen{"masked_select", "", [](const Inputs& x) { return masked_select(x[0], x[1]); }, [](const std::vector<Array>& x) {
    Array out;
    for_each_index(x[0].shape, [&](const Index& i) {
      if (x[1].at(i) != 0) out.values.push_back(x[0].at(i));
    });
    out.shape = {out.count()};
    return out;
  }};
  chosen.samples = {{uniform({3, 5}, 1), coins({3, 5}, 2)}, {uniform({2, 3, 5}, 1), coins({3, 1}, 2)}, {uniform({4}, 1), coins({4}, 2, 0.0)}, {uniform({}, 1), coins({}, 2, 1.0)}, {uniform({0, 2}, 1), coins({2}, 2)}};
  chosen.bad = {{[] { masked_select(ones({2}), ones({2})); }, "masked_select: expected bool, found float32"}, {[] { masked_select(ones({2}), coins({3}, 1)); }, "masked_select: shapes [2] and [3] do not broadcast"}};
  rows.push_back(chosen);
}

void add_embeddings(std::vector<OpRow>& rows) {
  OpRow plain{"embedding", "", [](const Inputs& x) { return embedding(x[0], x[1]); }, [](const std::vector<Array>& x) {
    Index shape = x[0].shape;
    shape.push_back(x[1].shape[1]);
    Array out(shape);
    for_each_index(shape, [&](const Index& i) { out[i] = x[1].at({whole(x[0].at(Index(i.begin(), i.end() - 1))), i.back()}); });
    return out;
  }};
  plain.samples = {{integers({2, 7}, 1, 0, 5), uniform({5, 3}, 2)}, {integers({}, 1, 0, 5), uniform({5, 3}, 2)}, {narrow_ids(integers({9}, 1, 0, 2)), uniform({2, 1}, 2)}, {integers({0}, 1, 0, 2), uniform({2, 3}, 2)}};
  plain.bad = {{[] { embedding(arange(3), ones({2, 4})); }, "embedding: index 2 is out of range for size 2"},
               {[] { embedding(arange(3), ones({4})); }, "embedding: expected a weight (rows, columns), found [4]"},
               {[] { embedding(ones({3}), ones({4, 2})); }, "embedding: expected int64 or int32 indices, found float32"},
               {[] { embedding(arange(3), ones({4, 2}), 4); }, "embedding: padding index 4 is out of range for 4 rows"}};
  rows.push_back(plain);
  OpRow hot{"one_hot", "", [](const Inputs& x) { return one_hot(x[0], 4, DType::f64); }, [](const std::vector<Array>& x) {
    Index shape = x[0].shape;
    shape.push_back(4);
    Array out(shape);
    for_each_index(shape, [&](const Index& i) { out[i] = whole(x[0].at(Index(i.begin(), i.end() - 1))) == i.back() ? 1.0 : 0.0; });
    return out;
  }};
  hot.samples = {{integers({3, 5}, 1, 0, 4)}, {narrow_ids(integers({7}, 2, 0, 4))}, {integers({}, 3, 0, 4)}, {integers({0}, 3, 0, 4)}};
  hot.differentiable = false;
  hot.bad = {{[] { one_hot(arange(5), 4); }, "one_hot: index 4 is out of range for size 4"}, {[] { one_hot(ones({2}), 4); }, "one_hot: expected int64 or int32 indices, found float32"}};
  rows.push_back(hot);
}

}  // namespace

std::vector<OpRow> index_rows() {
  std::vector<OpRow> rows;
  add_lines(rows);
  add_lists(rows);
  add_embeddings(rows);
  return rows;
}

}  // namespace cambium::test
