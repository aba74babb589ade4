// Values and gradients of the stored operator cases, in float64, through public ops.
#include "tests/goldens/ops.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>

#include "autograd/ops.h"
#include "nn/models/rope.h"
#include "nn/position.h"
#include "tensor/json.h"
#include "tensor/safetensors.h"

namespace cambium::test {

namespace {

// One case: its arguments and inputs by name.
struct Case {
  Json args;
  std::map<std::string, Tensor> inputs;
  const Tensor& operator()(const std::string& name) const {
    const auto found = inputs.find(name);
    if (found == inputs.end()) throw std::runtime_error("the case has no input " + name);
    return found->second;
  }
  bool has(const std::string& name) const { return inputs.contains(name); }
  std::int64_t whole(const char* key) const { return args.at(key).get<std::int64_t>(); }
  int dim() const { return args.at("dim").get<int>(); }
  double number(const char* key) const { return args.at(key).get<double>(); }
  std::string text(const char* key) const { return args.at(key).get<std::string>(); }
  bool flag(const char* key) const { return args.value(key, false); }
};

using Outputs = std::vector<Tensor>;
using Handler = std::function<Outputs(const Case&)>;

LossReduction reduction_of(const Case& c) {
  const std::string name = c.text("reduction");
  return name == "sum" ? LossReduction::sum : name == "none" ? LossReduction::none : LossReduction::mean;
}

Tensor cross_entropy_case(const Case& c) {
  CrossEntropyOptions options{.reduction = reduction_of(c), .ignore_index = c.args.value("ignore_index", std::int64_t{-100}), .label_smoothing = c.args.value("label_smoothing", 0.0)};
  if (c.has("const_weight")) options.weight = c("const_weight");
  return cross_entropy(c("x"), c("target"), options);
}

// The cases are (B, H, T, D).
Tensor attention_case(const Case& c) {
  AttentionMask mask{.causal = c.flag("is_causal")};
  if (c.args.contains("scale")) mask.scale = c.number("scale");
  if (c.text("mask") == "bool") mask.bias = masked_fill(zeros(c("mask").shape(), DType::f64, comparison_device()), logical_not(c("mask")), -std::numeric_limits<double>::infinity());
  if (c.text("mask") == "float") mask.bias = c("mask");
  return transpose(attention(transpose(c("q"), 1, 2), transpose(c("k"), 1, 2), transpose(c("v"), 1, 2), mask), 1, 2);
}

Tensor rotary_case(const Case& c) {
  const bool interleaved = c.text("style") == "interleaved";
  const Tensor x = interleaved ? c("x") : transpose(c("x"), 1, 2);
  const std::int64_t half = x.size(-1) / 2, first = c.args.at("positions").at(0).get<std::int64_t>();
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < half; ++i) frequencies.push_back(static_cast<float>(std::pow(c.number("theta"), -static_cast<double>(i) / static_cast<double>(half))));
  const Tensor positions = add(arange(x.size(1), DType::i64, comparison_device()), static_cast<double>(first));
  const Tensor out = rotary(x, positions, from_vector(frequencies, {half}, comparison_device()), 1.0, interleaved);
  return interleaved ? out : transpose(out, 1, 2);
}

Tensor rope_case(const Case& c) {
  Json config = {{"rope_theta", c.number("rope_theta")}, {"max_position_embeddings", c.whole("max_position_embeddings")}, {"rope_scaling", c.args}};
  return rope_frequencies(ConfigReader(config, "the case"), c.whole("head_dim"));
}

Outputs alibi_case(const Case& c) {
  const std::int64_t heads = c.whole("heads"), batch = c("mask").size(0), steps = c("mask").size(1);
  const Tensor positions = mul(sub(cumsum(c("mask"), 1), 1.0), c("mask"));
  const Tensor slopes = reshape(to_device(alibi_slopes(heads, DType::bf16), comparison_device()), {1, heads, 1, 1});
  const Tensor bias = mul(slopes, reshape(to_dtype(positions, DType::bf16), {batch, 1, 1, steps}));
  return {alibi_slopes(heads, DType::f64), reshape(bias, {batch * heads, 1, steps})};
}

Outputs lstm_case(const Case& c) {
  Tensor x = c("x");
  std::vector<Tensor> hidden, cell;
  for (std::int64_t layer = 0; layer < c.whole("layers"); ++layer) {
    std::vector<Tensor> directions;
    for (bool reverse : {false, true}) {
      if (reverse && !c.flag("bidirectional")) continue;
      const std::string end = "_l" + std::to_string(layer) + (reverse ? "_reverse" : "");
      const LstmResult result = lstm(x, {c("weight_ih" + end), c("weight_hh" + end), c("bias_ih" + end), c("bias_hh" + end)}, {}, {}, reverse);
      directions.push_back(result.output);
      hidden.push_back(result.hidden);
      cell.push_back(result.cell);
    }
    x = cat(directions, -1);
  }
  return {x, stack(hidden), stack(cell)};
}

Tensor sliced(const Case& c) {
  Tensor x = c("x");
  int dim = 0;
  for (const Json& part : c.args.at("slices")) {
    x = slice(x, dim, part[0].is_null() ? 0 : part[0].get<std::int64_t>(), part[1].is_null() ? INT64_MAX : part[1].get<std::int64_t>(), part[2].get<std::int64_t>());
    ++dim;
  }
  return x;
}

Tensor permuted(const Case& c) {
  const auto order = c.args.at("permute").get<std::vector<int>>();
  return reshape(permute(c("x"), {order.at(0), order.at(1), order.at(2), order.at(3)}), c.args.at("reshape").get<std::vector<std::int64_t>>());
}

Handler one(Tensor (*f)(const Tensor&)) {
  return [f](const Case& c) { return Outputs{f(c("x"))}; };
}
Handler two(Tensor (*f)(const Tensor&, const Tensor&)) {
  return [f](const Case& c) { return Outputs{f(c("a"), c("b"))}; };
}
Handler plain(std::function<Tensor(const Case&)> f) {
  return [f](const Case& c) { return Outputs{f(c)}; };
}

// The references of nll and kl_div take the logarithm of the softmax themselves.
const std::map<std::string, Handler>& handlers() {
  static const std::map<std::string, Handler> all = {
      {"matmul", two(matmul)}, {"add", two(add)}, {"sub", two(sub)}, {"mul", two(mul)}, {"div", two(div)}, {"maximum", two(maximum)},
      {"gelu_erf", one(gelu_erf)}, {"gelu_tanh", one(gelu_tanh)}, {"silu", one(silu)}, {"relu", one(relu)}, {"tanh", one(tanh)}, {"sigmoid", one(sigmoid)},
      {"exp", one(exp)}, {"abs", one(abs)}, {"neg", one(neg)}, {"square", one(square)}, {"sin", one(sin)}, {"cos", one(cos)}, {"erf", one(erf)},
      {"softplus", one(softplus)}, {"quick_gelu", one(quick_gelu)}, {"log", one(log)}, {"sqrt", one(sqrt)}, {"rsqrt", one(rsqrt)}, {"reciprocal", one(reciprocal)},
      {"linear", plain([](const Case& c) { return linear(c("x"), c("w"), c("bias")); })},
      {"conv1d_hf", plain([](const Case& c) { return linear_transposed(c("x"), c("w"), c("bias")); })},
      {"einsum", plain([](const Case& c) { return einsum(c.text("equation"), c("a"), c("b")); })},
      {"transpose", plain(permuted)},
      {"pow", plain([](const Case& c) { return c.has("y") ? pow(c("x"), c("y")) : pow(c("x"), c.number("exponent")); })},
      {"clamp", plain([](const Case& c) { return clamp(c("x"), c.number("min"), c.number("max")); })},
      {"where", plain([](const Case& c) { return where(c("cond"), c("a"), c("b")); })},
      {"masked_fill", plain([](const Case& c) { return masked_fill(c("x"), c("mask"), c.number("value")); })},
      {"sum", plain([](const Case& c) { return sum(c("x"), {c.dim()}); })},
      {"mean", plain([](const Case& c) { return mean(c("x"), {c.args.at("dim").at(0).get<int>(), c.args.at("dim").at(1).get<int>()}, c.flag("keepdim")); })},
      {"var", plain([](const Case& c) { return var(c("x"), {c.dim()}, c.number("correction")); })},
      {"std", plain([](const Case& c) { return stddev(c("x"), {c.dim()}, c.number("correction")); })},
      {"max", plain([](const Case& c) { return c.args.contains("dim") ? max(c("x"), c.dim()).values : max(c("x")); })},
      {"amax", plain([](const Case& c) { return amax(c("x"), {c.dim()}); })},
      {"argmax", plain([](const Case& c) { return argmax(c("x"), c.dim()); })},
      {"cumsum", plain([](const Case& c) { return cumsum(c("x"), c.dim()); })},
      {"logsumexp", plain([](const Case& c) { return logsumexp(c("x"), {c.dim()}); })},
      {"norm", plain([](const Case& c) { return norm(c("x"), {c.dim()}); })},
      {"topk", [](const Case& c) { const ValuesAndIndices r = topk(c("x"), c.whole("k"), c.dim()); return Outputs{r.values, r.indices}; }},
      {"softmax", plain([](const Case& c) { return softmax(c("x"), c.dim()); })},
      {"log_softmax", plain([](const Case& c) { return log_softmax(c("x"), c.dim()); })},
      {"layer_norm", plain([](const Case& c) { return layer_norm(c("x"), c.has("w") ? c("w") : Tensor(), c.has("bias") ? c("bias") : Tensor(), c.number("eps")); })},
      {"rms_norm", plain([](const Case& c) { return rms_norm(c("x"), c("w"), c.number("eps")); })},
      {"embedding", plain([](const Case& c) { return embedding(c("ids"), c("w"), c.args.contains("padding_idx") ? std::optional(c.whole("padding_idx")) : std::nullopt); })},
      {"index_select", plain([](const Case& c) { return index_select(c("x"), c.dim(), c("index")); })},
      {"gather", plain([](const Case& c) { return gather(c("x"), c.dim(), c("index")); })},
      {"scatter_add", plain([](const Case& c) { return scatter_add(c("x"), c.dim(), c("index"), c("src")); })},
      {"index_add", plain([](const Case& c) { return index_add(c("x"), c.dim(), c("index"), c("src")); })},
      {"concat", plain([](const Case& c) { return cat({c("a"), c("b"), c("c")}, c.dim()); })},
      {"split", [](const Case& c) { return split(c("x"), c.args.at("sizes").get<std::vector<std::int64_t>>(), c.dim()); }},
      {"stack", plain([](const Case& c) { return stack(Outputs{c("a"), c("b")}, c.dim()); })},
      {"slice", plain(sliced)},
      {"expand", plain([](const Case& c) { return broadcast_to(c("x"), Shape(c.args.at("shape").get<std::vector<std::int64_t>>())); })},
      {"tril", plain([](const Case& c) { return tril(c("x"), c.whole("diagonal")); })},
      {"pad", plain([](const Case& c) { return pad(c("x"), c.args.at("pad").at(0).get<std::int64_t>(), c.args.at("pad").at(1).get<std::int64_t>(), -1, c.number("value")); })},
      {"repeat_interleave", plain([](const Case& c) { return repeat_interleave(c("x"), c.whole("repeats"), c.dim()); })},
      {"cross_entropy", plain(cross_entropy_case)},
      {"nll", plain([](const Case& c) { return nll_loss(log_softmax(c("x")), c("target"), reduction_of(c)); })},
      {"mse", plain([](const Case& c) { return mse_loss(c("x"), c("y"), reduction_of(c)); })},
      {"bce_with_logits", plain([](const Case& c) { return binary_cross_entropy_with_logits(c("x"), c("const_y"), reduction_of(c)); })},
      {"kl_div", plain([](const Case& c) { return kl_div(log_softmax(c("x")), c("const_y")); })},
      {"scaled_dot_product_attention", plain(attention_case)},
      {"rotary", plain(rotary_case)},
      {"rope_inv_freq", plain(rope_case)},
      {"t5_relative_position_bucket", plain([](const Case& c) { return t5_relative_position_bucket(c("relative_position"), c.flag("bidirectional"), c.whole("num_buckets"), c.whole("max_distance")); })},
      {"alibi", alibi_case},
      {"lstm", lstm_case},
  };
  return all;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return std::numeric_limits<double>::infinity();
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i] != y[i]) worst = std::max(worst, std::isfinite(x[i] - y[i]) ? std::fabs(x[i] - y[i]) / std::max(1.0, std::fabs(y[i])) : std::numeric_limits<double>::infinity());
  return worst;
}

