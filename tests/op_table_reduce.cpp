// Rows of reductions, positions of extrema, sorting and cumulative sums.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Values = std::vector<double>;

// f of the values that fall together when `dims` (empty: all) are reduced.
Array reduced(const Array& x, std::vector<int> dims, bool keepdim, const std::function<double(const Values&)>& f) {
  const int rank = static_cast<int>(x.shape.size());
  std::vector<bool> gone(x.shape.size(), dims.empty());
  for (int d : dims) gone[static_cast<std::size_t>(d < 0 ? d + rank : d)] = true;
  std::vector<std::int64_t> kept = x.shape, dropped;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (gone[i]) kept[i] = 1;
    else dropped.push_back(kept[i]);
  }
  Array out(kept);
  std::vector<Values> groups(out.values.size());
  Array places(kept);
  std::iota(places.values.begin(), places.values.end(), 0.0);
  for_each_index(x.shape, [&](const std::vector<std::int64_t>& i) { groups[static_cast<std::size_t>(places.at(i))].push_back(x.at(i)); });
  for (std::size_t i = 0; i < groups.size(); ++i) out.values[i] = f(groups[i]);
  if (!keepdim) out.shape = dropped;
  return out;
}

double total_of(const Values& v) { return std::accumulate(v.begin(), v.end(), 0.0); }
double average(const Values& v) { return total_of(v) / static_cast<double>(v.size()); }
double squares(const Values& v) {
  double s = 0.0;
  for (double x : v) s += (x - average(v)) * (x - average(v));
  return s;
}
double length(const Values& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0)); }
double product(const Values& v) { return std::accumulate(v.begin(), v.end(), 1.0, std::multiplies<>()); }
double largest(const Values& v) { return *std::max_element(v.begin(), v.end()); }
double smallest(const Values& v) { return *std::min_element(v.begin(), v.end()); }
double first_largest(const Values& v) { return static_cast<double>(std::max_element(v.begin(), v.end()) - v.begin()); }
double first_smallest(const Values& v) { return static_cast<double>(std::min_element(v.begin(), v.end()) - v.begin()); }
double log_total(const Values& v) {
  double s = 0.0;
  for (double x : v) s += std::exp(x - largest(v));
  return largest(v) + std::log(s);
}

OpRow reduction(std::string name, std::string variant, std::function<Tensor(const Tensor&)> call, std::vector<int> dims, bool keepdim,
                std::function<double(const Values&)> f, std::vector<Inputs> samples) {
  OpRow out{std::move(name), std::move(variant), [call](const Inputs& x) { return call(x[0]); },
            [=](const std::vector<Array>& x) { return reduced(x[0], dims, keepdim, f); }};
  out.samples = std::move(samples);
  return out;
}

// Lines of x along dim, each replaced by f(line).
Array by_lines(const Array& x, int dim, std::int64_t size, const std::function<Values(const Values&)>& f) {
  std::vector<std::int64_t> shape = x.shape;
  const std::size_t d = static_cast<std::size_t>(dim < 0 ? dim + static_cast<int>(shape.size()) : dim);
  shape[d] = size;
  Array out(shape);
  std::vector<std::int64_t> heads = x.shape;
  heads[d] = 1;
  for_each_index(heads, [&](const std::vector<std::int64_t>& head) {
    std::vector<std::int64_t> at = head;
    Values line;
    for (at[d] = 0; at[d] < x.shape[d]; ++at[d]) line.push_back(x.at(at));
    const Values result = f(line);
    for (at[d] = 0; at[d] < size; ++at[d]) out[at] = result[static_cast<std::size_t>(at[d])];
  });
  return out;
}

std::vector<std::size_t> order_of(const Values& v, bool descending) {
  std::vector<std::size_t> order(v.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return descending ? v[i] > v[j] : v[i] < v[j]; });
  return order;
}

Values sorted(const Values& v, bool descending, bool places) {
  Values out;
  for (std::size_t i : order_of(v, descending)) out.push_back(places ? static_cast<double>(i) : v[i]);
  return out;
}

std::vector<Inputs> smooth() { return {{uniform({}, 1)}, {uniform({1}, 2)}, {uniform({3, 5}, 3)}, {uniform({2, 3, 7}, 4)}, {uniform({67}, 5)}}; }
std::vector<Inputs> untied() { return {{distinct({}, 1)}, {distinct({1}, 2)}, {distinct({3, 5}, 3)}, {distinct({2, 3, 7}, 4)}, {distinct({67}, 5)}}; }
std::vector<Inputs> planes(const std::function<Tensor(const Shape&, std::uint64_t)>& make) { return {{make({3, 1, 4}, 1)}, {make({2, 3, 5}, 2)}, {make({3, 17, 2}, 3)}}; }
Tensor smooth_plane(const Shape& shape, std::uint64_t seed) { return uniform(shape, seed); }

