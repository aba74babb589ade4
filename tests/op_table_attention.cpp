// Rows of attention, rotary positions, gates, dropout and LSTM.
#include <cmath>
#include <limits>

#include "autograd/ops/attention.h"
#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Index = std::vector<std::int64_t>;

struct Setting {
  std::string variant;
  bool causal = false;
  std::int64_t window = 0;
  bool key_mask = false, bias = false, packed = false;
  double scale = 0.0;
};

AttentionMask mask_of(const Setting& s, const Inputs& x) {
  AttentionMask mask{.causal = s.causal, .window = s.window};
  if (s.key_mask) mask.key_mask = x[3];
  if (s.bias) mask.bias = x[3];
  if (s.packed) mask.starts = x[3];
  if (s.scale != 0.0) mask.scale = s.scale;
  return mask;
}

// One query at a time; scores that may not be seen are left out.
Array naive_attention(const Setting& s, const std::vector<Array>& x) {
  const Array &q = x[0], &k = x[1], &v = x[2];
  const std::int64_t queries = q.size(1), keys = k.size(1), heads = q.size(2), share = heads / k.size(2), d = q.size(3);
  const double scale = s.scale != 0.0 ? s.scale : 1.0 / std::sqrt(static_cast<double>(d));
  Array out(q.shape);
  for_each_index({q.size(0), queries, heads}, [&](const Index& i) {
    std::vector<double> weights(static_cast<std::size_t>(keys), 0.0);
    double sum = 0.0;
    for (std::int64_t j = 0; j < keys; ++j) {
      const std::int64_t position = i[1] + keys - queries;
      bool seen = !(s.causal && j > position) && !(s.window > 0 && j <= position - s.window);
      if (s.key_mask) seen = seen && x[3].at({i[0], j}) != 0.0;
      if (s.packed) {
        std::size_t a = 0, b = 0;
        while (x[3].values[a + 1] <= static_cast<double>(i[1])) ++a;
        while (x[3].values[b + 1] <= static_cast<double>(j)) ++b;
        seen = seen && a == b;
      }
      if (!seen) continue;
      double score = 0.0;
      for (std::int64_t c = 0; c < d; ++c) score += q.at({i[0], i[1], i[2], c}) * k.at({i[0], j, i[2] / share, c});
      score = score * scale + (s.bias ? x[3].at({i[0], i[2], i[1], j}) : 0.0);
      weights[static_cast<std::size_t>(j)] = std::exp(score);
      sum += std::exp(score);
    }
    for (std::int64_t j = 0; j < keys && sum > 0.0; ++j)
      for (std::int64_t c = 0; c < d; ++c) out[{i[0], i[1], i[2], c}] += weights[static_cast<std::size_t>(j)] / sum * v.at({i[0], j, i[2] / share, c});
  });
  return out;
}

