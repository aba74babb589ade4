// The combination types on the factors of one layer.
#include "peft/combine_layer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "peft/pruning.h"

namespace cambium {

namespace {

using Kind = CombinationMethod::Kind;

struct TypeName { std::string_view name; Kind kind; bool by_svd; };
constexpr TypeName kTypes[] = {
    {"linear", Kind::linear, false},       {"cat", Kind::cat, false},
    {"svd", Kind::svd, true},              {"ties", Kind::ties, false},
    {"ties_svd", Kind::ties, true},        {"dare_linear", Kind::dare_linear, false},
    {"dare_ties", Kind::dare_ties, false}, {"dare_linear_svd", Kind::dare_linear, true},
    {"dare_ties_svd", Kind::dare_ties, true}, {"magnitude_prune", Kind::magnitude_prune, false},
    {"magnitude_prune_svd", Kind::magnitude_prune, true},
};

constexpr std::pair<MergeCompat, std::string_view> kCompat[] = {
    {MergeCompat::corrected, "corrected"},
    {MergeCompat::peft_0_21, "peft_0_21"},
    {MergeCompat::peft_0_9_to_0_20, "peft_0_9_to_0_20"},
    {MergeCompat::peft_0_7, "peft_0_7"},
    {MergeCompat::peft_0_4, "peft_0_4"},
};

/// What the sources' factors are multiplied by in the types that work on A and B apart.
struct FactorWeights { std::vector<double> a, b; };

FactorWeights factor_weights(const std::vector<CombineSource>& sources, MergeCompat compat, const std::string& where) {
  FactorWeights out;
  for (const CombineSource& s : sources) {
    switch (compat) {
      case MergeCompat::peft_0_4:
        out.a.push_back(s.weight * s.scaling);
        out.b.push_back(1.0);
        break;
      case MergeCompat::peft_0_7:
        check<ConfigError>(s.weight >= 0.0, where, ": linear: PEFT 0.7 cannot take the negative weight ", s.weight, ": use another merge_compat");
        out.a.push_back(std::sqrt(s.weight) * s.scaling);
        out.b.push_back(std::sqrt(s.weight));
        break;
      default: {
        const double product = s.weight * s.scaling, root = std::sqrt(std::fabs(product));
        out.a.push_back(product < 0.0 ? -root : product > 0.0 ? root : 0.0);
        out.b.push_back(root);
      }
    }
  }
  return out;
}

Tensor delta_of(const CombineSource& s) { return mul(matmul(wide(s.b), wide(s.a)), s.scaling); }

/// Pruning and voting on one list of tensors: the factors A, the factors B, or the whole deltas.
Tensor combine_entries(const std::vector<Tensor>& parts, const std::vector<double>& weights, Kind kind, const CombineOptions& options, RandomKey key) {
  const double density = options.density.value_or(1.0);
  std::vector<Tensor> pruned;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (kind == Kind::ties || kind == Kind::magnitude_prune) pruned.push_back(magnitude_prune(parts[i], density));
    else if (kind == Kind::dare_linear || kind == Kind::dare_ties) pruned.push_back(random_prune(parts[i], density, key.fold(i)));
    else pruned.push_back(parts[i]);
  }
  if (kind == Kind::ties || kind == Kind::dare_ties) return elect_and_average(pruned, weights, options.majority_sign_method.value_or("total"));
  return task_arithmetic(pruned, weights);
}

/// The combination of whole deltas, (out, in).
Tensor dense_combination(const std::vector<CombineSource>& sources, const std::vector<double>& weights, Kind kind, const CombineOptions& options, RandomKey key) {
  std::vector<Tensor> deltas;
  for (const CombineSource& s : sources) deltas.push_back(delta_of(s));
  return combine_entries(deltas, weights, kind, options, key);
}

/// All sources side by side: B (out, R) and A (R, in), the weights on A.
LowRankFactors stacked(const std::vector<CombineSource>& sources, const std::vector<double>& weights, DType dtype) {
  LowRankFactors out;
  std::vector<Tensor> parts;
  for (std::size_t i = 0; i < sources.size(); ++i) parts.push_back(mul(to_dtype(sources[i].a, dtype), weights[i] * sources[i].scaling));
  out.a = cat(parts, 0);
  parts.clear();
  for (const CombineSource& source : sources) parts.push_back(to_dtype(source.b, dtype));
  out.b = cat(parts, 1);
  return out;
}

LowRankFactors padded(LowRankFactors factors, std::int64_t rank) {
  const std::int64_t missing = rank - factors.a.size(0);
  check<ShapeError>(missing >= 0, "combining: rank ", factors.a.size(0), " does not fit into ", rank);
  if (missing == 0) return factors;
  return {cat({factors.a, zeros({missing, factors.a.size(1)}, DType::f32, factors.a.device())}, 0), cat({factors.b, zeros({factors.b.size(0), missing}, DType::f32, factors.b.device())}, 1)};
}

double frobenius(const Tensor& x) { return std::sqrt(sum(mul(to_dtype(x, DType::f64), to_dtype(x, DType::f64))).item()); }

double relative(double part, double whole) { return part == 0.0 ? 0.0 : part / whole; }

double tail_norm(const SvdResult& svd, std::int64_t rank) {
  if (rank >= svd.s.size(0)) return 0.0;
  return frobenius(slice(svd.s, 0, rank));
}

void check_sources(const std::vector<CombineSource>& sources, const std::string& where) {
  check<ConfigError>(!sources.empty(), where, ": there is nothing to combine");
  for (const CombineSource& s : sources) {
    check<ShapeError>(s.a.rank() == 2 && s.b.rank() == 2 && s.a.size(0) == s.b.size(1), where, ": factors ", s.b.shape(), " and ", s.a.shape(), " cannot be multiplied");
    check<ShapeError>(s.a.size(1) == sources.front().a.size(1) && s.b.size(0) == sources.front().b.size(0), where, ": the adapters are for matrices of different sizes: ",
                      Shape{sources.front().b.size(0), sources.front().a.size(1)}, " and ", Shape{s.b.size(0), s.a.size(1)});
    check<ConfigError>(std::isfinite(s.weight) && std::isfinite(s.scaling), where, ": weight ", s.weight, " and scaling ", s.scaling, ": expected finite numbers");
    check<StateError>(all_finite(s.a) && all_finite(s.b), where, ": NaN or infinity in an adapter: it is broken");
  }
}

}  // namespace