void add_sums(std::vector<OpRow>& rows) {
  OpRow sums = reduction("sum", "", [](const Tensor& x) { return sum(x); }, {}, false, total_of, smooth());
  sums.samples.push_back({uniform({0, 3}, 1)});
  sums.samples.push_back({integers({5, 7}, 1, -9, 9)});
  sums.samples.push_back({coins({5, 7}, 1)});
  sums.bad = {{[] { sum(ones({2}), {0, -1}); }, "sum: dimension 0 appears twice"}, {[] { sum(ones({2}), {1}); }, "sum: dimension 1 is out of range"}, {[] { sum(Tensor()); }, "sum: an input is undefined"}};
  rows.push_back(sums);
  rows.push_back(reduction("sum", "middle", [](const Tensor& x) { return sum(x, {1}); }, {1}, false, total_of, planes(smooth_plane)));
  rows.push_back(reduction("sum", "outer, kept", [](const Tensor& x) { return sum(x, {-1, 0}, true); }, {0, 2}, true, total_of, planes(smooth_plane)));
  rows.push_back(reduction("sum", "empty dimension", [](const Tensor& x) { return sum(x, {1}); }, {1}, false, total_of, {{uniform({3, 0}, 1)}}));

  OpRow means = reduction("mean", "", [](const Tensor& x) { return mean(x); }, {}, false, average, smooth());
  means.bad = {{[] { mean(arange(3)); }, "mean: expected a floating type, found int64"}};
  rows.push_back(means);
  rows.push_back(reduction("mean", "outer, kept", [](const Tensor& x) { return mean(x, {0, 2}, true); }, {0, 2}, true, average, planes(smooth_plane)));

  const auto factors = [](const Shape& shape, std::uint64_t seed) { return uniform(shape, seed, 0.5, 1.5); };
  OpRow products = reduction("prod", "", [](const Tensor& x) { return prod(x); }, {}, false, product, {{factors({}, 1)}, {factors({5}, 2)}, {factors({2, 3}, 3)}, {uniform({0}, 1)}});
  products.samples.push_back({from_vector<double>({1.5, 0.0, -2.0, 0.5}, {4})});
  products.samples.push_back({from_vector<double>({1.5, 0.0, -2.0, 0.0}, {4})});
  products.samples.push_back({to_dtype(integers({4}, 1, 1, 5), DType::i32)});
  products.slack = 4.0;
  rows.push_back(products);
  OpRow planes_row = reduction("prod", "outer", [](const Tensor& x) { return prod(x, {0, 2}); }, {0, 2}, false, product, {{factors({2, 3, 4}, 4)}});
  planes_row.slack = 4.0;
  rows.push_back(planes_row);
}

void add_extremes(std::vector<OpRow>& rows) {
  const auto empty_bad = [](std::string name, std::function<Tensor(const Tensor&)> f) { return BadInput{[f] { f(zeros({2, 0})); }, name + ": no elements to choose from in [2, 0]"}; };
  for (bool high : {true, false}) {
    const auto f = high ? largest : smallest;
    const std::string a = high ? "amax" : "amin", m = high ? "max" : "min", arg = high ? "argmax" : "argmin";
    const auto all = [high](const Tensor& x) { return high ? amax(x) : amin(x); };
    const auto some = [high](const Tensor& x) { return high ? amax(x, {0, 2}, true) : amin(x, {0, 2}, true); };
    const auto whole = [high](const Tensor& x) { return high ? max(x) : min(x); };
    const auto values = [high](const Tensor& x) { return high ? max(x, 1).values : min(x, 1).values; };
    const auto places = [high](const Tensor& x) { return high ? argmax(x, 1, true) : argmin(x, 1, true); };
    rows.push_back(reduction(a, "", all, {}, false, f, untied()));
    rows.back().bad = {empty_bad(a, all)};
    rows.push_back(reduction(a, "outer, kept", some, {0, 2}, true, f, planes(distinct)));
    rows.push_back(reduction(m, "all", whole, {}, false, f, untied()));
    rows.back().samples.push_back({integers({31}, 1, -90, 90)});
    rows.push_back(reduction(m, "values", values, {1}, false, f, planes(distinct)));
    rows.back().bad = {empty_bad(m, values)};
    rows.push_back(reduction(m, "indices", [high](const Tensor& x) { return high ? max(x, 1).indices : min(x, 1).indices; }, {1}, false, high ? first_largest : first_smallest,
                             planes([](const Shape& shape, std::uint64_t seed) { return to_dtype(integers(shape, seed, 0, 3), DType::f64); })));
    rows.back().differentiable = false;
    rows.push_back(reduction(arg, "", places, {1}, true, high ? first_largest : first_smallest,
                             planes([](const Shape& shape, std::uint64_t seed) { return to_dtype(integers(shape, seed, 0, 3), DType::f64); })));
    rows.back().differentiable = false;
    rows.back().bad = {empty_bad(arg, places)};
  }
}