void compare_operator(const Json& entry, double tolerance, const Handler& handler, const SafetensorsFile& tensors, Comparison& out) {
  const std::string name = entry.at("name").get<std::string>(), op = entry.at("op").get<std::string>();
  // Angles of rotary positions come from float32 frequencies, and their sines are rounded to float32.
  if (op == "rotary") tolerance = 2e-6;
  Case c{entry.at("args"), {}};
  std::vector<std::string> differentiated;
  Outputs leaves, weighed, weights;
  for (const Json& input : entry.at("inputs")) {
    const std::string key = input.get<std::string>();
    const Tensor x = clone(to_device(tensors.tensor(name + "/in." + key), comparison_device()));
    if (tensors.contains(name + "/grad." + key)) {
      x.set_requires_grad(true);
      differentiated.push_back(key);
      leaves.push_back(x);
    }
    c.inputs.emplace(key, x);
  }
  const Outputs outputs = handler(c);
  if (outputs.size() != entry.at("outputs").size()) {
    out.failure(name + ": another number of outputs");
    return;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::string key = entry.at("outputs")[i].get<std::string>();
    out.within(name, largest_difference(outputs[i], tensors.tensor(name + "/" + key)), tolerance);
    if (!tensors.contains(name + "/gout." + key)) continue;
    weighed.push_back(outputs[i]);
    weights.push_back(to_device(tensors.tensor(name + "/gout." + key), comparison_device()));
  }
  if (leaves.empty()) return;
  const std::vector<Tensor> grads = grad(weighed, leaves, weights);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (!grads[i].defined()) out.failure(name + ": no gradient of " + differentiated[i]);
    else out.within(name + " gradient", largest_difference(grads[i], tensors.tensor(name + "/grad." + differentiated[i])), tolerance);
  }
}

}  // namespace

Comparison compare_operators(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const Json file = read_json_file((std::filesystem::path(folder) / "ops.json").string());
  const SafetensorsFile tensors((std::filesystem::path(folder) / "ops.safetensors").string());
  out.same("count", file.at("cases").size() > 100, "the file has too few cases");
  for (const Json& entry : file.at("cases")) {
    const std::string key = entry.at("name").get<std::string>(), op = entry.at("op").get<std::string>();
    const auto handler = handlers().find(op);
    if (handler == handlers().end()) {
      out.failure(key + ": op '" + op + "' is not known");
      continue;
    }
    try {
      compare_operator(entry, entry.value("tolerance", file.at("tolerance").get<double>()), handler->second, tensors, out);
    } catch (const std::exception& error) {
      out.failure(key + ": " + error.what());
    }
  }
  return out;
}

}  // namespace cambium::test