std::string_view name_of(MergeCompat compat) {
  for (const auto& [value, name] : kCompat)
    if (value == compat) return name;
  return "corrected";
}

MergeCompat parse_merge_compat(std::string_view text) {
  std::string known;
  for (const auto& [value, name] : kCompat) {
    if (name == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fail<ConfigError>("merge_compat: expected one of ", known, "; found '", text, "'");
}

CombinationMethod check_combination(const CombineOptions& o) {
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& t) { return t.name == o.combination_type; });
  if (type == std::end(kTypes)) {
    std::string known;
    for (const TypeName& t : kTypes) known += (known.empty() ? "" : ", ") + std::string(t.name);
    fail<ConfigError>("combination_type: expected one of ", known, "; found '", o.combination_type, "'");
  }
  const CombinationMethod method{type->kind, type->by_svd};
  const auto unused = [&](bool given, bool used, const char* option) {
    check<ConfigError>(!given || used, option, ": combination type '", o.combination_type, "' has no use for it");
  };
  unused(o.svd_rank.has_value(), method.by_svd, "svd_rank");
  unused(o.svd_clamp.has_value(), method.by_svd, "svd_clamp");
  unused(o.density.has_value(), method.prunes(), "density");
  unused(o.majority_sign_method.has_value(), method.kind == Kind::ties || method.kind == Kind::dare_ties, "majority_sign_method");
  check<ConfigError>(!method.prunes() || o.density, "density: combination type '", o.combination_type, "' needs one: give the share of entries to keep");
  if (o.density) {
    const bool random = method.kind == Kind::dare_linear || method.kind == Kind::dare_ties;
    check<ConfigError>(std::isfinite(*o.density) && *o.density >= 0.0 && (*o.density > 0.0 || !random), "density: expected ", random ? "a positive share" : "0 or more", ", found ", *o.density);
  }
  check<ConfigError>(!o.svd_rank || *o.svd_rank > 0, "svd_rank: expected a positive rank, found ", o.svd_rank.value_or(0));
  check<ConfigError>(!o.svd_clamp || (*o.svd_clamp >= 0.0 && *o.svd_clamp <= 1.0), "svd_clamp: expected a quantile between 0 and 1, found ", o.svd_clamp.value_or(0.0));
  if (o.majority_sign_method)
    check<ConfigError>(*o.majority_sign_method == "total" || *o.majority_sign_method == "frequency", "majority_sign_method: expected total or frequency, found '", *o.majority_sign_method, "'");
  const bool early = o.compat == MergeCompat::peft_0_4 || o.compat == MergeCompat::peft_0_7;
  check<ConfigError>(!early || !method.prunes(), "merge_compat ", name_of(o.compat), ": '", o.combination_type, "' came with PEFT 0.9: linear, cat and svd are there");
  return method;
}