void add_attention(std::vector<OpRow>& rows) {
  for (const Setting& s : std::vector<Setting>{{"plain"}, {"causal", true}, {"window", true, 3}, {"key mask", true, 0, true}, {"bias", false, 0, false, true}, {"packed", true, 0, false, false, true}, {"scale", false, 0, false, false, false, 0.3}}) {
    std::vector<Inputs> samples;
    const std::int64_t batch = s.packed ? 1 : 2;
    samples.push_back({uniform({batch, 5, 4, 6}, 1), uniform({batch, 5, 2, 6}, 2), uniform({batch, 5, 2, 6}, 3)});
    if (!s.packed) samples.push_back({uniform({2, 3, 3, 4}, 1), uniform({2, 7, 3, 4}, 2), uniform({2, 7, 3, 4}, 3)});
    for (Inputs& sample : samples) {
      const std::int64_t t = sample[0].size(1), keys = sample[1].size(1), heads = sample[0].size(2);
      if (s.key_mask) sample.push_back(cat({coins({2, keys - 1}, 8, 0.6), coins({2, 1}, 8, 1.0)}, 1));
      if (s.bias) sample.push_back(uniform({1, heads, t, keys}, 9));
      if (s.packed) sample.push_back(from_vector<std::int32_t>({0, 2, 5}, {3}));
    }
    const auto bad = [&](auto f, std::string name) {
      return std::vector<BadInput>{{[f] { f(ones({1, 2, 3, 4}), ones({1, 2, 2, 4}), ones({1, 2, 2, 4}), AttentionMask{}); }, name + ": 3 query heads are no multiple of 2 key heads"},
                                   {[f] { f(ones({2, 3}), ones({2, 3}), ones({2, 3}), AttentionMask{}); }, name + ": q and k must be (batch, time, heads, head size)"}};
    };
    OpRow fused{"attention", s.variant, [s](const Inputs& x) { return attention(x[0], x[1], x[2], mask_of(s, x)); }, [s](const std::vector<Array>& x) { return naive_attention(s, x); }};
    fused.samples = samples;
    fused.second_order = s.bias;  // a trained bias takes the composed way
    fused.slack = 8.0;
    fused.bad = bad(attention, "attention");
    rows.push_back(fused);
    OpRow composed = fused;
    composed.name = "attention_composed";
    composed.call = [s](const Inputs& x) { return attention_composed(x[0], x[1], x[2], mask_of(s, x)); };
    composed.second_order = true;
    composed.bad.clear();
    rows.push_back(composed);
    if (!s.bias) continue;
    OpRow frozen = fused;
    frozen.variant = "frozen bias";
    frozen.constant = {3};
    frozen.second_order = false;
    rows.push_back(frozen);
  }
}

void add_attention_packed(std::vector<OpRow>& rows) {
  for (const Setting& s : std::vector<Setting>{{"causal", true}, {"key mask", true, 0, true}, {"packed", true, 0, false, false, true}}) {
    OpRow r{"attention_packed", s.variant, [s](const Inputs& x) {
      return attention_packed(x[0], mask_of(s, {Tensor(), Tensor(), Tensor(), x.back()}));
    }, [s](const std::vector<Array>& x) {
      const auto third = [&](std::int64_t i) {
        Array part(Index{x[0].size(0), x[0].size(1), 2, x[0].size(3)});
        for_each_index(part.shape, [&](const Index& at) { part[at] = x[0].at({at[0], at[1], 2 * i + at[2], at[3]}); });
        return part;
      };
      return naive_attention(s, {third(0), third(1), third(2), x.back()});
    }};
    r.samples = {{uniform({s.packed ? 1 : 2, 5, 6, 4}, 1)}};
    if (s.key_mask) r.samples[0].push_back(cat({coins({2, 4}, 8, 0.6), coins({2, 1}, 8, 1.0)}, 1));
    if (s.packed) r.samples[0].push_back(from_vector<std::int32_t>({0, 2, 5}, {3}));
    r.second_order = false;
    r.slack = 8.0;
    r.bad = {{[] { attention_packed(ones({1, 2, 4, 3}), {}); }, "attention_packed: expected (batch, time, 3 heads, head size), found [1, 2, 4, 3]"}};
    rows.push_back(r);
  }
}

