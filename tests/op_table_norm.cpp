// Rows of norms, softmax and losses.
#include <algorithm>
#include <cmath>

#include "autograd/ops/scale.h"
#include "tests/op_table.h"

namespace cambium::test {

namespace {

using Index = std::vector<std::int64_t>;
using Row = std::vector<double>;

// f of each line along the last dimension.
Array by_rows(const Array& x, const std::function<Row(const Row&)>& f) {
  Array out = x;
  const std::size_t n = x.shape.empty() ? 1 : static_cast<std::size_t>(x.size(-1));
  for (std::size_t start = 0; n > 0 && start < x.values.size(); start += n) {
    const Row row = f(Row(x.values.begin() + static_cast<std::ptrdiff_t>(start), x.values.begin() + static_cast<std::ptrdiff_t>(start + n)));
    std::copy(row.begin(), row.end(), out.values.begin() + static_cast<std::ptrdiff_t>(start));
  }
  return out;
}

Row log_softmax_row(const Row& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0.0;
  for (double v : x) sum += std::exp(v - top);
  Row out;
  for (double v : x) out.push_back(v - top - std::log(sum));
  return out;
}
Row softmax_row(const Row& x) {
  Row out = log_softmax_row(x);
  for (double& v : out) v = std::exp(v);
  return out;
}
Row normalised(const Row& x, bool centred, double epsilon) {
  double mean = 0.0, square = 0.0;
  for (double v : x) mean += centred ? v / static_cast<double>(x.size()) : 0.0;
  for (double v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Row out;
  for (double v : x) out.push_back((v - mean) / std::sqrt(square + epsilon));
  return out;
}
Array scaled(const Array& x, const Array& gamma, const Array& beta) {
  Array out = gamma.values.empty() ? x : map(x, gamma, [](double a, double b) { return a * b; });
  return beta.values.empty() ? out : map(out, beta, [](double a, double b) { return a + b; });
}
Array number(double value) {
  Array out(Index{});
  out.values[0] = value;
  return out;
}
double total(const Array& x) {
  double sum = 0.0;
  for (double v : x.values) sum += v;
  return sum;
}
Array reduced(const Array& x, LossReduction reduction, double divisor) {
  return reduction == LossReduction::none ? x : number(reduction == LossReduction::sum ? total(x) : total(x) / divisor);
}

void add_norms(std::vector<OpRow>& rows) {
  OpRow layer{"layer_norm", "", [](const Inputs& x) { return layer_norm(x[0], x[1], x[2], 1e-5); },
              [](const std::vector<Array>& x) { return scaled(by_rows(x[0], [](const Row& r) { return normalised(r, true, 1e-5); }), x[1], x[2]); }};
  layer.samples = {{uniform({3, 5}, 1), uniform({5}, 2), uniform({5}, 3)}, {uniform({2, 3, 17}, 1), Tensor(), Tensor()}, {uniform({67}, 1), uniform({67}, 2), Tensor()},
                   {uniform({0, 3}, 1), uniform({3}, 2), uniform({3}, 3)}, {uniform({2, 4}, 1), Tensor(), uniform({4}, 3)}};
  layer.second_order = false;
  layer.slack = 8.0;
  layer.bad = {{[] { layer_norm(ones({2, 3}), ones({2}), Tensor(), 1e-5); }, "layer_norm: gamma must have shape [3], found [2]"}, {[] { layer_norm(arange(3), Tensor(), Tensor(), 1e-5); }, "layer_norm: "},
               {[] { layer_norm(ones({2, 3}), Tensor(), Tensor(), -1.0); }, "layer_norm: epsilon must not be negative"}};
  rows.push_back(layer);
  OpRow rms{"rms_norm", "", [](const Inputs& x) { return rms_norm(x[0], x[1], 1e-6); },
            [](const std::vector<Array>& x) { return scaled(by_rows(x[0], [](const Row& r) { return normalised(r, false, 1e-6); }), x[1], Array(Index{0})); }};
  rms.samples = {{uniform({3, 5}, 1), uniform({5}, 2)}, {uniform({2, 3, 17}, 1), Tensor()}, {uniform({67}, 1), uniform({67}, 2)}, {uniform({0, 3}, 1), uniform({3}, 2)}};
  rms.second_order = false;
  rms.slack = 8.0;
  rms.bad = {{[] { rms_norm(ones({2, 3}), ones({2}), 1e-5); }, "rms_norm: gamma must have shape [3], found [2]"}, {[] { rms_norm(ones({2, 0}), Tensor(), 1e-5); }, "rms_norm: the last dimension must not be empty"}};
  rows.push_back(rms);
  for (bool logarithm : {false, true}) {
    OpRow r{logarithm ? "log_softmax" : "softmax", "", [logarithm](const Inputs& x) { return logarithm ? log_softmax(x[0]) : softmax(x[0]); },
            [logarithm](const std::vector<Array>& x) { return by_rows(x[0], logarithm ? log_softmax_row : softmax_row); }};
    r.samples = {{uniform({3, 5}, 1)}, {uniform({2, 3, 17}, 1, -8, 8)}, {uniform({1}, 1)}, {uniform({0, 3}, 1)}, {from_vector<double>({900, 901, -900, 902}, {2, 2})}};
    r.narrow = false;
    r.slack = 2.0;
    r.bad = {{[logarithm] { logarithm ? log_softmax(ones({})) : softmax(ones({})); }, ": a scalar has no dimension to normalise"}};
    rows.push_back(r);
    OpRow middle = r;
    middle.variant = "middle";
    middle.narrow = true;
    middle.slack = 8.0;
    middle.call = [logarithm](const Inputs& x) { return transpose(logarithm ? log_softmax(transpose(x[0]), 1) : softmax(transpose(x[0]), 1)); };
    middle.samples = {{uniform({2, 3, 5}, 1)}};
    middle.bad.clear();
    rows.push_back(middle);
  }
}

struct Sizes { LossReduction reduction; double smoothing; bool weighted; };

void add_scale_features(std::vector<OpRow>& rows) {
  for (const bool wide : {false, true}) {
    OpRow r{"scale_features", wide ? "float32 factor" : "", [](const Inputs& x) { return scale_features(x[0], x[1]); },
            [](const std::vector<Array>& x) { return map(x[0], x[1], [](double a, double b) { return a * b; }); }};
    if (wide) {
      // A factor that stays float32 while the input takes the 16-bit types.
      r.call = [](const Inputs& x) { return scale_features(x[0], item_size(x[0].dtype()) == 2 ? to_dtype(x[1], DType::f32) : x[1]); };
    }
    r.samples = {{uniform({7, 5}, 1), uniform({5}, 2)}, {uniform({2, 3, 4}, 3), uniform({4}, 4)}, {uniform({3}, 5), uniform({3}, 6)}, {uniform({0, 4}, 7), uniform({4}, 8)},
                 {uniform({1, 1}, 9), uniform({1}, 10)}, {uniform({65, 33}, 11), uniform({33}, 12)}};
    r.bad = {{[] { scale_features(ones({2, 3}), ones({2})); }, "scale_features: expected input (…, N) and factor (N), found [2, 3] and [2]"},
             {[] { scale_features(ones({2, 3}), ones({3}, DType::f64)); }, "beside an input of"}};
    rows.push_back(r);
  }
}

void add_cross_entropies(std::vector<OpRow>& rows) {
  for (const Sizes& s : std::vector<Sizes>{{LossReduction::mean, 0.0, false}, {LossReduction::sum, 0.1, false}, {LossReduction::none, 0.0, true}, {LossReduction::mean, 0.1, true}}) {
    OpRow r{"cross_entropy", s.weighted ? "weighted" : "", [s](const Inputs& x) {
      return cross_entropy(x[0], x[1], {.reduction = s.reduction, .ignore_index = -7, .label_smoothing = s.smoothing, .weight = s.weighted ? x[2] : Tensor()});
    }, [s](const std::vector<Array>& x) {
      const Array logs = by_rows(x[0], log_softmax_row);
      Array losses(x[1].shape);
      double weights = 0.0;
      const std::int64_t classes = x[0].size(-1);
      for (std::size_t row = 0; row < losses.values.size(); ++row) {
        if (x[1].values[row] == -7) continue;
        const auto weight = [&](std::size_t v) { return s.weighted ? x[2].values[v] : 1.0; };
        const auto log_of = [&](std::size_t v) { return logs.values[row * static_cast<std::size_t>(classes) + v]; };
        const std::size_t t = static_cast<std::size_t>(x[1].values[row]);
        double smooth = 0.0;
        for (std::size_t v = 0; v < static_cast<std::size_t>(classes); ++v) smooth -= weight(v) * log_of(v);
        losses.values[row] = -(1.0 - s.smoothing) * weight(t) * log_of(t) + s.smoothing / static_cast<double>(classes) * smooth;
        weights += weight(t);
      }
      return reduced(losses, s.reduction, weights);
    }};
    const Tensor weight = uniform({5}, 9, 0.5, 1.5);
    r.samples = {{uniform({4, 5}, 1), from_vector<std::int64_t>({0, -7, 4, 2}, {4}), weight}, {uniform({2, 3, 5}, 2), integers({2, 3}, 3, 0, 5), weight}, {uniform({1, 5}, 2), integers({1}, 3, 0, 5), weight}};
    if (s.weighted) r.constant = {2};
    else for (Inputs& sample : r.samples) sample.pop_back();
    r.second_order = false;
    // The loss is made in float32 for 16-bit logits and weights in the logits' type; the weights of this row are not rounded alike.
    r.narrow = !s.weighted;
    r.slack = 4.0;
    r.bad = {{[] { cross_entropy(ones({2, 3}), from_vector<std::int64_t>({0, 3}, {2})); }, "cross_entropy: target 3 at position 1 is neither a class below 3 nor ignore_index -100"},
             {[] { cross_entropy(ones({2, 3}), zeros({3}, DType::i64)); }, "cross_entropy: targets must have shape [2], found [3]"},
             {[] { cross_entropy(ones({2, 3}), ones({2})); }, "cross_entropy: targets must be int64 or int32 class numbers, found float32"}};
    rows.push_back(r);
  }
  OpRow headed{"linear_cross_entropy", "", [](const Inputs& x) { return linear_cross_entropy(x[0], x[1], x[2], x[3], -7); }, [](const std::vector<Array>& x) {
    Array logits({x[0].size(0), x[1].size(0)});
    for_each_index(logits.shape, [&](const Index& i) {
      double sum = x[2].values.empty() ? 0.0 : x[2].at({i[1]});
      for (std::int64_t c = 0; c < x[0].size(1); ++c) sum += x[0].at({i[0], c}) * x[1].at({i[1], c});
      logits[i] = sum;
    });
    const Array logs = by_rows(logits, log_softmax_row);
    double loss = 0.0, count = 0.0;
    for (std::int64_t r = 0; r < x[0].size(0); ++r) {
      if (x[3].at({r}) == -7) continue;
      loss -= logs.at({r, static_cast<std::int64_t>(x[3].at({r}))});
      count += 1.0;
    }
    return number(loss / count);
  }};
  headed.samples = {{uniform({4, 3}, 1), uniform({5, 3}, 2), uniform({5}, 3), from_vector<std::int64_t>({0, -7, 4, 2}, {4})}, {uniform({7, 4}, 1), uniform({9, 4}, 2), Tensor(), integers({7}, 4, 0, 9)}};
  headed.second_order = false;
  headed.slack = 8.0;
  headed.bad = {{[] { linear_cross_entropy(ones({2, 3}), ones({4, 2}), Tensor(), zeros({2}, DType::i64)); }, "linear_cross_entropy: "},
                {[] { linear_cross_entropy(ones({2, 3}), ones({4, 3}), Tensor(), full({2}, 4.0, DType::i64)); }, "linear_cross_entropy: target 4 at position 0"}};
  rows.push_back(headed);
}

void add_losses(std::vector<OpRow>& rows) {
  for (LossReduction reduction : {LossReduction::mean, LossReduction::sum, LossReduction::none}) {
    OpRow nll{"nll_loss", "", [=](const Inputs& x) { return nll_loss(x[0], x[1], reduction); }, [=](const std::vector<Array>& x) {
      Array losses(x[1].shape);
      for (std::size_t r = 0; r < losses.values.size(); ++r) losses.values[r] = -x[0].values[r * 5 + static_cast<std::size_t>(x[1].values[r])];
      return reduced(losses, reduction, static_cast<double>(losses.values.size()));
    }};
    nll.samples = {{uniform({4, 5}, 1), integers({4}, 2, 0, 5)}, {uniform({1, 5}, 1), integers({1}, 2, 0, 5)}};
    nll.bad = {{[=] { nll_loss(ones({2, 5}), zeros({3}, DType::i64), reduction); }, "nll_loss: targets must have shape [2], found [3]"}};
    rows.push_back(nll);
    OpRow mse{"mse_loss", "", [=](const Inputs& x) { return mse_loss(x[0], x[1], reduction); }, [=](const std::vector<Array>& x) {
      return reduced(map(x[0], x[1], [](double a, double b) { return (a - b) * (a - b); }), reduction, static_cast<double>(x[0].values.size()));
    }};
    mse.samples = {{uniform({4, 5}, 1), uniform({4, 5}, 2)}, {uniform({1}, 1), uniform({1}, 2)}};
    mse.slack = 4.0;
    mse.bad = {{[=] { mse_loss(ones({2}), ones({3}), reduction); }, "mse_loss: "}};
    rows.push_back(mse);
    OpRow bce{"binary_cross_entropy_with_logits", "", [=](const Inputs& x) { return binary_cross_entropy_with_logits(x[0], x[1], reduction); }, [=](const std::vector<Array>& x) {
      return reduced(map(x[0], x[1], [](double a, double t) { return -t * std::log(1.0 / (1.0 + std::exp(-a))) - (1.0 - t) * std::log(1.0 / (1.0 + std::exp(a))); }), reduction, static_cast<double>(x[0].values.size()));
    }};
    bce.samples = {{uniform({4, 5}, 1), uniform({4, 5}, 2, 0.0, 1.0)}, {uniform({1}, 1), uniform({1}, 2, 0.0, 1.0)}};
    bce.constant = {1};
    bce.slack = 4.0;
    bce.bad = {{[=] { binary_cross_entropy_with_logits(ones({2}), ones({3}), reduction); }, "binary_cross_entropy_with_logits: "}};
    rows.push_back(bce);
  }
  OpRow kl{"kl_div", "", [](const Inputs& x) { return kl_div(x[0], x[1]); }, [](const std::vector<Array>& x) {
    return number(total(map(x[0], x[1], [](double q, double p) { return p == 0.0 ? 0.0 : p * (std::log(p) - q); })) / static_cast<double>(x[0].size(0)));
  }};
  kl.samples = {{uniform({4, 5}, 1, -3, -1), uniform({4, 5}, 2, 0.1, 1.0)}, {uniform({2, 3}, 1, -3, -1), from_vector<double>({0.5, 0.0, 0.5, 1.0, 0.0, 0.0}, {2, 3})}};
  kl.constant = {1};
  kl.slack = 4.0;
  kl.bad = {{[] { kl_div(ones({2}), ones({3})); }, "kl_div: "}};
  rows.push_back(kl);
}

}  // namespace

std::vector<OpRow> norm_rows() {
  std::vector<OpRow> rows;
  add_scale_features(rows);
  add_norms(rows);
  add_cross_entropies(rows);
  add_losses(rows);
  return rows;
}

}  // namespace cambium::test