CombinedLayer combine_layer(const std::vector<CombineSource>& sources, const CombineOptions& options, std::int64_t rank, RandomKey key, const std::string& where) {
  NoGrad no_grad;
  const CombinationMethod method = check_combination(options);
  check_sources(sources, where);
  check<ConfigError>(rank > 0, where, ": expected a positive rank, found ", rank);
  std::vector<double> weights;
  for (const CombineSource& s : sources) weights.push_back(s.weight);
  CombinedLayer out;

  if (method.by_svd) {
    // 0.9 to 0.20 multiplied by the scaling once more, although the deltas hold it.
    if (options.compat == MergeCompat::peft_0_9_to_0_20)
      for (std::size_t i = 0; i < sources.size(); ++i) weights[i] *= sources[i].scaling;
    std::optional<double> clamp_at = options.svd_clamp;
    if (!clamp_at && options.compat == MergeCompat::peft_0_4) clamp_at = 0.99;
    // What is lost is told by the singular values left out; clamping depends on the signs of the factors, so there the difference itself is measured.
    if (method.kind == Kind::svd) {
      out.route = "low-rank";
      LowRankFactors all = stacked(sources, weights, DType::f64);
      const SvdResult svd = clamp_at ? svd_of_product(all.b, all.a, rank) : svd_of_product(std::move(all.b), std::move(all.a), rank);
      out.factors = truncate(svd, rank);
      double lost = tail_norm(svd, rank);
      if (clamp_at) {
        clamp_factors(out.factors, *clamp_at);
        lost = frobenius(svd_of_product(cat({all.b, to_dtype(out.factors.b, DType::f64)}, 1), cat({all.a, to_dtype(neg(out.factors.a), DType::f64)}, 0)).s);
      }
      out.error = relative(lost, frobenius(svd.s));
      return out;
    }
    const Tensor dense = dense_combination(sources, weights, method.kind, options, key);
    const double whole = frobenius(dense);
    double lost = 0.0;
    if (prefers_randomised_svd(dense.size(0), dense.size(1), rank)) {
      out.route = "randomised";
      const SvdResult svd = randomised_svd(dense, rank, key.fold("svd"));
      out.factors = truncate(svd, rank);
      const double captured = frobenius(svd.s);
      lost = std::sqrt(std::max(0.0, whole * whole - captured * captured));
    } else {
      out.route = "dense";
      const SvdResult svd = svd_of_matrix(dense);
      out.factors = truncate(svd, rank);
      lost = tail_norm(svd, rank);
    }
    if (clamp_at) {
      clamp_factors(out.factors, *clamp_at);
      lost = frobenius(sub(dense, matmul(out.factors.b, out.factors.a)));
    }
    out.error = relative(lost, whole);
    return out;
  }

  out.route = "factors";
  if (method.kind == Kind::cat) {
    out.factors = padded(stacked(sources, weights, DType::f32), rank);
    out.error = 0.0;
    return out;
  }
  for (const CombineSource& s : sources)
    check<ConfigError>(s.a.size(0) == sources.front().a.size(0), where, ": ", options.combination_type, ": the adapters' ranks differ: ", sources.front().a.size(0), " and ", s.a.size(0),
                       ": use cat or a type that ends in svd");
  const FactorWeights by_factor = factor_weights(sources, options.compat, where);
  std::vector<Tensor> a, b;
  for (const CombineSource& s : sources) {
    a.push_back(wide(s.a));
    b.push_back(wide(s.b));
  }
  out.factors.a = combine_entries(a, by_factor.a, method.kind, options, key.fold("a"));
  out.factors.b = combine_entries(b, by_factor.b, method.kind, options, key.fold("b"));
  if (options.measure_error) {
    const Tensor dense = dense_combination(sources, weights, method.kind, options, key);
    out.error = relative(frobenius(sub(matmul(out.factors.b, out.factors.a), dense)), frobenius(dense));
  }
  out.factors = padded(std::move(out.factors), rank);
  return out;
}

}  // namespace cambium