// Past keys repeated for every row (packed: for every sequence, with rows that may only see their own), then the naive attention.
void add_attention_with_past(std::vector<OpRow>& rows) {
  for (const Setting& s : std::vector<Setting>{{"plain"}, {"causal", true}, {"window", true, 4}, {"key mask", true, 0, true}, {"bias", true, 0, false, true}, {"scale", true, 0, false, false, false, 0.3}}) {
    OpRow r{"attention_with_past", s.variant, [s](const Inputs& x) {
      AttentionMask mask{.causal = s.causal, .window = s.window};
      if (s.key_mask) mask.key_mask = x[5];
      if (s.bias) mask.bias = x[5];
      if (s.scale != 0.0) mask.scale = s.scale;
      return attention_with_past(x[0], x[1], x[2], x[3], x[4], mask);
    }, [s](const std::vector<Array>& x) {
      const std::int64_t batch = x[0].size(0), heads = x[0].size(2), length = x[3].size(0), own = x[1].size(1), d = x[0].size(3);
      const auto joined = [&](const Array& past, const Array& own_keys) {
        Array all(Index{batch, length + own, heads, d});
        for_each_index(all.shape, [&](const Index& i) {
          all[i] = i[1] < length ? past.at({i[1], i[2] / (heads / past.size(1)), i[3]}) : own_keys.at({i[0], i[1] - length, i[2] / (heads / own_keys.size(2)), i[3]});
        });
        return all;
      };
      std::vector<Array> all{x[0], joined(x[3], x[1]), joined(x[4], x[2])};
      if (s.key_mask) {
        Array mask(Index{batch, length + own});
        for_each_index(mask.shape, [&](const Index& i) { mask[i] = i[1] < length ? 1.0 : x[5].at({i[0], i[1] - length}); });
        all.push_back(mask);
      }
      if (s.bias) all.push_back(x[5]);
      return naive_attention(s, all);
    }};
    // Past heads as many as, fewer and more than the layer's own; a row without keys of its own that may be seen.
    for (const auto& [own, past] : std::vector<std::pair<std::int64_t, std::int64_t>>{{2, 2}, {2, 4}, {4, 1}}) {
      Inputs sample{uniform({2, 5, 4, 6}, 1), uniform({2, 5, own, 6}, 2), uniform({2, 5, own, 6}, 3), uniform({3, past, 6}, 4), uniform({3, past, 6}, 5)};
      if (s.key_mask) sample.push_back(cat({to_dtype(zeros({1, 5}), DType::boolean), coins({1, 5}, 8, 0.6)}, 0));
      if (s.bias) sample.push_back(uniform({2, 4, 5, 8}, 9));
      r.samples.push_back(sample);
    }
    r.second_order = s.bias;
    r.slack = 8.0;
    r.bad = {{[] { attention_with_past(ones({1, 2, 4, 4}), ones({1, 2, 2, 4}), ones({1, 2, 2, 4}), ones({3, 3, 4}), ones({3, 3, 4}), {}); }, "query heads a multiple of past heads"},
             {[] { attention_with_past(ones({1, 2, 4, 4}), ones({1, 2, 2, 4}), ones({1, 2, 2, 4}), ones({3, 2, 4}), ones({2, 2, 4}), {}); }, "of one shape, found [1, 2, 4, 4], [3, 2, 4] and [2, 2, 4]"}};
    rows.push_back(r);
    if (!s.bias) continue;
    OpRow frozen = r;
    frozen.variant = "frozen bias";
    frozen.constant = {5};
    frozen.second_order = false;
    rows.push_back(frozen);
  }
}

void add_rotary(std::vector<OpRow>& rows) {
  for (bool interleaved : {false, true}) {
    OpRow r{"rotary", interleaved ? "interleaved" : "half", [=](const Inputs& x) { return rotary(x[0], x[1], x[2], 1.25, interleaved); }, [=](const std::vector<Array>& x) {
      Array out = x[0];
      const std::int64_t half = x[2].count();
      for_each_index(x[0].shape, [&](const Index& i) {
        if (i[3] >= half) return;
        const double angle = (x[1].shape.size() == 1 ? x[1].at({i[1]}) : x[1].at({i[0], i[1]})) * x[2].at({i[3]});
        Index first = i, second = i;
        first[3] = interleaved ? 2 * i[3] : i[3];
        second[3] = interleaved ? 2 * i[3] + 1 : i[3] + half;
        const double a = x[0].at(first), b = x[0].at(second), c = static_cast<float>(1.25 * std::cos(angle)), s = static_cast<float>(1.25 * std::sin(angle));
        out[first] = a * c - b * s;
        out[second] = a * s + b * c;
      });
      return out;
    }};
    const Tensor frequencies = from_vector<float>({1.0F, 0.1F}, {2});
    r.samples = {{uniform({2, 3, 2, 4}, 1), integers({2, 3}, 2, 0, 50), frequencies}, {uniform({2, 3, 1, 7}, 1), arange(3), frequencies}, {uniform({1, 1, 1, 4}, 1), arange(1), frequencies}};
    r.constant = r.wide = {2};
    r.slack = 8.0;
    r.bad = {{[=] { rotary(ones({2, 3}), arange(2), frequencies); }, "rotary: the input must be (batch, time, heads, head size), found shape [2, 3]"},
             {[=] { rotary(ones({1, 2, 1, 3}), arange(2), frequencies); }, "rotary: frequencies must be a vector of at most half the head size"},
             {[=] { rotary(ones({1, 2, 1, 4}), arange(3), frequencies); }, "rotary: positions must have shape [2] or [1, 2], found [3]"}};
    rows.push_back(r);
  }
}