void add_moments(std::vector<OpRow>& rows) {
  const std::vector<Inputs> several = {{uniform({2}, 2)}, {uniform({3, 5}, 3)}, {uniform({2, 3, 7}, 4)}};
  rows.push_back(reduction("var", "", [](const Tensor& x) { return var(x); }, {}, false, [](const Values& v) { return squares(v) / static_cast<double>(v.size() - 1); }, several));
  rows.back().bad = {{[] { var(ones({1})); }, "var: 1 elements leave nothing to divide by with correction 1"}, {[] { var(arange(3)); }, "var: expected a floating type"}};
  rows.push_back(reduction("var", "population, kept", [](const Tensor& x) { return var(x, {1}, 0.0, true); }, {1}, true, [](const Values& v) { return squares(v) / static_cast<double>(v.size()); }, planes(smooth_plane)));
  rows.push_back(reduction("stddev", "", [](const Tensor& x) { return stddev(x, {-1}); }, {-1}, false,
                           [](const Values& v) { return std::sqrt(squares(v) / static_cast<double>(v.size() - 1)); }, {several[1], several[2]}));
  rows.back().bad = {{[] { stddev(ones({1})); }, "1 elements leave nothing to divide by"}};
  rows.push_back(reduction("norm", "", [](const Tensor& x) { return norm(x); }, {}, false, length, {{uniform({1}, 1)}, {uniform({3, 5}, 2)}, {uniform({0}, 3)}}));
  rows.back().bad = {{[] { norm(arange(3)); }, "norm: expected a floating type, found int64"}};
  rows.push_back(reduction("norm", "rows", [](const Tensor& x) { return norm(x, {-1}, true); }, {-1}, true, length, planes(smooth_plane)));
  rows.push_back(reduction("logsumexp", "", [](const Tensor& x) { return logsumexp(x, {1}); }, {1}, false, log_total, planes(smooth_plane)));
  rows.back().bad = {{[] { logsumexp(zeros({2, 0}), {1}); }, "logsumexp: no elements to choose from"}};
  rows.push_back(reduction("logsumexp", "far out, kept", [](const Tensor& x) { return logsumexp(x, {0, 1}, true); }, {0, 1}, true, log_total,
                           {{from_vector<double>({900.0, 901.0, 899.5, -900.0}, {2, 2})}}));
  rows.back().narrow = false;
}

void add_orders(std::vector<OpRow>& rows) {
  const auto tied = [](const Shape& shape, std::uint64_t seed) { return to_dtype(integers(shape, seed, 0, 4), DType::f64); };
  OpRow running{"cumsum", "", [](const Inputs& x) { return cumsum(x[0], 1); }, [](const std::vector<Array>& x) {
    return by_lines(x[0], 1, x[0].size(1), [](const Values& v) {
      Values out(v.size());
      std::partial_sum(v.begin(), v.end(), out.begin());
      return out;
    });
  }};
  running.samples = planes(smooth_plane);
  running.samples.push_back({uniform({2, 0}, 1)});
  running.samples.push_back({integers({2, 9}, 1, -5, 5)});
  running.bad = {{[] { cumsum(ones({2}), 1); }, "cumsum: dimension 1 is out of range"}};
  rows.push_back(running);
  for (bool descending : {false, true}) {
    OpRow values{"sort", descending ? "descending" : "", [=](const Inputs& x) { return sort(x[0], 1, descending).values; },
                 [=](const std::vector<Array>& x) { return by_lines(x[0], 1, x[0].size(1), [=](const Values& v) { return sorted(v, descending, false); }); }};
    values.samples = planes(distinct);
    values.samples.push_back({distinct({2, 0}, 1)});
    values.bad = {{[] { sort(ones({2}), 1); }, "dimension 1 is out of range"}};
    rows.push_back(values);
    OpRow places{"sort", "indices", [=](const Inputs& x) { return sort(x[0], 1, descending).indices; },
                 [=](const std::vector<Array>& x) { return by_lines(x[0], 1, x[0].size(1), [=](const Values& v) { return sorted(v, descending, true); }); }};
    places.samples = planes(tied);
    places.differentiable = false;
    rows.push_back(places);
  }
  const auto leading = [](const Array& x, bool places) {
    return by_lines(x, -1, 2, [places](const Values& v) {
      Values out = sorted(v, true, places);
      out.resize(2);
      return out;
    });
  };
  OpRow top{"topk", "", [](const Inputs& x) { return topk(x[0], 2).values; }, [=](const std::vector<Array>& x) { return leading(x[0], false); }};
  top.samples = {{distinct({2}, 1)}, {distinct({3, 5}, 2)}, {distinct({2, 3, 9}, 3)}};
  top.bad = {{[] { topk(ones({3}), 4); }, "topk: k is 4, the dimension has 3 elements"}, {[] { topk(ones({3}), -1); }, "topk: k is -1"}};
  rows.push_back(top);
  OpRow where_top{"topk", "indices", [](const Inputs& x) { return topk(x[0], 2).indices; }, [=](const std::vector<Array>& x) { return leading(x[0], true); }};
  where_top.samples = {{tied({3, 5}, 2)}, {tied({2, 3, 9}, 3)}};
  where_top.differentiable = false;
  rows.push_back(where_top);
}

}  // namespace

std::vector<OpRow> reduce_rows() {
  std::vector<OpRow> rows;
  add_sums(rows);
  add_extremes(rows);
  add_moments(rows);
  add_orders(rows);
  return rows;
}

}  // namespace cambium::test