double sigma(double x) { return 1.0 / (1.0 + std::exp(-x)); }

void add_gates(std::vector<OpRow>& rows) {
  struct Gate { UnaryFunction f; const char* name; std::function<double(double)> value; };
  for (const Gate& g : std::vector<Gate>{{UnaryFunction::silu, "silu", [](double x) { return x * sigma(x); }},
                                         {UnaryFunction::relu, "relu", [](double x) { return x > 0 ? x : 0.0; }},
                                         {UnaryFunction::gelu_erf, "gelu_erf", [](double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }},
                                         {UnaryFunction::gelu_tanh, "gelu_tanh", [](double x) { return x * sigma(2.0 * std::sqrt(2.0 / 3.141592653589793) * (x + 0.044715 * x * x * x)); }}}) {
    OpRow r{"gated", g.name, [f = g.f](const Inputs& x) { return gated(f, x[0], x[1]); }, [value = g.value](const std::vector<Array>& x) { return map(x[0], x[1], [&](double a, double b) { return value(a) * b; }); }};
    r.samples = {{distinct({3, 5}, 1), uniform({3, 5}, 2)}, {distinct({67}, 1), uniform({67}, 2)}, {distinct({}, 1), uniform({}, 2)}, {uniform({0, 2}, 1), uniform({0, 2}, 2)}};
    r.second_order = false;
    r.slack = 4.0;
    r.bad = {{[f = g.f] { gated(f, ones({2}), ones({3})); }, "gated: gate and up must have one shape, found [2] and [3]"}, {[] { gated(UnaryFunction::exp, ones({2}), ones({2})); }, "gated: "}};
    rows.push_back(r);
  }
  OpRow dropped{"dropout", "", [](const Inputs& x) { return dropout(x[0], 0.25, RandomKey{3, 4}); }, [](const std::vector<Array>& x) {
    // Kept where the uniform number of the element is at least p.
    const Array u(random_uniform({x[0].count()}, RandomKey{3, 4}, 0.0, 1.0, DType::f64));
    Array out = x[0];
    for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] = u.values[i] >= 0.25 ? out.values[i] / 0.75 : 0.0;
    return out;
  }};
  dropped.samples = {{uniform({3, 5}, 1)}, {uniform({67}, 1)}, {uniform({}, 1)}, {uniform({0, 2}, 1)}};
  dropped.bad = {{[] { dropout(ones({2}), 1.0, {}); }, "dropout: the probability must be at least 0 and below 1, found 1"}};
  rows.push_back(dropped);
  OpRow nothing = dropped;
  nothing.variant = "p = 0";
  nothing.call = [](const Inputs& x) { return dropout(x[0], 0.0, RandomKey{3, 4}); };
  nothing.reference = [](const std::vector<Array>& x) { return x[0]; };
  nothing.bad.clear();
  rows.push_back(nothing);
}

// Output, last hidden and last cell one after the other in one list.
Array naive_lstm(const std::vector<Array>& x, bool reverse) {
  const std::int64_t batch = x[0].size(0), steps = x[0].size(1), channels = x[0].size(2), h = x[2].size(1);
  Array output({batch, steps, h}), hidden({batch, h}), cell({batch, h});
  if (!x[5].values.empty()) {
    hidden = x[5];
    cell = x[6];
  }
  for (std::int64_t i = 0; i < steps; ++i) {
    const std::int64_t t = reverse ? steps - 1 - i : i;
    const Array before = hidden;
    for_each_index({batch, h}, [&](const Index& at) {
      double gate[4];
      for (std::int64_t g = 0; g < 4; ++g) {
        const std::int64_t row = g * h + at[1];
        gate[g] = (x[3].values.empty() ? 0.0 : x[3].at({row})) + (x[4].values.empty() ? 0.0 : x[4].at({row}));
        for (std::int64_t c = 0; c < channels; ++c) gate[g] += x[1].at({row, c}) * x[0].at({at[0], t, c});
        for (std::int64_t c = 0; c < h; ++c) gate[g] += x[2].at({row, c}) * before.at({at[0], c});
      }
      cell[at] = sigma(gate[1]) * cell.at(at) + sigma(gate[0]) * std::tanh(gate[2]);
      hidden[at] = sigma(gate[3]) * std::tanh(cell.at(at));
      output[{at[0], t, at[1]}] = hidden.at(at);
    });
  }
  Array all(Index{output.count() + 2 * hidden.count()});
  all.values = output.values;
  all.values.insert(all.values.end(), hidden.values.begin(), hidden.values.end());
  all.values.insert(all.values.end(), cell.values.begin(), cell.values.end());
  return all;
}

void add_lstm(std::vector<OpRow>& rows) {
  for (bool reverse : {false, true}) {
    OpRow r{"lstm", reverse ? "reverse" : "", [=](const Inputs& x) {
      const LstmResult result = lstm(x[0], {x[1], x[2], x[3], x[4]}, x[5], x[6], reverse);
      return cat({reshape(result.output, {-1}), reshape(result.hidden, {-1}), reshape(result.cell, {-1})});
    }, [=](const std::vector<Array>& x) { return naive_lstm(x, reverse); }};
    r.samples = {{uniform({2, 3, 5}, 1), uniform({12, 5}, 2, -1, 1), uniform({12, 3}, 3, -1, 1), uniform({12}, 4), uniform({12}, 5), uniform({2, 3}, 6), uniform({2, 3}, 7)},
                 {uniform({1, 4, 2}, 1), uniform({8, 2}, 2, -1, 1), uniform({8, 2}, 3, -1, 1), Tensor(), Tensor(), Tensor(), Tensor()},
                 {uniform({2, 1, 2}, 1), uniform({4, 2}, 2, -1, 1), uniform({4, 1}, 3, -1, 1), uniform({4}, 4), uniform({4}, 5), Tensor(), Tensor()}};
    r.second_order = false;
    r.slack = 16.0;
    r.bad = {{[=] { lstm(ones({2, 3}), {ones({4, 3}), ones({4, 1}), {}, {}}, {}, {}, reverse); }, "lstm: the input must be (batch, time, channels)"},
             {[=] { lstm(ones({1, 2, 3}), {ones({4, 2}), ones({4, 1}), {}, {}}, {}, {}, reverse); }, "lstm: weights.input must be [4, 3], found [4, 2]"},
             {[=] { lstm(ones({1, 2, 3}), {ones({4, 3}), ones({3, 1}), {}, {}}, {}, {}, reverse); }, "lstm: weights.hidden must be (4H, H), found [3, 1]"}};
    rows.push_back(r);
  }
}

}  // namespace

std::vector<OpRow> attention_rows() {
  std::vector<OpRow> rows;
  add_attention(rows);
  add_attention_packed(rows);
  add_attention_with_past(rows);
  add_rotary(rows);
  add_gates(rows);
  add_lstm(rows);
  return rows;
}

}  // namespace cambium::test
